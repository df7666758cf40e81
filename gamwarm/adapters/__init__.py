"""gamwarm for other solvers: `remember` for any of them, `minimize` and others for SciPy's."""

from gamwarm.adapters.remember import remember, remember_problem
from gamwarm.adapters.scipy_minimize import minimize, minimize_problem

__all__ = ["minimize", "minimize_problem", "remember", "remember_problem"]
