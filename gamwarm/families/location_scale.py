"""Normal responses whose standard deviation has a predictor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gamwarm.checks import FloatArray
from gamwarm.families.family import HALF_LOG_2PI, Etas, Family, Table, is_exact, moments

__all__ = ["GaussianLocationScale"]


@dataclass(frozen=True)
class GaussianLocationScale(Family):
    """y ~ N(mean, exp(scale)^2): identity link for the mean, log standard deviation."""

    predictors: ClassVar[tuple[str, ...]] = ("mean", "scale")
    response_units: ClassVar[tuple[str, ...]] = ("mean",)
    kind: ClassVar[str] = "gamwarm.engine.GaussianLocationScale"
    log_concave: ClassVar[bool] = False

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        residual = y - etas[0]
        return etas[1] + 0.5 * residual * residual * np.exp(-2.0 * etas[1])

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        return HALF_LOG_2PI * w

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        residual = y - etas[0]
        t = w * np.exp(-2.0 * etas[1])
        u = residual * t
        v = residual * u
        tables: dict[int, Table] = {}
        for order in orders:
            if order == 1:
                tables[1] = {(0,): -u, (1,): w - v}
            elif order == 2:
                tables[2] = {(0, 0): t, (0, 1): 2.0 * u, (1, 1): 2.0 * v}
            elif order == 3:
                tables[3] = {(0, 0, 1): -2.0 * t, (0, 1, 1): -4.0 * u, (1, 1, 1): -4.0 * v}
            elif order == 4:
                tables[4] = {(0, 0, 1, 1): 4.0 * t, (0, 1, 1, 1): 8.0 * u, (1, 1, 1, 1): 8.0 * v}
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        return {(0, 0): w * np.exp(-2.0 * etas[1]), (1, 1): 2.0 * w}

    def degeneracy(self, y: FloatArray, w: FloatArray, etas: Etas) -> str:
        exact = is_exact(w, y, etas[0])
        return "the model fits the response exactly; its scale cannot be estimated" if exact else ""

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        centre, variance = moments(self.response, y - offset, w, "a scale")
        return centre, 0.5 * float(np.log(variance))

    def mean(self, etas: Etas) -> FloatArray:
        return etas[0]
