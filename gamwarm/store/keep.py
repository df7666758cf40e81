"""What keeping a fit files: its record and, if it converged, its artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gamwarm.display import NotebookTable
from gamwarm.entries import Encoded, EntryStore, PutOutcome, Refused, decode, encode
from gamwarm.errors import InvalidInput
from gamwarm.identity import FitProblem
from gamwarm.records import (
    BlockRecord,
    Cost,
    FitResult,
    Lineage,
    Producer,
    RecordKind,
    StartSource,
)
from gamwarm.store.savings import Saving, Session, saving_of
from gamwarm.transfer import StartReport, capture_fit, check_result, producer_of

__all__ = ["Filing", "KeepOutcome", "content_of", "file_fit", "lineage_of", "prepare"]


@dataclass
class KeepOutcome(NotebookTable):
    """What became of a kept fit.

    Attributes
    ----------
    record, artifact : PutOutcome
        Each with ``written``, ``pending``, ``reason`` and ``entry_id``.
    saved : Saving or None
        What the start saved against the fit it came from, where both costs are known.
    stopped : bool
        Whether the search ended early because `FitInProgress.should_stop` said so: fit it again,
        from its checkpoint.
    """

    record: PutOutcome = field(default_factory=PutOutcome)
    artifact: PutOutcome = field(default_factory=PutOutcome)
    saved: Saving | None = None
    stopped: bool = False

    def __repr__(self) -> str:
        return f"<KeepOutcome: record {self.record}; artifact {self.artifact}>"

    def _facts(self) -> list[tuple[str, str]]:
        saved = "" if self.saved is None else str(self.saved)
        return [("record", str(self.record)), ("artifact", str(self.artifact)), ("saved", saved)]


@dataclass(frozen=True)
class Filing:
    """The entries to write, encoded once, with the data for the decision (sent to rank 0)."""

    key: str
    producer: Producer
    record: Encoded | Refused
    artifact: Encoded | Refused
    converged: bool
    lineage: Lineage | None
    cost: Cost | None
    seeds_column: str | None
    saved: Saving | None

    @property
    def content(self) -> tuple[str, str, str]:
        """What ranks compare before they file one fit together."""
        return self.key, content_of(self.record), content_of(self.artifact)


def content_of(entry: Encoded | Refused) -> str:
    """Return what ranks compare of an entry: its id; nothing if a gate refuses it."""
    return "" if isinstance(entry, Refused) else entry.entry_id


def lineage_of(problem: FitProblem, result: FitResult, start: StartReport | None) -> Lineage | None:
    """Return the lineage of the fit; None if its start was not looked up."""
    if start is None:
        return None
    terms: tuple[tuple[str, str], ...] = ()
    if start.source == StartSource.TRANSFER:
        if len(start.terms) != len(problem.block_names):
            raise InvalidInput(
                f"start has {len(start.terms)} terms, the fit {len(problem.block_names)} blocks; "
                "pass the report that start_for returned for this fit"
            )
        terms = tuple((name, term.provenance) for name, term in zip(problem.block_names, start.terms, strict=True))
    return Lineage(start.source, start.entry, terms, result.start_used)


def prepare(problem: FitProblem, key: str, result: FitResult, start: StartReport | None, producer: Producer) -> Filing:
    """Build and encode record and artifact of ``result``. Local and pure.

    Raises
    ------
    InvalidInput
        ``result`` has another shape than ``problem``.
    """
    check_result(problem, result)
    lineage = lineage_of(problem, result, start)
    record, artifact, reason = capture_fit(problem, key, result, lineage)
    return Filing(
        key,
        producer_of(problem),
        encode(record, producer),
        Refused(key, reason) if artifact is None else encode(artifact, producer),
        result.converged,
        lineage,
        result.cost,
        None if artifact is None or artifact.seeds is None else artifact.seeds.column,
        saving_of(start, result.cost, problem.n_rows),
    )


def file_fit(entries: EntryStore, filing: Filing, session: Session) -> KeepOutcome:
    """File record and artifact, inside the transaction that is open.

    The same answer of the same build is not written again: the first fit's lineage and cost stay,
    repeats cannot drift.
    """
    known = _same_answer(entries, filing)
    if known is None:
        record = entries.put_encoded(filing.record)
    else:
        record = entries.unchanged(known)
        lineage = filing.lineage
        if lineage is not None and lineage.source == StartSource.EXACT and lineage.consumed is not False:
            session.count(filing.cost, filing.saved)
    if isinstance(filing.artifact, Refused):
        artifact = PutOutcome(reason=filing.artifact.reason)
    else:
        there = None if known is None else _artifact_of_fit(entries, filing)
        artifact = entries.put_encoded(filing.artifact) if there is None else entries.unchanged(there)
    outcome = KeepOutcome(record, artifact, filing.saved)
    if filing.converged:
        _say_refusal(entries, outcome, session)
    return outcome


def _say_refusal(entries: EntryStore, outcome: KeepOutcome, session: Session) -> None:
    for what, put in (("record", outcome.record), ("artifact", outcome.artifact)):
        if put.entry_id is None:  # a gate refused it; whatever passes one has an id
            session.refuse(str(entries.container.path), what, put.reason)
            return


def _same_answer(entries: EntryStore, filing: Filing) -> str | None:
    """Return the entry id of the final that holds this very answer of this build, if one does."""
    if isinstance(filing.record, Refused) or not filing.converged:
        return None
    stored = entries.find_record(filing.key, filing.producer)
    if stored is None or stored.record.kind is not RecordKind.FINAL:
        return None
    if not filing.producer.is_same_build(stored.record.producer):
        return None
    old, new = stored.record, decode(filing.record)
    assert isinstance(new, BlockRecord)
    same = (
        np.array_equal(old.rho, new.rho)
        and len(old.block_beta) == len(new.block_beta)
        and all(np.array_equal(a, b) for a, b in zip(old.block_beta, new.block_beta, strict=True))
        and old.active_sets == new.active_sets
    )
    return stored.entry_id if same else None


def _artifact_of_fit(entries: EntryStore, filing: Filing) -> str | None:
    found = entries.find_artifact_of_fit(filing.key)
    if found is None or found.artifact.producer != filing.producer:
        return None
    # Seeds that the file does not have yet are worth another artifact of the same answer.
    column, known = filing.seeds_column, found.artifact.seeds
    return found.entry_id if column is None or (known is not None and known.column == column) else None
