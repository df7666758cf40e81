"""Gates on writing: why a record or artifact is not stored."""

from __future__ import annotations

from dataclasses import replace

from gamwarm.records.artifact import FitArtifact
from gamwarm.records.block import BlockRecord, RecordKind

__all__ = ["SATURATION_MARGIN", "artifact_refusal", "gate_record", "rejection_reason"]

# A smoothing parameter this near its bound was stopped by it.
SATURATION_MARGIN = 1.0


def rejection_reason(record: BlockRecord) -> str | None:
    """Return why ``record`` is not written, naming coordinate, block or count, else None."""
    if record.kind is RecordKind.FINAL and not record.converged:
        return "a final record must be converged; store it as a checkpoint"
    reason = record.invalid_reason()
    if reason is not None:
        return reason
    curvature = record.curvature
    known = {} if curvature is None else {"plateau": curvature.plateau, "settled": curvature.settled}
    known = {name: flags for name, flags in known.items() if flags is not None}
    limit = record.rho_bound - SATURATION_MARGIN
    for i, value in enumerate(record.rho[: len(record.rho) - len(record.nuisance)].tolist()):
        if abs(value) >= limit and not any(flags[i] for flags in known.values()):
            said = " and ".join(f"its {name} flag is False" for name in known)
            evidence = said or "it has no plateau or settled flag"
            return (
                f"rho[{i}] = {value:.6g} is saturated (|rho| >= {limit:g}) and {evidence}: "
                "a diverged search is not stored"
            )
    return None


def gate_record(record: BlockRecord) -> tuple[BlockRecord, str | None]:
    """Return the record as it may be written, and why it may not (None if it may).

    An inner summary with a non-finite number is dropped and the record kept.
    """
    if record.inner is not None and not record.inner.is_finite:
        record = replace(record, inner=None)
    return record, rejection_reason(record)


def artifact_refusal(artifact: FitArtifact) -> str | None:
    """Return why ``artifact`` is not written, else None."""
    reason = artifact.invalid_reason()
    if reason is not None:
        return reason
    if sorted(t.identity for t in artifact.terms) != sorted(artifact.descriptor.term_identities):
        return "its terms are not the terms of its descriptor"
    return None
