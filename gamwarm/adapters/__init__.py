"""gamwarm for optimizers that are not ours: `minimize` wraps `scipy.optimize.minimize`."""

from gamwarm.adapters.minimizing import minimize

__all__ = ["minimize"]
