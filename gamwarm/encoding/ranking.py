"""Which of several entries is meant: the ranking rules, on summaries."""

from __future__ import annotations

from collections.abc import Sequence

from gamwarm.encoding.summary import EntrySummary
from gamwarm.records import Producer, RecordKind

__all__ = ["best_checkpoint", "newest", "retained", "select_record", "united"]

_TIE = 1e-12


def newest(entries: Sequence[EntrySummary]) -> EntrySummary:
    """Return the entry with the largest ``created``, ties by entry id."""
    return max(entries, key=lambda e: (e.created, e.entry_id))


def best_checkpoint(entries: Sequence[EntrySummary]) -> EntrySummary:
    """Return the entry of lowest objective; any objective beats none.

    Ties (within 1e-12 times the larger of 1 and the objective's size) go to the newest.
    """
    valued = [e for e in entries if e.objective is not None]
    if not valued:
        return newest(entries)
    lowest = min(e.objective for e in valued if e.objective is not None)
    slack = _TIE * max(1.0, abs(lowest))
    return newest([e for e in valued if e.objective is not None and e.objective <= lowest + slack])


def select_record(entries: Sequence[EntrySummary], producer: Producer | None) -> EntrySummary | None:
    """Return the record that a look-up by ``producer`` means, or None of none.

    A final of this producer beats all, newest first; a final of another or unknown producer counts
    as a checkpoint. ``producer=None`` ranks nothing as foreign.
    """
    if not entries:
        return None
    own = [
        e for e in entries if e.kind == RecordKind.FINAL and (producer is None or producer.is_same_build(e.producer))
    ]
    return newest(own) if own else best_checkpoint(entries)


def retained(entries: Sequence[EntrySummary], keep_last: int) -> list[EntrySummary]:
    """Return what one key retains, best first: ``keep_last`` finals and the best checkpoint."""
    finals = [e for e in entries if e.kind == RecordKind.FINAL]
    checkpoints = [e for e in entries if e.kind == RecordKind.CHECKPOINT]
    kept = sorted(finals, key=lambda e: (e.created, e.entry_id), reverse=True)[:keep_last]
    return kept + ([best_checkpoint(checkpoints)] if checkpoints else [])


def united(entries: Sequence[EntrySummary], keep_last: int) -> list[EntrySummary]:
    """Return the entries that one key retains after a merge, best first.

    What stays does not depend on the order in which files are merged: checkpoints are ranked
    without the tolerance that a put allows, which is not transitive.
    """
    finals = [e for e in entries if e.kind == RecordKind.FINAL]
    checkpoints = [e for e in entries if e.kind != RecordKind.FINAL]
    kept = sorted(finals, key=lambda e: (e.created, e.entry_id), reverse=True)[:keep_last]
    return kept + sorted(checkpoints, key=_checkpoint_rank)[:1]


def _checkpoint_rank(entry: EntrySummary) -> tuple[bool, float, int, str]:
    # Ties go to the newest, then the larger entry id, as everywhere; it is compared upside down.
    upside_down = "".join(f"{15 - int(digit, 16):x}" for digit in entry.entry_id)
    return entry.objective is None, entry.objective or 0.0, -entry.created, upside_down
