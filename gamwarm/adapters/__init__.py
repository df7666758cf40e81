"""gamwarm for other solvers: `remember` for any, the others for SciPy's and scikit-learn's."""

from gamwarm.adapters.gaussian_process import GaussianProcessOptimizer
from gamwarm.adapters.least_squares import curve_fit, least_squares
from gamwarm.adapters.remember import remember, remember_problem
from gamwarm.adapters.scipy_minimize import minimize, minimize_problem

__all__ = [
    "GaussianProcessOptimizer",
    "curve_fit",
    "least_squares",
    "minimize",
    "minimize_problem",
    "remember",
    "remember_problem",
]
