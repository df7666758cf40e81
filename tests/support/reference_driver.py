"""The reference engine as the neutrality check sees it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm import FitProblem
from gamwarm.engine import fit
from gamwarm.engine._types import Counters
from gamwarm.testing import Fitted
from tests.engine import cases

__all__ = ["ReferenceDriver"]


class ReferenceDriver:
    """One family on the shared data: all rows, then two groups left out, one at a time."""

    def __init__(self, family: str, n: int = 200) -> None:
        self.family, self.n = family, n
        self._cut: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"family": self.family, "n": self.n, "_cut": {}}

    @property
    def cases(self) -> list[str]:
        return ["", "g03", "g07"]

    def cut(self, left_out: str) -> Any:
        if left_out not in self._cut:
            data = cases.columns(self.n)
            bound = self._cut.setdefault(None, cases.model(self.family, data))
            self._cut[left_out] = bound.case(data["group"] != left_out if left_out else None)
        return self._cut[left_out]

    def problem(self, case: str) -> FitProblem:
        problem: FitProblem = self.cut(case).problem(cases.TIGHT)
        return problem

    def fit(self, case: str, store: Any) -> Fitted:
        done = fit(self.cut(case), options=cases.TIGHT, store=store)
        return Fitted(done.result, done.mu)

    def objective(self, case: str, rho: Any) -> float:
        laml = self.cut(case).objective(Counters())
        return float(laml.evaluate(np.array(rho), laml.null, cases.TIGHT.inner_tol, 200).value)
