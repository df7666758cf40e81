"""The response models of the engine, one per module."""

from gamwarm.engine.families.binomial import Binomial
from gamwarm.engine.families.family import Etas, Family, Table
from gamwarm.engine.families.gaussian import Gaussian
from gamwarm.engine.families.location_scale import GaussianLocationScale
from gamwarm.engine.families.poisson import Poisson

__all__ = ["Binomial", "Etas", "Family", "Gaussian", "GaussianLocationScale", "Poisson", "Table"]
