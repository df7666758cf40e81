"""gamwarm for other optimizers: `minimize` wraps `scipy.optimize.minimize`."""

from gamwarm.adapters.scipy_minimize import minimize, minimize_problem

__all__ = ["minimize", "minimize_problem"]
