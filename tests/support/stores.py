"""Records, artifacts, fits and results for tests of the store: plain, deterministic, cheap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gamwarm import (
    BasisMeta,
    BlockRecord,
    BlockwiseFitOptions,
    Cost,
    Curvature,
    DensePenalty,
    FitArtifact,
    FitDescriptor,
    FitProblem,
    FitResult,
    Gauge,
    GlobalFitSummary,
    InnerMode,
    ParameterBlockSpec,
    TermArtifact,
    term_identity,
)
from tests.support.problems import NamedFamily, wave

__all__ = ["LEVELS", "artifact_of", "carrier_fit", "exact_key_of", "leftovers", "plain_fit", "record_of", "result_of"]

LEVELS = 40
"""Raw width of the factor block of `carrier_fit`."""


def exact_key_of(number: int) -> str:
    """Return a well-formed exact key."""
    return f"cf-{number:064x}"


def record_of(key: int = 1, value: float = 1.0, **changes: Any) -> BlockRecord:
    """Return a small record that passes all gates; ``value`` is its objective and its first
    coefficient.
    """
    fields: dict[str, Any] = {
        "key": exact_key_of(key),
        "n_rows": 50,
        "block_names": ["mean", "log sigma"],
        "block_dims": [3, 2],
        "rho": [0.5, -1.0],
        "block_beta": [[value, 2.0, 3.0], [4.0, 5.0]],
        "objective": value,
        "rho_bound": 10.0,
    }
    return BlockRecord(**fields | changes)


def artifact_of(
    name: str = "s(x)",
    value: float = 1.0,
    *,
    width: int = 3,
    raw_width: int = 4,
    n_rows: int = 50,
    converged: bool = True,
    **changes: Any,
) -> FitArtifact:
    """Return a one-term artifact that passes all gates; its strict key depends on ``name`` and
    ``width``.
    """
    identity = term_identity("mean", name, [None], [1], width)
    term = TermArtifact(
        identity=identity,
        role="mean",
        basis_meta=BasisMeta("bspline"),
        raw_beta=np.full(raw_width, value),
        rho_for_term=[0.25],
        structural_identity=term_identity("mean", name, [None], [], raw_width),
        reduced_width=width,
        rho_slots=[0],
        name=name,
    )
    fields: dict[str, Any] = {
        "descriptor": FitDescriptor("tests.family", (identity,)),
        "terms": [term],
        "summary": GlobalFitSummary(value, converged, n_rows),
    }
    return FitArtifact(**fields | changes)


def plain_fit(
    seed: int = 1,
    *,
    n: int = 30,
    kind: str = "tests.plain",
    fingerprint: str | None = "y:1",
    design: Any = None,
    engine: str = "tests",
    engine_version: str = "1",
    **options: Any,
) -> FitProblem:
    """Return a fit of one block of four columns and one penalty, without a gauge."""
    rows = wave(n, 4, seed) if design is None else design
    spec = ParameterBlockSpec("mean", rows, penalties=[DensePenalty(np.eye(4))])
    return FitProblem(
        NamedFamily(kind, fingerprint),
        [spec],
        BlockwiseFitOptions(**{"rho_bound": 10.0} | options),
        engine=engine,
        engine_version=engine_version,
    )


def carrier_fit(
    levels: Sequence[int] = range(37), *, n: int = 60, seed: int = 3, engine_version: str = "1", rho_bound: float = 10.0
) -> FitProblem:
    """Return a fit of a smooth and a factor whose block keeps ``levels`` of `LEVELS` raw columns.

    Another number of levels is another strict key and the same structural key.
    """
    lift = np.eye(LEVELS)[:, list(levels)]
    width = lift.shape[1]
    smooth = ParameterBlockSpec(
        "mean s(x)", wave(n, 4, seed), penalties=[DensePenalty(np.diag([0.0, 1, 2, 3]))], nullspace_dims=[1]
    )
    factor = ParameterBlockSpec(
        "mean carrier", wave(n, width, seed + 1), penalties=[DensePenalty(np.eye(width))], nullspace_dims=[0]
    )
    return FitProblem(
        NamedFamily("tests.carrier"),
        [smooth, factor],
        BlockwiseFitOptions(rho_bound=rho_bound),
        engine="tests",
        engine_version=engine_version,
        gauge=Gauge.from_blocks([np.eye(4), lift]),
    )


def result_of(problem: FitProblem, value: float = 1.0, **changes: Any) -> FitResult:
    """Return a converged result of ``problem``; ``value`` is its objective and scales its
    coefficients.
    """
    q = problem.layout.n_outer
    fields: dict[str, Any] = {
        "rho": np.linspace(0.5, 1.5, q),
        "block_beta": [value * np.arange(1.0, width + 1) for width in problem.block_dims],
        "objective": value,
        "converged": True,
        "inner": InnerMode(-value, 0.5, 4, True, np.zeros(len(problem.specs)), np.zeros(len(problem.specs))),
        "curvature": Curvature(np.zeros(q), np.eye(q), np.ones(q), np.zeros(q, dtype=bool), np.ones(q, dtype=bool)),
        "cost": Cost(7, 5, 20, 25, seconds=0.1),
    }
    return FitResult(**fields | changes)


def leftovers(path: Path) -> set[str]:
    """Return the names in the store's folder, but for the file itself and its lock."""
    return {p.name for p in path.parent.iterdir()} - {path.name, f"{path.name}.lock"}
