"""Normal responses with one variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gamwarm.checks import FloatArray
from gamwarm.families.family import HALF_LOG_2PI, Etas, Family, Table, moments

__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian(Family):
    """y ~ N(mean, phi): identity link, one variance, profiled out (restricted likelihood)."""

    kind: ClassVar[str] = "gamwarm.engine.Gaussian"

    def log_likelihood(self, y: FloatArray, w: FloatArray, etas: Etas, scale: float = 1.0) -> FloatArray:
        rows: FloatArray = -w * (HALF_LOG_2PI + 0.5 * np.log(scale) + 0.5 * (y - etas[0]) ** 2 / scale)
        return rows

    def expected(self, y: FloatArray, w: FloatArray, etas: Etas) -> Table:
        """Return the weights: information relative to the variance."""
        return {(0, 0): np.array(w)}

    def null(self, y: FloatArray, w: FloatArray, offset: FloatArray) -> tuple[float, ...]:
        return moments(self.response, y - offset, w, "a variance")[:1]

    def mean(self, etas: Etas) -> FloatArray:
        return etas[0]
