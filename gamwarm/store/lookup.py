"""Requests for a start, and answers from the file: rank 0 answers, both travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gamwarm.entries import (
    EntryStore,
    ParentSnapshot,
    StoredArtifact,
    StoredRecord,
    Wanted,
)
from gamwarm.errors import DescriptorMismatch, ParentUnusable, UnkeyableFit
from gamwarm.identity import FitProblem, check_descriptor_key, relation_keys
from gamwarm.parallel import SERIAL, Communicator
from gamwarm.problem import Role
from gamwarm.records import BlockRecord, Producer, RecordKind, StartSource, check_entry_id, group_label
from gamwarm.store.keep import KeepOutcome
from gamwarm.transfer import (
    StartReport,
    TransferPolicy,
    build_warm_start,
    producer_of,
    restore,
    term_contexts,
)

__all__ = [
    "Answer",
    "Parent",
    "Request",
    "answer",
    "best_artifact",
    "describe",
    "exact_answer",
    "start_from",
]


@dataclass(frozen=True)
class Request:
    """What the file is asked for, in plain values (it travels to rank 0).

    ``not_kept``: why the parent that the caller names has no entry.
    """

    key: str
    n_rows: int
    block_names: tuple[str, ...]
    block_dims: tuple[int, ...]
    n_outer: int
    producer: Producer
    strict_key: str
    structural_key: str | None
    related: Mapping[str, int] = field(default_factory=dict)
    parent: str | None = None
    leave_out: str | None = None
    not_kept: str = ""


@dataclass(frozen=True)
class Answer:
    """A record, an artifact, or neither; and why not something better.

    ``lost_parent``: what became of the parent that the caller named; empty if it was found, or not
    needed.
    """

    record: StoredRecord | None = None
    artifact: StoredArtifact | None = None
    reason: str = ""
    lost_parent: str = ""


Parent = str | KeepOutcome | None


def describe(problem: FitProblem, key: str, parent: Parent, leave_out: Any = None) -> Request:
    """Return the request of one fit."""
    not_kept = ""
    if isinstance(parent, KeepOutcome):
        kept = parent.artifact.entry_id or parent.record.entry_id
        not_kept = "" if kept else f"the named parent was not stored ({parent.artifact.reason})"
        parent = kept
    return Request(
        key=key,
        n_rows=problem.n_rows,
        block_names=problem.block_names,
        block_dims=problem.block_dims,
        n_outer=problem.n_outer,
        producer=producer_of(problem),
        strict_key=problem.descriptor.key,
        structural_key=problem.structural_key,
        related=_relations(problem),
        parent=None if parent is None else check_entry_id(parent),
        leave_out=None if leave_out is None else group_label(leave_out),
        not_kept=not_kept,
    )


def _relations(problem: FitProblem) -> dict[str, int]:
    """Return what other models may have in common with a fit, with counts of coordinates."""
    terms = [
        (str(spec.role or Role.GENERIC), spec.name, None if spec.basis is None else spec.basis.kind, len(slots))
        for spec, slots in zip(problem.specs, problem.layout.per_block_slots(), strict=True)
    ]
    return relation_keys(problem.descriptor.family_kind, terms, problem.nuisance)


def answer(entries: EntryStore, request: Request, parents: ParentSnapshot | None = None) -> Answer:
    """Look one fit up: exact record first, else the parent it should start from.

    ``parents``: artifacts that may be chosen (of a frozen campaign); None: all. One that the caller
    names is always taken.
    """
    return entries.read_together(lambda: _answer(entries, request, parents))


def _answer(entries: EntryStore, request: Request, parents: ParentSnapshot | None) -> Answer:
    exact = exact_answer(entries, request)
    if exact.record is not None:
        return exact
    why = exact.reason
    if request.parent is not None or request.not_kept:
        return _named_parent(entries, request, why)
    wanted = Wanted(request.strict_key, request.structural_key, sum(request.block_dims), request.related)
    artifact = entries.find_parent(wanted, parents)
    if artifact is None:
        return Answer(reason=f"{why}, and no usable fit of these terms")
    return Answer(artifact=artifact, reason=why)


def exact_answer(entries: EntryStore, request: Request) -> Answer:
    """Look up the fit's own record alone; without one, the reason says why."""
    found = entries.find_record(request.key, request.producer)
    if found is None:
        return Answer(reason="no exact record")
    unfit = found.record.mismatch_reason(
        request.key, request.n_rows, request.block_names, request.block_dims, request.n_outer
    )
    if unfit is not None:
        return Answer(reason=f"the exact record does not fit ({unfit})")
    return Answer(record=found, reason=_rank_note(found.record, request.producer))


def _rank_note(found: BlockRecord, producer: Producer) -> str:
    if found.kind is RecordKind.CHECKPOINT:
        return "a checkpoint of this fit"
    if not producer.is_same_build(found.producer):
        other = "" if found.producer is None else found.producer.build
        return f"a final of another build ({other or 'unknown'}), taken as a checkpoint"
    return "this fit's own answer"


def _named_parent(entries: EntryStore, request: Request, why: str) -> Answer:
    lost = request.not_kept
    if request.parent is not None:
        artifact = entries.find_artifact(request.parent)
        if artifact is not None:
            return Answer(artifact=artifact, reason=f"{why}; parent named by the caller")
        key = entries.find_key_of_record(request.parent)
        artifact = None if key is None else entries.find_artifact_of_fit(key)
        if artifact is not None:
            return Answer(artifact=artifact, reason=f"{why}; parent named by the caller, by its record")
        lost = f"the named parent {request.parent} is not in the file"
        if key is not None:
            lost = f"the named parent {request.parent} is a record whose fit has no artifact in the file"
    return Answer(reason=f"{why}, and {lost}", lost_parent=lost)


def best_artifact(entries: EntryStore, descriptor_key: str) -> StoredArtifact | None:
    """Return the best parent under a strict key, else that structural key; usable ones first."""
    check_descriptor_key(descriptor_key)
    return entries.find_parent(Wanted(descriptor_key, descriptor_key), usable=False)


def start_from(
    problem: FitProblem, key: str, found: Answer, leave_out: Any = None, comm: Communicator = SERIAL
) -> StartReport:
    """Turn an answer into a start; ranks of ``comm`` share projections bit for bit."""
    if found.record is not None:
        return StartReport(
            StartSource.EXACT,
            restore(found.record.record),
            key,
            reason=found.reason,
            entry=found.record.entry_id,
            entry_cost=found.record.record.cost,
            entry_rows=problem.n_rows,
            is_checkpoint=found.record.record.kind is RecordKind.CHECKPOINT,
        )
    if found.artifact is None:
        return StartReport(StartSource.COLD, None, key, reason=found.reason)
    parent = found.artifact
    try:
        start = build_warm_start(
            problem.descriptor,
            term_contexts(problem),
            np.concatenate([problem.layout.initial_rho, np.zeros(len(problem.nuisance))]),
            parent.artifact,
            TransferPolicy(rho_bound=problem.options.rho_bound),
            problem.gauge,
            leave_out,
            comm=comm,
            nuisance=problem.nuisance,
        )
    except (ParentUnusable, DescriptorMismatch) as error:
        return StartReport(StartSource.COLD, None, key, reason=f"{found.reason}, and {error}")
    if all(provenance == "cold" for provenance in start.provenance):
        reasons = "; ".join(dict.fromkeys(t.beta_reason for t in start.terms if t.beta_reason))
        return StartReport(
            StartSource.COLD, None, key, reason=f"{found.reason}; nothing of {parent.entry_id} transferred ({reasons})"
        )
    if not np.isfinite(np.concatenate([start.rho, *start.block_beta])).all():
        return StartReport(
            StartSource.COLD, None, key, reason=f"{found.reason}; the start built from {parent.entry_id} is not finite"
        )
    return StartReport(
        StartSource.TRANSFER,
        start,
        key,
        parent=parent.entry_id,
        reason=f"{found.reason}; the parent has other terms" if start.is_partial else found.reason,
        terms=start.terms,
        entry=parent.entry_id,
        entry_cost=parent.artifact.cost,
        entry_rows=parent.artifact.summary.n_rows,
        names=problem.block_names,
        seeds=start.seeds,
    )


def cold_unkeyable(error: UnkeyableFit) -> StartReport:
    """Return the report of a fit that cannot be named."""
    return StartReport(StartSource.COLD, None, None, reason=str(error))
