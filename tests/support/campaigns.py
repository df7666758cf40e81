"""A cheap campaign: fits of `tests.support.stores` whose answers are made up, so that only the job
is at work.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm import FitInProgress, FitProblem, FitResult
from gamwarm.folds import Fold, of_engine
from tests.support.stores import carrier_fit, result_of

__all__ = ["GROUPS", "Solver"]

GROUPS = np.repeat([f"site {k}" for k in range(7)], [3, 9, 5, 7, 5, 11, 2])
"""The group of each of 42 rows."""


class Solver:
    """Fits folds of `GROUPS` by making answers up; remembers what it fitted and from where."""

    def __init__(self, *, fails_at: str | None = None) -> None:
        self.fails_at = fails_at
        self.solved: list[tuple[str | None, str, str | None]] = []
        self.fit = of_engine(self.describe, self.solve)

    def describe(self, fold: Fold) -> FitProblem:
        """Every group is a level of the factor: a fold loses one column."""
        left_out = -1 if fold.group is None else int(fold.group.removeprefix("site "))
        return carrier_fit([level for level in range(7) if level != left_out], n=fold.n_rows, seed=100 + left_out)

    def solve(self, fold: Fold, fit: FitInProgress) -> FitResult:
        if fold.group is not None and fold.group == self.fails_at:
            raise ArithmeticError(f"no maximum without {fold.group}")
        self.solved.append((fold.group, str(fit.start.source), fit.start.parent))
        assert fit.problem is not None
        return result_of(fit.problem, 2.0 + fold.n_rows, start_used=True)

    def __call__(self, fold: Fold | None, /, **how: Any) -> Any:
        return self.fit(fold, **how)
