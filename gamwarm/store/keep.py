"""What keeping a fit files: its record and, if it converged, its artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gamwarm.display import NotebookTable
from gamwarm.entries import EntryStore, PutOutcome
from gamwarm.errors import InvalidInput
from gamwarm.identity import FitProblem
from gamwarm.records import (
    BlockRecord,
    FitArtifact,
    FitResult,
    Lineage,
    Producer,
    RecordKind,
    StartSource,
)
from gamwarm.store.savings import Saving, Session, saving_of
from gamwarm.transfer import StartReport, capture_artifact, capture_record, check_result

__all__ = ["Filing", "KeepOutcome", "file_fit", "lineage_of", "prepare"]


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
        Whether the search ended early because `FitInProgress.should_stop` said so: fit it again, from its checkpoint.
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
    """What is to be filed, in plain values (it travels to rank 0)."""

    record: BlockRecord
    artifact: FitArtifact | None
    artifact_reason: str
    saved: Saving | None = None


def lineage_of(problem: FitProblem, result: FitResult, start: StartReport | None) -> Lineage | None:
    """Return what the fit started from; None if its start was not looked up."""
    if start is None:
        return None
    terms: tuple[tuple[str, str], ...] = ()
    if start.source == StartSource.TRANSFER:
        if len(start.terms) != len(problem.block_names):
            raise InvalidInput(
                f"start has {len(start.terms)} terms, the fit {len(problem.block_names)} blocks; "
                "pass the report that start_for gave for this fit"
            )
        terms = tuple((name, term.provenance) for name, term in zip(problem.block_names, start.terms, strict=True))
    return Lineage(start.source, start.entry, terms, result.start_used)


def prepare(problem: FitProblem, key: str, result: FitResult, start: StartReport | None) -> Filing:
    """Build record and artifact of ``result``. Local and pure.

    Raises
    ------
    InvalidInput
        ``result`` has another shape than ``problem``.
    """
    check_result(problem, result)
    lineage = lineage_of(problem, result, start)
    artifact, reason = capture_artifact(problem, key, result, lineage)
    saved = saving_of(start, result.cost, problem.n_rows)
    record = capture_record(problem, key, result, lineage)
    return Filing(record, artifact, reason, saved)


def file_fit(entries: EntryStore, filing: Filing, session: Session) -> KeepOutcome:
    """File record and artifact, inside the transaction that is open.

    The same answer of the same build is not written again: the first fit's lineage and cost stay, repeats cannot drift.
    """
    outcome = KeepOutcome(artifact=PutOutcome(reason=filing.artifact_reason), saved=filing.saved)
    known = _same_answer(entries, filing.record)
    if known is not None:
        outcome.record = entries.unchanged(known)
        lineage = filing.record.lineage
        if lineage is not None and lineage.source == StartSource.EXACT and lineage.consumed is not False:
            session.count(filing.record.cost, filing.saved)
    else:
        outcome.record = entries.put_record(filing.record)
    if filing.artifact is not None:
        kept = _artifact_of_fit(entries, filing.artifact) if known is not None else None
        if kept is not None:
            outcome.artifact = entries.unchanged(kept)
        else:
            outcome.artifact = entries.put_artifact(filing.artifact)
    if filing.record.converged:
        _say_refusal(entries, outcome, session)
    return outcome


def _say_refusal(entries: EntryStore, outcome: KeepOutcome, session: Session) -> None:
    for what, put in (("record", outcome.record), ("artifact", outcome.artifact)):
        if put.entry_id is None:  # a gate refused it; whatever passes one has an id
            session.refuse(str(entries.container.path), what, put.reason)
            return


def _same_answer(entries: EntryStore, record: BlockRecord) -> str | None:
    producer = record.producer or Producer()
    if record.kind is not RecordKind.FINAL:
        return None
    stored = entries.find_record(record.key, producer)
    if stored is None or stored.kind is not RecordKind.FINAL or not producer.is_same_build(stored.producer):
        return None
    old = stored.record
    same = (
        np.array_equal(old.rho, record.rho)
        and len(old.block_beta) == len(record.block_beta)
        and all(np.array_equal(a, b) for a, b in zip(old.block_beta, record.block_beta, strict=True))
        and old.active_sets == record.active_sets
    )
    return stored.entry_id if same else None


def _artifact_of_fit(entries: EntryStore, artifact: FitArtifact) -> str | None:
    headers = entries.artifact_summaries(artifact.descriptor.key)
    own = [h for h in headers if h.fit_key == artifact.fit_key and h.producer == artifact.producer]
    # Seeds that the file does not have yet are worth another artifact of the same answer.
    column = None if artifact.seeds is None else artifact.seeds.column
    whole = entries.first_usable(own, lambda a: column is None or (a.seeds is not None and a.seeds.column == column))
    return None if whole is None else whole.entry_id
