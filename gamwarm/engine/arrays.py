"""Array aliases and the exact counters of one fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "Counters", "FloatArray", "IntArray"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
Columns = Any


@dataclass
class Counters:
    """What a fit has taken so far; `design.Products.gram` alone raises `hessian_formations`."""

    evaluations: int = 0
    outer_iterations: int = 0
    inner_iterations: int = 0
    hessian_formations: int = 0
