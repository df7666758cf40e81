"""Counts as a Poisson process gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import gammaln

from gamwarm.checks import FloatArray
from gamwarm.families.family import Etas, Family, Table, exponential, log_mean, refuse

__all__ = ["Poisson"]


@dataclass(frozen=True)
class Poisson(Family):
    """y ~ Poisson(exp(mean))."""

    kind: ClassVar[str] = "gamwarm.engine.Poisson"

    def check(self, y: FloatArray) -> None:
        refuse(self.response, y, y < 0, "counts cannot be negative")

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        rows: FloatArray = np.exp(etas[0]) - y * etas[0]
        return rows

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        rows: FloatArray = w * gammaln(y + 1.0)
        return rows

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        mu = w * np.exp(etas[0])
        return {r: {(0,) * r: mu - w * y if r == 1 else mu} for r in orders}

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        return {(0, 0): w * np.exp(etas[0])}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        return (log_mean(self.response, y, w, offset),)

    def mean(self, etas: Etas) -> FloatArray:
        return exponential(etas[0])
