"""Solvers that nobody prepared, as the neutrality check sees them through `remember`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm import FitProblem, FitResult
from gamwarm.adapters import curve_fit, least_squares, remember, remember_problem
from gamwarm.testing import Fitted
from tests.support.engines import Ridge
from tests.support.scipy_driver import Logit

__all__ = ["Decay", "LogitByNewton", "RobustByEM"]

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


class Decay:
    """A sum of two exponentials by SciPy's `least_squares` or `curve_fit`; a case leaves points
    out.
    """

    cases = (0, 1, 2)

    def __init__(self, solver: str = "least_squares", **options: Any) -> None:
        self.solver, self.options = solver, options

    def data(self, case: int) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng(5)
        t = np.linspace(0.0, 10.0, 60)
        y = self.curve(t, 3.0, 1.5, 1.2, 6.0) + 0.05 * rng.normal(size=60)
        rows = np.arange(60) % 12 != case - 1 if case else slice(None)
        return t[rows], y[rows]

    @staticmethod
    def curve(t: FloatArray, a: float, b: float, c: float, d: float) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.asarray(a * np.exp(-t / b) + c * np.exp(-t / d))

    def objective(self, case: int, result: FitResult) -> float:
        t, y = self.data(case)
        squares = (self.curve(t, *result.block_beta[0]) - y) ** 2
        if self.options.get("loss") == "soft_l1":
            scale = self.options["f_scale"] ** 2
            return float((scale * (np.sqrt(1.0 + squares / scale) - 1.0)).sum())
        return 0.5 * float(squares.sum())

    def call(self, case: int, store: Any) -> Any:
        t, y = self.data(case)
        begin = [1.0, 1.0, 1.0, 4.0]
        if self.solver == "curve_fit":
            answer = curve_fit(
                self.curve, t, y, begin, store=store, name="tests.decay", full_output=True, **self.options
            )
            return answer[2]["fit"]
        return least_squares(
            lambda p, t, y: self.curve(t, *p) - y, begin, args=(t, y), store=store, name="tests.decay", **self.options
        )

    def fit(self, case: int, store: Any) -> Fitted:
        found = self.call(case, store)
        return Fitted(found.result, self.curve(self.data(case)[0], *found.x))
