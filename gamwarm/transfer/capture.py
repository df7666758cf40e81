"""From an engine's result to stored entries: an exact record, and an artifact in raw
coordinates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from gamwarm.errors import InvalidInput
from gamwarm.identity import FitProblem, check_exact_key
from gamwarm.problem import Role
from gamwarm.records import (
    BlockRecord,
    Curvature,
    FitArtifact,
    FitResult,
    GlobalFitSummary,
    GroupSeeds,
    Lineage,
    Producer,
    RecordKind,
    TermArtifact,
    are_finite,
    artifact_refusal,
    settled_flags,
)

__all__ = ["capture_artifact", "capture_fit", "capture_record", "check_result", "producer_of"]


def producer_of(problem: FitProblem) -> Producer:
    """Return the build that fits ``problem``."""
    return _producer(problem.engine, problem.engine_version)


_producer = lru_cache(maxsize=16)(Producer)


def check_result(problem: FitProblem, result: FitResult) -> None:
    """Refuse a result that does not belong to ``problem``: an engine's bug, which a gate would
    hide.

    Raises
    ------
    InvalidInput
        Naming the part, its shape and the shape that the problem has.
    """
    q, blocks = problem.n_outer, problem.specs

    def refuse(what: str) -> InvalidInput:
        return InvalidInput(f"result {what}; return it in the shape of its problem")

    if len(result.rho) != q:
        raise refuse(f"rho has {len(result.rho)} numbers; the fit has {q} outer coordinates")
    if len(result.block_beta) != len(blocks):
        raise refuse(f"block_beta has {len(result.block_beta)} vectors; the fit has {len(blocks)} blocks")
    for spec, beta in zip(blocks, result.block_beta, strict=True):
        if len(beta) != spec.width:
            raise refuse(f"block_beta of {spec.name!r} has {len(beta)} numbers; the block's width is {spec.width}")
    if result.active_sets is not None and len(result.active_sets) != len(blocks):
        raise refuse(f"active_sets has {len(result.active_sets)} entries; the fit has {len(blocks)} blocks")
    if result.curvature is not None:
        for name, value in vars(result.curvature).items():
            if value is not None and len(value) != q:
                raise refuse(f"curvature {name} has length {len(value)}; the fit has {q} outer coordinates")
    if result.seeds is not None:
        width = sum(spec.width for spec in blocks)
        for name, array, columns in (("rho", result.seeds.rho, q), ("beta", result.seeds.beta, width)):
            if array.shape[1] != columns:
                raise refuse(f"seeds {name} has shape {array.shape}; expected {columns} columns")


def _settled(problem: FitProblem, result: FitResult) -> Curvature | None:
    """Return the result's curvature with its settled flags: computed here, of a converged result,
    and never claimed.
    """
    known = result.curvature
    if known is None:
        return None
    flags = None
    if result.converged and known.gradient is not None and len(known.gradient) == len(result.rho):
        tol, smoothing = problem.options.outer_tol, problem.layout.n_outer
        parts = [(slice(smoothing), problem.options.rho_bound)]
        if problem.nuisance:
            parts.append((slice(smoothing, None), np.inf))
        flags = np.concatenate([settled_flags(result.rho[s], known.gradient[s], tol, bound) for s, bound in parts])
    return known.with_settled(flags)


def capture_fit(
    problem: FitProblem, key: str, result: FitResult, lineage: Lineage | None = None
) -> tuple[BlockRecord, FitArtifact | None, str]:
    """Return `capture_record`, and `capture_artifact` before its gate, which a put asks anyway."""
    settled = _settled(problem, result)
    record = _record(problem, key, result, lineage, settled)
    reason = _capture_refusal(problem, result)
    return record, None if reason else _artifact(problem, key, result, lineage, settled), reason


def capture_record(problem: FitProblem, key: str, result: FitResult, lineage: Lineage | None = None) -> BlockRecord:
    """Return the exact record of ``result``: final if it converged, else a checkpoint. The gates
    check it later.
    """
    return _record(problem, key, result, lineage, _settled(problem, result))


def _record(
    problem: FitProblem, key: str, result: FitResult, lineage: Lineage | None, curvature: Curvature | None
) -> BlockRecord:
    return BlockRecord.of_checked(  # the problem and the result have checked all of it
        key=check_exact_key(key),
        n_rows=problem.n_rows,
        block_names=problem.block_names,
        block_dims=problem.block_dims,
        rho=result.rho,
        block_beta=result.block_beta,
        active_sets=(None,) * len(problem.specs) if result.active_sets is None else result.active_sets,
        inner=result.inner,
        objective=result.objective,
        kind=RecordKind.FINAL if result.converged else RecordKind.CHECKPOINT,
        converged=result.converged,
        iteration=result.iteration,
        curvature=curvature,
        rho_bound=problem.options.rho_bound,
        producer=producer_of(problem),
        created=None,
        lineage=lineage,
        cost=result.cost,
        attributes=dict(result.attributes),
        components=problem.components,
        nuisance=problem.nuisance,
    )


def capture_artifact(
    problem: FitProblem, key: str, result: FitResult, lineage: Lineage | None = None
) -> tuple[FitArtifact | None, str]:
    """Return the artifact of a converged ``result`` and "", or None and why it was not captured.

    Shapes are those of the problem (`check_result`).
    """
    reason = _capture_refusal(problem, result)
    if reason:
        return None, reason
    artifact = _artifact(problem, key, result, lineage, _settled(problem, result))
    refusal = artifact_refusal(artifact)
    return (artifact, "") if refusal is None else (None, refusal)


def _artifact(
    problem: FitProblem, key: str, result: FitResult, lineage: Lineage | None, curvature: Curvature | None
) -> FitArtifact:
    raw = list(result.block_beta) if problem.gauge is None else problem.gauge.lift_blocks(result.block_beta)
    terms = []
    for b, (spec, slots) in enumerate(zip(problem.specs, problem.layout.per_block_slots(), strict=True)):
        picked = np.array(slots, dtype=np.intp)
        terms.append(
            TermArtifact.of_checked(
                identity=problem.strict_identities[b],
                role=spec.role or Role.GENERIC,
                basis_meta=spec.basis,
                raw_beta=raw[b],
                rho_for_term=result.rho[picked],
                structural_identity=problem.structural_identities[b],
                reduced_width=spec.width,
                plateau=None if curvature is None or curvature.plateau is None else curvature.plateau[picked],
                settled=None if curvature is None or curvature.settled is None else curvature.settled[picked],
                rho_slots=slots,
                name=spec.name,
            )
        )
    return FitArtifact(
        descriptor=problem.descriptor,
        terms=terms,
        summary=GlobalFitSummary(float(result.objective or 0.0), result.converged, problem.n_rows),
        curvature=curvature,
        rho_bound=problem.options.rho_bound,
        producer=producer_of(problem),
        lineage=lineage,
        cost=result.cost,
        attributes=result.attributes,
        fit_key=key,
        nuisance=dict(zip(problem.nuisance, result.rho[problem.layout.n_outer :].tolist(), strict=True)),
        seeds=_raw_seeds(problem, result),
    )


def _raw_seeds(problem: FitProblem, result: FitResult) -> GroupSeeds | None:
    """Return the result's seeds in raw coefficients; None without any, or where they are not
    finite.

    Seeds are worth a start and no more: the artifact is kept without them.
    """
    seeds = result.seeds
    if seeds is None or seeds.invalid_reason(len(result.rho), sum(spec.width for spec in problem.specs)) is not None:
        return None
    if problem.gauge is None:
        return seeds
    # A change has no shift.
    return replace(seeds, beta=seeds.beta @ problem.gauge.lift.T)


def _capture_refusal(problem: FitProblem, result: FitResult) -> str:
    if not result.converged:
        return "only converged fits become artifacts"
    if result.objective is None or not np.isfinite(result.objective):
        return f"its objective is {result.objective}"
    if not are_finite(result.block_beta):
        bad = next(n for n, beta in zip(problem.block_names, result.block_beta, strict=True) if not are_finite([beta]))
        return f"block {bad!r} has a non-finite coefficient"
    reason = None if result.curvature is None else result.curvature.invalid_reason(problem.n_outer)
    return reason or ""
