"""A Gaussian process of scikit-learn through its ``optimizer=``, as the neutrality check sees
it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm import FitResult
from gamwarm.adapters import GaussianProcessOptimizer
from gamwarm.testing import Fitted

__all__ = ["GaussianProcess"]

FloatArray = npt.NDArray[np.float64]


class GaussianProcess:
    """Log hyperparameters (amplitude, length, noise) by L-BFGS-B inside scikit-learn's own
    bounds.
    """

    cases = (0, 1, 2)

    def data(self, case: int) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng(11)
        x = np.sort(rng.uniform(0.0, 10.0, 36))
        y = np.sin(x) + 0.2 * rng.normal(size=36)
        rows = np.arange(36) % 12 != case - 1 if case else slice(None)
        return x[rows, None], y[rows]

    def model(self, optimizer: Any) -> Any:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
        return GaussianProcessRegressor(kernel, optimizer=optimizer)

    def fit(self, case: int, store: Any) -> Fitted:
        X, y = self.data(case)
        optimizer = GaussianProcessOptimizer(store)
        model = self.model(optimizer).fit(X, y)
        return Fitted(optimizer.found.result, model.predict(X))

    def objective(self, case: int, result: FitResult) -> float:
        X, y = self.data(case)
        model = self.model(None).fit(X, y)
        return -float(model.log_marginal_likelihood(result.block_beta[0]))
