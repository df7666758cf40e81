"""Fits that tests describe: the wave matrix, the small problem of the vectors, families and designs
in odd forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.identity import FitProblem
from gamwarm.problem import (
    BlockwiseFitOptions,
    BlockwisePenalty,
    DensePenalty,
    FixedPenalty,
    Gauge,
    KroneckerPenalty,
    LabeledPenalty,
    ParameterBlockSpec,
    Penalty,
)

__all__ = ["PENALTY_FIELDS", "NamedFamily", "Rows", "block", "fit_problem", "small_problem", "smooth", "wave"]

FloatArray = npt.NDArray[np.float64]


_LOCAL = np.eye(2)
PENALTY_FIELDS: dict[type, tuple[dict[str, Any], dict[str, Any]]] = {
    DensePenalty: ({"matrix": np.eye(4)}, {"matrix": 2 * np.eye(4)}),
    KroneckerPenalty: ({"left": _LOCAL, "right": _LOCAL}, {"left": 2 * _LOCAL, "right": 2 * _LOCAL}),
    BlockwisePenalty: (
        {"local": _LOCAL, "start": 1, "stop": 3, "total_dim": 4},
        {"local": 2 * _LOCAL, "start": (0, "stop", 2), "stop": (2, "start", 0), "total_dim": None},
    ),
    LabeledPenalty: (
        {"label": "a", "inner": DensePenalty(np.eye(4))},
        {"label": "b", "inner": DensePenalty(2 * np.eye(4))},
    ),
    FixedPenalty: (
        {"log_lambda": 1.0, "inner": DensePenalty(np.eye(4))},
        {"log_lambda": 2.0, "inner": DensePenalty(2 * np.eye(4))},
    ),
}
"""Of every penalty kind the fields of one of width 4, and for each another value, or that, a twin
and its value.
"""


def wave(n: int, p: int, seed: int) -> FloatArray:
    """Return the matrix of the vectors: ((i*p + j + seed) * 2654435761 mod 2**32) / 2**31 - 1."""
    counter = np.arange(n * p, dtype=np.uint64) + np.uint64(seed)
    mixed = (counter * np.uint64(2654435761)) % np.uint64(1 << 32)
    values: FloatArray = mixed.astype(np.float64) / 2.0**31 - 1.0
    return values.reshape(n, p)


class NamedFamily:
    """A family of a given kind whose fingerprint is the given string (None opts out)."""

    def __init__(self, kind: str = "gaussian", fingerprint: str | None = "y:1") -> None:
        self.family_kind = kind
        self.fingerprint = fingerprint

    def persistent_warm_start_fingerprint(
        self, specs: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions
    ) -> str | None:
        return self.fingerprint


class Rows:
    """A lazy design over an array; remembers which rows were asked for."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.asked: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.values.shape
        return int(n), int(p)

    def row_chunk(self, start: int, stop: int, /) -> Any:
        self.asked.append((start, stop))
        return self.values[start:stop]


def small_problem(
    seed: int = 1, *, labels: bool = False, fixed: bool = False, **options: Any
) -> tuple[NamedFamily, tuple[ParameterBlockSpec, ...], BlockwiseFitOptions]:
    """Return (family, specs, options) of the vectors' small problem."""
    dense: Penalty = DensePenalty(np.eye(4))
    kron: Penalty = KroneckerPenalty(np.eye(2), np.diag([1.0, 2.0]))
    mean = ParameterBlockSpec(
        "mean",
        wave(50, 4, seed),
        penalties=[LabeledPenalty("tie", dense) if labels else dense, FixedPenalty(-0.5, kron) if fixed else kron],
        nullspace_dims=[1, 0],
        initial_log_lambdas=[0.0, -0.0],
    )
    scale = ParameterBlockSpec(
        "<scale>",
        wave(50, 3, seed + 7),
        offset=wave(50, 1, seed + 9).ravel(),
        penalties=[BlockwisePenalty([[2.0, -1.0], [-1.0, 2.0]], 1, 3, 3)],
        nullspace_dims=[1],
        initial_log_lambdas=[1.5],
    )
    return NamedFamily("gaussian", f"y:{seed}"), (mean, scale), BlockwiseFitOptions(**{"rho_bound": 10.0} | options)


def smooth(width: int, label: str | None = None, fixed: float | None = None) -> Penalty:
    """Return an identity penalty, labelled or fixed on request (fixed outside)."""
    penalty: Penalty = DensePenalty(np.eye(width))
    if label is not None:
        penalty = LabeledPenalty(label, penalty)
    return penalty if fixed is None else FixedPenalty(fixed, penalty)


def block(name: str, width: int, n: int = 20, penalties: Sequence[Penalty] | None = None, **more: Any) -> Any:
    """Return a block of ``width`` columns with one identity penalty unless told otherwise."""
    chosen = [smooth(width)] if penalties is None else penalties
    return ParameterBlockSpec(name, wave(n, width, len(name)), penalties=chosen, **more)


def fit_problem(
    specs: Sequence[ParameterBlockSpec],
    gauge: Gauge | None = None,
    *,
    family: Any = None,
    engine: str = "reference",
    **options: Any,
) -> FitProblem:
    """Return a fit of these blocks with the default family."""
    return FitProblem(family or NamedFamily(), specs, BlockwiseFitOptions(**options), engine=engine, gauge=gauge)
