"""Restoring an exact record: the fit begins at its own answer."""

from __future__ import annotations

from gamwarm.records import BlockRecord, ConstrainedWarmStart

__all__ = ["restore"]


def restore(record: BlockRecord) -> ConstrainedWarmStart:
    """Return the start that ``record`` holds. Its rho replaces the default; nothing in it replaces
    an evaluation.
    """
    return ConstrainedWarmStart(
        rho=record.rho,
        block_beta=record.block_beta,
        active_sets=record.active_sets,
        cached_inner=record.inner,
        curvature=record.curvature,
        objective=record.objective,
    )
