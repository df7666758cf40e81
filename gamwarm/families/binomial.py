"""Successes in a number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, gammaln

from gamwarm.checks import FloatArray
from gamwarm.families.family import Etas, Family, Table, refuse

__all__ = ["Binomial"]


@dataclass(frozen=True)
class Binomial(Family):
    """y is 0/1, or a proportion of ``weights`` trials; P(success) = expit(mean)."""

    kind: ClassVar[str] = "gamwarm.engine.Binomial"

    def check(self, y: FloatArray) -> None:
        refuse(self.response, y, (y < 0) | (y > 1), "give 0/1, or proportions and their trials as weights")

    def loss(self, y: FloatArray, etas: Etas) -> FloatArray:
        rows: FloatArray = np.logaddexp(0.0, etas[0]) - y * etas[0]
        return rows

    def constants(self, y: FloatArray, w: FloatArray) -> FloatArray:
        rows: FloatArray = gammaln(w * y + 1.0) + gammaln(w * (1.0 - y) + 1.0) - gammaln(w + 1.0)
        return rows

    def derivatives(self, y: FloatArray, w: FloatArray, etas: Etas, orders: Sequence[int]) -> dict[int, Table]:
        p = expit(etas[0])
        tables: dict[int, Table] = {}
        d2 = w * p * (1.0 - p)
        for order in orders:
            if order == 1:
                tables[1] = {(0,): w * (p - y)}
            elif order == 2:
                tables[2] = {(0, 0): d2}
            elif order == 3:
                tables[3] = {(0, 0, 0): d2 * (1.0 - 2.0 * p)}
            elif order == 4:
                tables[4] = {(0, 0, 0, 0): d2 * (1.0 - 6.0 * p * (1.0 - p))}
        return tables

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        p = expit(etas[0])
        return {(0, 0): w * p * (1.0 - p)}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        total = float(w.sum())
        rate = float((w @ y + 0.5) / (total + 1.0))
        return (float(np.log(rate / (1.0 - rate)) - w @ offset / total),)

    def mean(self, etas: Etas) -> FloatArray:
        p: FloatArray = expit(etas[0])
        return p
