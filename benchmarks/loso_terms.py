"""Leave-one-group-out data sets for the engine's special terms and families: a row each.

A row is a `DataSet` like those of the benchmark's main table; `--terms` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.loso_data import Columns, DataSet, table
from gamwarm.engine import (
    Binomial,
    Convex,
    Factor,
    Gamma,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    LogLogistic,
    LogNormal,
    Monotone,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    Smooth,
    Tensor,
)

__all__ = ["TERM_SETS"]

# Formations of X'WX, cold by warm; of a Gaussian model neither forms any.
_FOUR = (4.0, float("nan"))
_NONE = (float("nan"), float("nan"))


def _data(
    package: str, item: str, words: tuple[str, ...] = (), **made: Callable[[Columns], object]
) -> Callable[[], Columns]:
    """Return a loader of a data set of an R package, with columns ``words`` as strings, and others
    made from it.
    """

    def load() -> Columns:
        columns = table(package, item)
        columns |= {name: columns[name].astype(str) for name in words}
        return columns | {name: np.asarray(make(columns)) for name, make in made.items()}

    return load


_KOSTECKI = _data("carData", "KosteckiDillon", headache=lambda c: (c["headache"] == "yes").astype(float))
_CONTRACEPTION = _data("mlmRev", "Contraception", ("district",), use=lambda c: (c["use"] == "Y").astype(float))
_TICKS = _data("lme4", "grouseticks", ("YEAR", "BROOD", "LOCATION"), HEIGHT=lambda c: c["HEIGHT"].astype(float))
_MILK = _data("nlme", "Milk", Time=lambda c: c["Time"].astype(float))
_WHEAT = _data("nlme", "Wheat2")

TERM_SETS = {
    row.name: row
    for row in (
        DataSet(
            "kostecki-surface", "carData/KosteckiDillon, binomial, a surface of time and age, one subject left out",
            _KOSTECKI,
            (
                Intercept(), Factor("medication"), Tensor("time", "age", k=(7, 6)), Smooth("airq", 10),
                RandomEffect("id"),
            ),
            Binomial("headache"), "id", None, _FOUR,
        ),
        DataSet(
            "kostecki-interaction", "as before, the surface beside its main effects",
            _KOSTECKI,
            (
                Intercept(), Factor("medication"), Smooth("time", 10), Smooth("age", 10),
                Tensor("time", "age", k=(7, 6)), RandomEffect("id"),
            ),
            Binomial("headache"), "id", None, _FOUR,
        ),
        DataSet(
            "wheat-surface", "nlme/Wheat2, Gaussian, a surface of the field, one variety left out",
            _WHEAT,
            (Intercept(), Tensor("latitude", "longitude", k=(7, 7)), RandomEffect("variety")),
            Gaussian("yield"), "variety", None, _NONE,
        ),
        DataSet(
            "contraception-select", "mlmRev/Contraception, binomial, select=True, one district left out",
            _CONTRACEPTION,
            (Intercept(), Factor("livch"), Smooth("age", 10, select=True), RandomEffect("district")),
            Binomial("use"), "district", None, _FOUR,
        ),
        DataSet(
            "contraception-tied", "as before, a curve per number of children, tied",
            _CONTRACEPTION,
            (
                Intercept(), Factor("livch"), Factor("urban"), Smooth("age", 8, by="livch", tied=True),
                RandomEffect("district"),
            ),
            Binomial("use"), "district", None, _FOUR,
        ),
        DataSet(
            "ticks-by", "lme4/grouseticks, Poisson, a curve per year, one location left out",
            _TICKS,
            (Intercept(), Factor("YEAR"), Smooth("HEIGHT", 8, by="YEAR"), RandomEffect("BROOD")),
            Poisson("TICKS"), "LOCATION", None, _FOUR,
        ),
        DataSet(
            "milk-tied", "nlme/Milk, Gaussian location-scale, a curve per diet, tied, one cow left out",
            _MILK,
            (
                Intercept(), Factor("Diet"), Smooth("Time", 10, by="Diet", tied=True), RandomEffect("Cow"),
                Intercept("scale"), Smooth("Time", 8, predictor="scale"),
            ),
            GaussianLocationScale("protein"), "Cow", None, _FOUR,
        ),
        DataSet(
            "kostecki-fixed", "carData/KosteckiDillon, binomial, one smooth fixed, one subject left out",
            _KOSTECKI,
            (
                Intercept(), Factor("medication"), Smooth("time", 10, log_lambda=5.0), Smooth("age", 10),
                Smooth("airq", 10), RandomEffect("id"),
            ),
            Binomial("headache"), "id", None, _FOUR,
        ),
        DataSet(
            "kostecki-decreasing", "carData/KosteckiDillon, binomial, decreasing in time, one subject left out",
            _KOSTECKI,
            (
                Intercept(), Factor("medication"), Monotone("time", k=15, direction="decreasing"),
                Smooth("airq", 10), RandomEffect("id"),
            ),
            Binomial("headache"), "id", None, _FOUR,
        ),
        DataSet(
            "contraception-decreasing", "mlmRev/Contraception, binomial, decreasing in age, one district left out",
            _CONTRACEPTION,
            (
                Intercept(), Factor("livch"), Factor("urban"), Monotone("age", k=12, direction="decreasing"),
                RandomEffect("district"),
            ),
            Binomial("use"), "district", None, _FOUR,
        ),
        DataSet(
            "milk-convex", "nlme/Milk, Gaussian, convex in time, one cow left out",
            _MILK,
            (Intercept(), Factor("Diet"), Convex("Time", k=12), RandomEffect("Cow")),
            Gaussian("protein"), "Cow", None, _NONE,
        ),
        DataSet(
            "ticks-overdispersed", "lme4/grouseticks, negative binomial, one location left out",
            _TICKS,
            (Intercept(), Factor("YEAR"), Smooth("HEIGHT", 10), RandomEffect("LOCATION")),
            NegativeBinomial("TICKS"), "LOCATION", None, _FOUR,
        ),
        DataSet(
            "chicks-gamma", "datasets/ChickWeight, Gamma, one chick left out",
            _data("datasets", "ChickWeight"),
            (Intercept(), Factor("Diet"), Smooth("Time", 10), RandomEffect("Chick")),
            Gamma("weight"), "Chick", None, _FOUR,
        ),
        DataSet(
            "diabetic-loglogistic", "survival/diabetic, log-logistic times to loss of sight, one patient left out",
            _data("survival", "diabetic"),
            (
                Intercept(), Factor("trt"), Factor("laser"), Smooth("age", 8), Smooth("risk", 6), RandomEffect("id"),
                Intercept("scale"),
            ),
            LogLogistic("time", event="status"), "id", 40, _FOUR,
        ),
        DataSet(
            "cgd-lognormal", "survival/cgd, log-normal times between infections, one patient left out",
            _data("survival", "cgd", gap=lambda c: (c["tstop"] - c["tstart"]).astype(float)),
            (
                Intercept(), Factor("treat"), Factor("sex"), Smooth("age", 8), Smooth("weight", 8), RandomEffect("id"),
                Intercept("scale"), Smooth("age", 6, predictor="scale"),
            ),
            LogNormal("gap", event="status"), "id", 40, _FOUR,
        ),
    )
}  # fmt: skip
