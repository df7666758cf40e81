"""`gamwarm.adapters.minimize` as the neutrality check sees it: the small engine's objective, and a
penalised logit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm import FitResult
from gamwarm.adapters import minimize
from gamwarm.testing import Fitted
from tests.support.engines import Ridge

__all__ = ["Logit", "RidgeByScipy"]

FloatArray = npt.NDArray[np.float64]


class RidgeByScipy:
    """The marginal likelihood of `Ridge` in its log smoothing parameters, by BFGS."""

    def __init__(self, method: str = "BFGS") -> None:
        self.ridge, self.method = Ridge(), method

    @property
    def cases(self) -> list[int]:
        return self.ridge.cases

    def value(self, rho: FloatArray, case: int) -> tuple[float, FloatArray]:
        value, gradient, *_ = self.ridge.solve(case, rho, np.zeros(sum(self.ridge.widths)))
        return value, gradient

    def call(self, case: int, store: Any) -> Any:
        X, y = self.ridge.data(case)
        return minimize(
            lambda rho: self.value(rho, case), np.zeros(2), store=store, name="tests.ridge", data={"X": X, "y": y},
            rho=slice(None), jac=True, method=self.method,
            options={"xtol": 1e-9} if self.method == "Newton-CG" else {"gtol": 1e-6},
        )  # fmt: skip

    def fit(self, case: int, store: Any) -> Fitted:
        found = self.call(case, store)
        beta = self.ridge.solve(case, found.x, np.zeros(sum(self.ridge.widths)))[4]
        return Fitted(found.result, self.ridge.data(case)[0] @ beta)

    def objective(self, case: int, rho: FloatArray) -> float:
        return self.value(rho, case)[0]


class Logit:
    """A logistic regression with a fixed ridge: coefficients only. Cases as in `Ridge`."""

    @property
    def cases(self) -> list[int]:
        return [0, 1, 2]

    def data(self, case: int) -> tuple[FloatArray, FloatArray]:
        X, y = Ridge().data(case)
        return X, (y > 0.0).astype(np.float64)

    @staticmethod
    def value(X: FloatArray, y: FloatArray, beta: FloatArray) -> float:
        eta = X @ beta
        return float(np.logaddexp(0.0, eta).sum() - y @ eta + 0.5 * beta @ beta)

    def objective(self, case: int, result: FitResult) -> float:
        return self.value(*self.data(case), result.block_beta[0])

    def call(self, case: int, store: Any) -> Any:
        X, y = self.data(case)

        def value(beta: FloatArray) -> float:
            return self.value(X, y, beta)

        def gradient(beta: FloatArray) -> FloatArray:
            slope: FloatArray = X.T @ (1.0 / (1.0 + np.exp(-X @ beta)) - y) + beta
            return slope

        return minimize(
            value, np.zeros(X.shape[1]), store=store, name="tests.logit", data={"X": X, "y": y}, jac=gradient,
            options={"gtol": 1e-6},
        )  # fmt: skip

    def fit(self, case: int, store: Any) -> Fitted:
        found = self.call(case, store)
        return Fitted(found.result, self.data(case)[0] @ found.x)
