"""The reference engine: penalized additive models by Laplace approximate marginal likelihood.

A model is data: a mapping of columns, a list of terms, a family. `bind` fixes knots, levels and
penalty scales on the full data, `Bound.case` cuts a fit (all rows, or a fold), `fit` fits it, with
or without a store.
"""

from gamwarm.engine.cold import ColdStart
from gamwarm.engine.driver import fit
from gamwarm.engine.model import ENGINE, Bound, Case, CaseFamily, bind
from gamwarm.engine.prediction import Curve, HeldOut, Prediction
from gamwarm.engine.report import ColdTrial, EngineFit
from gamwarm.engine.shapes import Convex, Monotone
from gamwarm.engine.term_table import PenaltyRow, TermRow
from gamwarm.engine.terms import Factor, Intercept, Linear, RandomEffect, Smooth, Tensor, Term
from gamwarm.families import (
    Binomial,
    Family,
    Gamma,
    Gaussian,
    GaussianLocationScale,
    LogLogistic,
    LogNormal,
    NegativeBinomial,
    Poisson,
)
from gamwarm.fitting import GuardReport

__all__ = [
    "ENGINE",
    "Binomial",
    "Bound",
    "Case",
    "CaseFamily",
    "ColdStart",
    "ColdTrial",
    "Convex",
    "Curve",
    "EngineFit",
    "Factor",
    "Family",
    "Gamma",
    "Gaussian",
    "GaussianLocationScale",
    "GuardReport",
    "HeldOut",
    "Intercept",
    "Linear",
    "LogLogistic",
    "LogNormal",
    "Monotone",
    "NegativeBinomial",
    "PenaltyRow",
    "Poisson",
    "Prediction",
    "RandomEffect",
    "Smooth",
    "Tensor",
    "Term",
    "TermRow",
    "bind",
    "fit",
]
