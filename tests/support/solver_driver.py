"""Solvers that nobody prepared, as the neutrality check sees them through `remember`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm import FitProblem, FitResult
from gamwarm.adapters import remember, remember_problem
from gamwarm.testing import Fitted
from tests.support.engines import Ridge
from tests.support.scipy_driver import Logit

__all__ = ["LogitByNewton", "RobustByEM"]

FloatArray = npt.NDArray[np.float64]


class LogitByNewton:
    """A ridge logit by Newton's method, which tests its gradient first."""

    cases = (0, 1, 2)

    def data(self, case: int) -> dict[str, FloatArray]:
        X, y = Logit().data(case)
        return {"X": X, "y": y}

    def objective(self, case: int, result: FitResult) -> float:
        return Logit.value(**self.data(case), beta=result.block_beta[0])

    def solve(self, X: FloatArray, y: FloatArray, start: FloatArray | None) -> dict[str, Any]:
        beta = np.zeros(X.shape[1]) if start is None else start
        for steps in range(50):
            p = 1.0 / (1.0 + np.exp(-X @ beta))
            slope = X.T @ (p - y) + beta
            if np.abs(slope).max() < 1e-8:
                return {"x": beta, "success": True, "nit": steps, "nfev": steps}
            beta -= np.linalg.solve((X.T * (p * (1.0 - p))) @ X + np.eye(beta.size), slope)  # in place
        return {"x": beta, "success": False, "nit": 50, "nfev": 50}

    def arguments(self, case: int) -> dict[str, Any]:
        data = self.data(case)
        return {
            "name": "tests.newton",
            "data": data,
            "start": np.zeros(data["X"].shape[1]),
            "objective": lambda beta: Logit.value(**data, beta=beta),
        }

    def call(self, case: int, store: Any) -> Any:
        return remember(lambda x: self.solve(**self.data(case), start=x), store=store, **self.arguments(case))

    def problem(self, case: int) -> FitProblem:
        return remember_problem(**self.arguments(case))

    def fit(self, case: int, store: Any) -> Fitted:
        found = self.call(case, store)
        return Fitted(found.result, self.data(case)["X"] @ found.x)


class RobustByEM:
    """Regression with t errors by EM, which takes a step before it can stop, and returns a pair."""

    cases = (0, 1, 2)

    def objective(self, case: int, result: FitResult) -> float:
        return self.value(*Ridge().data(case), result.block_beta[0])

    @staticmethod
    def value(X: FloatArray, y: FloatArray, beta: FloatArray) -> float:
        return float(2.5 * np.log1p((y - X @ beta) ** 2 / 4.0).sum() + 0.5 * beta @ beta)

    @staticmethod
    def solve(X: FloatArray, y: FloatArray, start: FloatArray | None) -> tuple[FloatArray, bool]:
        beta: FloatArray = np.zeros(X.shape[1]) if start is None else start
        for _ in range(2000):
            weights = 5.0 / (4.0 + (y - X @ beta) ** 2)
            before = beta
            beta = np.asarray(np.linalg.solve((X.T * weights) @ X + np.eye(beta.size), X.T @ (weights * y)))
            if np.abs(beta - before).max() < 1e-9:
                return beta, True
        return beta, False

    def fit(self, case: int, store: Any) -> Fitted:
        X, y = Ridge().data(case)
        found = remember(
            lambda x: self.solve(X, y, x), store=store, name="tests.em", data={"X": X, "y": y},
            start=np.zeros(X.shape[1]), objective=lambda beta: self.value(X, y, beta),
        )  # fmt: skip
        return Fitted(found.result, X @ found.x)
