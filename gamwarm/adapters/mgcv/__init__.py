"""mgcv's ``gam()`` with warm starts. Needs R and rpy2: the extra ``mgcv``."""

from gamwarm.adapters.mgcv.fit import GamFit, fold_fit, gam
from gamwarm.adapters.mgcv.model import Basis

__all__ = ["Basis", "GamFit", "fold_fit", "gam"]
