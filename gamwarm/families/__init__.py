"""The response models of the engine, one per module."""

from gamwarm.families.binomial import Binomial
from gamwarm.families.family import Etas, Family, Table, refuse
from gamwarm.families.gamma import Gamma
from gamwarm.families.gaussian import Gaussian
from gamwarm.families.location_scale import GaussianLocationScale
from gamwarm.families.negative_binomial import NegativeBinomial
from gamwarm.families.poisson import Poisson
from gamwarm.families.survival import LogLogistic, LogNormal

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
    "refuse",
]
