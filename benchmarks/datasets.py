"""Twelve small data sets with default options, one group left out: where warm folds end beside cold
ones.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.loso_data import Columns, table
from gamwarm import engine
from gamwarm.engine import (
    Binomial,
    Factor,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Poisson,
    RandomEffect,
    Smooth,
)

SAME = 1e-3
FOLDS = 12
# Per data set: package, item, family, group, terms. A binomial response is 1 where it equals the
# value named.
SETS: dict[str, tuple[str, str, Any, str, tuple[Any, ...]]] = {
    "Loblolly": ("datasets", "Loblolly", Gaussian("height"), "Seed", (Smooth("age", 6), RandomEffect("Seed"))),
    "Orthodont": ("nlme", "Orthodont", Gaussian("distance"), "Subject",
                  (Smooth("age", 4), Factor("Sex"), RandomEffect("Subject"))),
    "Theoph": ("datasets", "Theoph", GaussianLocationScale("conc"), "Subject",
               (Smooth("Time", 10), RandomEffect("Subject"), Intercept("scale"), Smooth("Time", 6, predictor="scale"))),
    "ChickWeight": ("datasets", "ChickWeight", GaussianLocationScale("weight"), "Chick",
                    (Smooth("Time", 8), Factor("Diet"), RandomEffect("Chick"), Intercept("scale"),
                     Smooth("Time", 6, predictor="scale"), Factor("Diet", predictor="scale"))),
    "Oxboys": ("nlme", "Oxboys", GaussianLocationScale("height"), "Subject",
               (Smooth("age", 9), RandomEffect("Subject"), Intercept("scale"),
                RandomEffect("Subject", predictor="scale"))),
    # Three scores of each worker and machine: which machine's scale shrinks is a choice of two
    # optima.
    "Machines": ("nlme", "Machines", GaussianLocationScale("score"), "Worker",
                 (Factor("Machine"), RandomEffect("Worker"), Intercept("scale"), Factor("Machine", predictor="scale"))),
    "epil": ("MASS", "epil", Poisson("y"), "subject",
             (Factor("trt"), Smooth("lbase", 8), Smooth("lage", 8), RandomEffect("subject"))),
    "quine": ("MASS", "quine", Poisson("Days"), "Age", (Factor("Eth"), Factor("Sex"), Factor("Lrn"), Factor("Age"))),
    # Some sites have no tick at all.
    "grouseticks": ("lme4", "grouseticks", Poisson("TICKS"), "LOCATION",
                    (Smooth("cHEIGHT", 8), Factor("YEAR"), RandomEffect("LOCATION"))),
    "bacteria": ("MASS", "bacteria", Binomial("y"), "ID", (Factor("trt"), Smooth("week", 5), RandomEffect("ID"))),
    # Matched sets: each stratum has exactly one case or two, so its random effect has nothing to
    # explain.
    "infert": ("datasets", "infert", Binomial("case"), "education",
               (Factor("education"), Smooth("age", 8), Factor("parity"), RandomEffect("stratum"))),
    # Every row with six tumours at the start is an event: separated.
    "bladder": ("survival", "bladder", Binomial("event"), "number",
                (Smooth("stop", 8), Factor("number"), Factor("enum"), RandomEffect("id"))),
}  # fmt: skip
EVENTS = {"bacteria": "y"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--data", default=",".join(SETS), help="names, by commas (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=FOLDS, metavar="N", help="at most N groups (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seed", type=int, default=1, help="which groups, where there are more (default: %(default)s)")


def load(name: str) -> Columns:
    """Return the columns: numbers where a smooth or the response wants them, else text."""
    package, item, family, group, terms = SETS[name]
    columns = table(package, item)
    if name in EVENTS:
        columns[family.response] = columns[family.response] == EVENTS[name]
    numbers = {family.response} | {t.column for t in terms if isinstance(t, Smooth)}
    labels = {group} | {t.column for t in terms if isinstance(t, (Factor, RandomEffect))}
    return {c: columns[c].astype(float) for c in numbers} | {
        c: columns[c].astype(str) for c in labels if c not in numbers
    }


def words(reason: str | None) -> str:
    """Return a reason without its numbers, so that equal ones are counted together."""
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "…", reason or "no reason given")


def run(name: str, folds: int, seed: int) -> dict[str, Any]:
    """Fit every fold cold and warm, and count how the two ended."""
    _, _, family, group, terms = SETS[name]
    columns = load(name)
    bound = engine.bind(columns, [Intercept(), *terms], family)
    labels = np.unique(columns[group])
    if len(labels) > folds:
        labels = np.sort(np.random.default_rng(seed).choice(labels, folds, replace=False))
    ends: Counter[str] = Counter()
    why: Counter[str] = Counter()
    formations = {"cold": 0, "warm": 0}
    with tempfile.TemporaryDirectory(prefix="gamwarm-bench-") as folder:
        path = Path(folder) / "fits.h5"
        with gamwarm.open(path, engine=engine.ENGINE, engine_version=gamwarm.__version__) as store:
            parent = engine.fit(bound.case(), store=store, group_seeds=group)
            if not parent.converged:
                why[f"parent: {words(parent.reason)}"] += 1
            artifact = parent.kept.artifact.entry_id if parent.converged else None
            for label in labels:
                rows = columns[group] != label
                cold = engine.fit(bound.case(rows))
                warm = engine.fit(bound.case(rows), store=store, parent=artifact, leave_out=label if artifact else None)
                formations["cold"] += cold.cost.hessian_formations
                formations["warm"] += warm.cost.hessian_formations
                end = compare(cold, warm)
                if end in ("better", "worse"):
                    # An answer of its own keeps a search that begins there.
                    stayed = engine.fit(bound.case(rows), start=(warm if end == "worse" else cold).result)
                    met = [float(f.result.objective) for f in (cold, warm)]
                    kept = stayed.converged and abs(float(stayed.result.objective) - max(met)) <= SAME
                    why[f"{end}: {'two certified answers' if kept else 'only one is an answer'}"] += 1
                ends[end] += 1
                for arm, fit in (("cold", cold), ("warm", warm)):
                    if not fit.converged:
                        why[f"{arm}: {words(fit.reason)}"] += 1
                if end in ("better", "worse", "one arm only"):
                    for note in (*cold.notes, *warm.notes):
                        why[f"{end}: {words(note)}"] += 1
    return {"data": name, "rows": bound.n, "folds": len(labels), "ends": ends, "why": why, "formations": formations}


def compare(cold: engine.EngineFit, warm: engine.EngineFit) -> str:
    """Say in a word how a warm fit ended beside the cold one."""
    if not (cold.converged or warm.converged):
        return "refused"
    if cold.converged != warm.converged:
        return "one arm only"
    gap = float(warm.result.objective) - float(cold.result.objective)
    return "agreed" if abs(gap) <= SAME else "better" if gap < 0.0 else "worse"


def main(arguments: argparse.Namespace) -> None:
    """Fit all, print the table and the reasons under it."""
    names = [n for n in arguments.data.split(",") if n]
    if unknown := [n for n in names if n not in SETS]:
        raise SystemExit(f"no data set {unknown}; there are {', '.join(SETS)}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    shown = Table(title="one group left out, default options: warm beside cold")
    ends = ("agreed", "better", "worse", "one arm only", "refused")
    for column in ("data", "rows", "folds", *ends, "H, cold", "H, warm"):
        shown.add_column(column, justify="left" if column == "data" else "right")
    found = []
    for name in names:
        one = run(name, arguments.folds, arguments.seed)
        found.append(one)
        cost = one["formations"]
        shown.add_row(name, str(one["rows"]), str(one["folds"]), *(str(one["ends"][e]) for e in ends),
                      str(cost["cold"]), str(cost["warm"]))  # fmt: skip
    console.print(shown)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"seed": arguments.seed, "data": found}, indent=1) + "\n")
    for one in found:
        for text, times in one["why"].most_common():
            console.print(f"{one['data']}: {times} x {text}", markup=False, highlight=False)
