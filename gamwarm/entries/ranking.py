"""Which of several entries is meant: the ranking rules, on plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from gamwarm.records import Producer, RecordKind

__all__ = ["RecordLike", "best_checkpoint", "newest", "retained", "select_record"]

_TIE = 1e-12


class RecordLike(Protocol):
    """What ranking needs to know of a record entry."""

    @property
    def kind(self) -> RecordKind: ...

    @property
    def objective(self) -> float | None: ...

    @property
    def producer(self) -> Producer: ...

    @property
    def created(self) -> int: ...

    @property
    def entry_id(self) -> str: ...


R = TypeVar("R", bound=RecordLike)


def newest(entries: Sequence[R]) -> R:
    """Return the entry with the largest ``created``, ties by entry id."""
    return max(entries, key=lambda e: (e.created, e.entry_id))


def best_checkpoint(entries: Sequence[R]) -> R:
    """Return the entry of lowest objective; any objective beats none.

    Ties (within 1e-12 times the larger of 1 and the objective's size) go to the newest.
    """
    valued = [e for e in entries if e.objective is not None]
    if not valued:
        return newest(entries)
    lowest = min(e.objective for e in valued if e.objective is not None)
    slack = _TIE * max(1.0, abs(lowest))
    return newest([e for e in valued if e.objective is not None and e.objective <= lowest + slack])


def select_record(entries: Sequence[R], producer: Producer | None) -> R | None:
    """Return the record that a look-up by ``producer`` means, or None of none.

    A final of this producer beats all, newest first; a final of another or unknown producer counts as a checkpoint.
    ``producer=None`` ranks nothing as foreign.
    """
    if not entries:
        return None
    own = [
        e for e in entries if e.kind is RecordKind.FINAL and (producer is None or producer.is_same_build(e.producer))
    ]
    return newest(own) if own else best_checkpoint(entries)


def retained(entries: Sequence[R], keep_last: int) -> list[R]:
    """Return what one key keeps of ``entries``: the newest ``keep_last`` finals and the best checkpoint; best first."""
    finals = [e for e in entries if e.kind is RecordKind.FINAL]
    checkpoints = [e for e in entries if e.kind is RecordKind.CHECKPOINT]
    kept = sorted(finals, key=lambda e: (e.created, e.entry_id), reverse=True)[:keep_last]
    return kept + ([best_checkpoint(checkpoints)] if checkpoints else [])
