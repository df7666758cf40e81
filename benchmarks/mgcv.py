"""The reference engine beside mgcv on the same bases, and mgcv beside itself with warm starts.

CPU time of one process and one thread: one fit of all rows, then leave-one-group-out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.loso import OPTIONS
from benchmarks.loso_data import DATA_SETS, DataSet, table
from benchmarks.store import machine
from gamwarm import engine
from gamwarm.engine import Binomial, Factor, Gaussian, Intercept, RandomEffect, Smooth

__all__ = ["add_arguments", "main"]

REPEATS = 3


def _respiratory() -> dict[str, Any]:
    columns = table("HSAUR", "respiratory")
    columns["good"] = (columns["status"] == "good").astype(float)
    columns["month"] = columns["month"].astype(float)
    columns["age"] = columns["age"].astype(float)
    return columns


_REMIFENTANIL = DATA_SETS["remifentanil"]

MODELS = {
    "mcycle": DATA_SETS["mcycle"],
    "remifentanil": replace(
        _REMIFENTANIL,
        what="nlme/Remifentanil, Gaussian, one subject left out",
        terms=tuple(term for term in _REMIFENTANIL.terms if term.predictor == "mean"),
        family=Gaussian("log_conc"),
    ),
    "kostecki": DATA_SETS["kostecki"],
    "respiratory": DataSet(
        "respiratory",
        "HSAUR/respiratory, binomial, one patient left out",
        _respiratory,
        (
            Intercept(),
            Factor("treatment"),
            Factor("centre"),
            Smooth("age", 10),
            Smooth("month", 5),
            RandomEffect("subject"),
        ),
        Binomial("good"),
        "subject",
        None,
        (float("nan"), float("nan")),
    ),
}
FAMILIES = {
    "Binomial": "binomial",
    "Poisson": "poisson",
    "Gaussian": "gaussian",
    "GaussianLocationScale": "gaulss(b=0)",
}

BAM = """function(texts, data, family, knots) {
  f <- lapply(texts, stats::as.formula)
  family <- eval(parse(text = family), new.env(parent = asNamespace("mgcv")))
  m <- suppressWarnings(mgcv::bam(f[[1]], family = family, data = data, knots = knots, discrete = TRUE, nthreads = 1,
                                  control = list(scalePenalty = FALSE)))
  list(objective = m$gcv.ubre, edf = sum(m$edf), fitted = m$linear.predictors)
}"""
GAM = """function(texts, data, family, knots) {
  f <- lapply(texts, stats::as.formula)
  if (length(f) == 1) f <- f[[1]]
  family <- eval(parse(text = family), new.env(parent = asNamespace("mgcv")))
  m <- suppressWarnings(mgcv::gam(f, family = family, data = data, knots = knots, method = "REML",
                                  control = list(scalePenalty = FALSE)))
  list(objective = m$gcv.ubre, edf = sum(m$edf), fitted = m$linear.predictors)
}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--data", default=",".join(MODELS), help="names, by commas (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=8, metavar="N", help="folds per data set (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


@dataclass
class Way:
    """What one way to fit took: CPU seconds of one fit of all rows, then of each fold."""

    one: float = float("nan")
    folds: list[float] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    fitted: list[Any] = field(default_factory=list)
    objective: float = float("nan")
    edf: float = float("nan")

    def add(self, seconds: float, objective: float, fitted: Any, iterations: int | None = None) -> None:
        """Note a fold."""
        self.folds.append(seconds)
        self.objectives.append(objective)
        self.fitted.append(np.asarray(fitted))
        if iterations is not None:
            self.iterations.append(iterations)

    def figures(self) -> dict[str, Any]:
        """Return numbers for JSON."""
        return {
            "one_fit_s": self.one,
            "fold_s": statistics.mean(self.folds) if self.folds else None,
            "fold_outer_iterations": statistics.mean(self.iterations) if self.iterations else None,
            "objective": self.objective,
            "edf": self.edf,
        }


class Model:
    """One data set for the engine and for mgcv, on the same B-splines, knots and differences."""

    def __init__(self, data: DataSet, n_folds: int) -> None:
        self.data, self.columns = data, data.load()
        self.bound = engine.bind(self.columns, data.terms, data.family)
        self.family = FAMILIES[type(data.family).__name__]
        self.knots = {term.column: self._knots(term) for term in data.terms if isinstance(term, Smooth)}
        predictors = list(dict.fromkeys(term.predictor for term in data.terms))
        texts = [" + ".join(self._term(t) for t in data.terms if t.predictor == p) for p in predictors]
        self.formula = [f"{data.family.response if i == 0 else ''} ~ {text}" for i, text in enumerate(texts)]
        groups = np.asarray(self.columns[data.group]).astype(str)
        labels, sizes = np.unique(groups, return_counts=True)
        order = labels[np.argsort(-sizes, kind="stable")]
        chosen = order[np.linspace(0, len(order) - 1, min(n_folds, len(order))).astype(int)]
        self.folds = [groups != label for label in chosen]

    def _knots(self, term: Smooth) -> Any:
        x = np.asarray(self.columns[term.column], dtype=float)
        step = (x.max() - x.min()) / (term.k - term.degree)
        return x.min() + step * np.arange(-term.degree, term.k + 1)

    def _term(self, term: Any) -> str:
        if isinstance(term, Smooth):
            return f"s({term.column}, bs='ps', k={term.k}, m=c({term.degree - 1}, {term.penalty_order}))"
        if isinstance(term, RandomEffect):
            return f"s({term.column}, bs='re')"
        return "1" if isinstance(term, Intercept) else str(term.column)

    def rows(self, keep: Any = None) -> dict[str, Any]:
        """Return the columns that mgcv is given; groups are text."""
        texts = {t.column for t in self.data.terms if isinstance(t, (Factor, RandomEffect))}
        chosen = {name: np.asarray(column) for name, column in self.columns.items()}
        chosen = {name: column.astype(str) if name in texts else column for name, column in chosen.items()}
        return chosen if keep is None else {name: column[keep] for name, column in chosen.items()}


def _cpu(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    done = act()
    return time.process_time() - began, done


def _measured(model: Model) -> dict[str, Way]:
    from gamwarm.adapters.mgcv import gam  # noqa: PLC0415 - starts R
    from gamwarm.adapters.mgcv.data import data_frame  # noqa: PLC0415
    from gamwarm.adapters.mgcv.session import plain, session, wrapped  # noqa: PLC0415

    session()
    functions = {"gam()": session().rinterface.evalr(GAM)}
    if len(model.formula) == 1:
        functions["bam(discrete=TRUE)"] = session().rinterface.evalr(BAM)
    rest = [wrapped(model.formula), wrapped(model.family), wrapped(model.knots)]
    ways = {name: Way() for name in ("engine", "engine, warm", *functions, "gam() by the adapter", "the same, warm")}

    def in_r(function: Any, frame: Any) -> dict[str, Any]:
        return plain(function(rest[0], frame, rest[1], rest[2]))

    def by_adapter(rows: Any = None, **how: Any) -> Any:
        return gam(model.formula, model.rows(rows), model.family, knots=model.knots, **how)

    with tempfile.TemporaryDirectory() as folder, gamwarm.open(Path(folder) / "fits.h5") as store:
        # The engine.
        singles = [_cpu(lambda: engine.fit(model.bound.case(), options=OPTIONS)) for _ in range(REPEATS)]
        way = ways["engine"]
        way.one, first = min(each[0] for each in singles), singles[0][1]
        way.objective, way.edf = first.result.objective, sum(first.edf.values())
        parent = engine.fit(model.bound.case(), options=OPTIONS, store=store)
        for keep in model.folds:
            for name, how in (
                ("engine", {}),
                ("engine, warm", {"store": store, "parent": parent.kept.artifact.entry_id}),
            ):
                case = model.bound.case(keep)
                took, made = _cpu(lambda case=case, how=how: engine.fit(case, options=OPTIONS, **how))
                ways[name].add(took, made.result.objective, made.fitted, made.cost.outer_iterations)
        # mgcv as it is.
        for name, function in functions.items():
            frame = data_frame(model.rows(), {}, ()).r
            singles = [_cpu(lambda function=function, frame=frame: in_r(function, frame)) for _ in range(REPEATS)]
            ways[name].one = min(each[0] for each in singles)
            found = singles[0][1]
            ways[name].objective, ways[name].edf = float(found["objective"][0]), float(found["edf"][0])
            for keep in model.folds:
                frame = data_frame(model.rows(keep), {}, ()).r
                took, found = _cpu(lambda function=function, frame=frame: in_r(function, frame))
                ways[name].add(took, float(found["objective"][0]), found["fitted"])
        # mgcv by the adapter: with all that it costs.
        full = by_adapter(store=store)
        cold, warm = ways["gam() by the adapter"], ways["the same, warm"]
        cold.one = min(_cpu(by_adapter)[0] for _ in range(REPEATS))
        warm.one = min(_cpu(lambda: by_adapter(store=store))[0] for _ in range(REPEATS))
        cold.objective = warm.objective = full.objective
        cold.edf = warm.edf = float(np.sum(plain(session().call("edf", full.r))))
        for keep in model.folds:
            for way, how in ((cold, {}), (warm, {"store": store})):
                took, made = _cpu(lambda keep=keep, how=how: by_adapter(keep, like=full, **how))
                way.add(took, made.objective, made.linear_predictors, made.iterations)
    return ways


def _apart(a: Way, b: Way) -> tuple[float, float, float]:
    """Return how the same folds differ: objectives (lowest, highest), fitted values in sd."""
    gaps = [x - y for x, y in zip(a.objectives, b.objectives, strict=True)]
    fitted = [float(np.abs(x - y).max() / np.std(y)) for x, y in zip(a.fitted, b.fitted, strict=True)]
    return min(gaps), max(gaps), max(fitted)


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, and write."""
    console = Console(width=140)
    figures: dict[str, Any] = {}
    for name in arguments.data.split(","):
        if name not in MODELS:
            raise SystemExit(f"--data: no data set {name!r}; there are {', '.join(MODELS)}")
        model = Model(MODELS[name], arguments.folds)
        ways = _measured(model)
        lowest, highest, fitted = _apart(ways["the same, warm"], ways["gam() by the adapter"])
        out = Table(title=f"{model.data.what}: {len(model.rows()[model.data.group])} rows, {len(model.folds)} folds")
        for head in ("", "one fit, s", "a fold, s", "outer iterations", "objective", "edf"):
            out.add_column(head, justify="left" if not head else "right")
        for label, way in ways.items():
            each = way.figures()
            cells = (each["one_fit_s"], each["fold_s"], each["fold_outer_iterations"], each["objective"], each["edf"])
            out.add_row(label, *("–" if c is None or c != c else f"{c:.4g}" if c < 1e3 else f"{c:.3f}" for c in cells))
        console.print(out)
        gain = sum(ways["gam() by the adapter"].folds) / sum(ways["the same, warm"].folds)
        fewer = sum(ways["gam() by the adapter"].iterations) / max(sum(ways["the same, warm"].iterations), 1)
        console.print(
            f"mgcv warm beside cold: {fewer:.1f} times fewer outer iterations, {gain:.1f} times less CPU (layer "
            f"included); objectives of the folds differ by {lowest:.2g} to {highest:.2g}, "
            f"linear predictors by {fitted:.2g} sd\n"
        )
        figures[name] = {
            "rows": len(model.rows()[model.data.group]),
            "folds": len(model.folds),
            "ways": {label: way.figures() for label, way in ways.items()},
            "mgcv_warm": {"iterations": fewer, "cpu": gain, "objective": [lowest, highest], "fitted_sd": fitted},
        }
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": machine(Path.cwd()), "data": figures}, indent=1) + "\n")
