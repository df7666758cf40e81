"""The response models of the engine, one per module."""

from gamwarm.engine.families.binomial import Binomial
from gamwarm.engine.families.family import Etas, Family, Table
from gamwarm.engine.families.gamma import Gamma
from gamwarm.engine.families.gaussian import Gaussian
from gamwarm.engine.families.location_scale import GaussianLocationScale
from gamwarm.engine.families.negative_binomial import NegativeBinomial
from gamwarm.engine.families.poisson import Poisson
from gamwarm.engine.families.survival import LogLogistic, LogNormal

__all__ = [
    "Binomial",
    "Etas",
    "Family",
    "Gamma",
    "Gaussian",
    "GaussianLocationScale",
    "LogLogistic",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "Table",
]
