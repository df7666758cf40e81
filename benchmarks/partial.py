"""Starts from parents with other terms: one term added or dropped, another k, a scale that becomes
smooth or constant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks import datasets
from benchmarks.loso_data import DATA_SETS
from benchmarks.store import machine
from gamwarm import engine
from gamwarm.engine import RandomEffect, Smooth
from gamwarm.fitting import search

GOAL = 2.0
"""Hessian formations, cold by warm, on average."""

SAME = 1e-6
"""Of two objectives, relative to 1 + their size."""

Terms = tuple[Any, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    default = "mcycle,kostecki,remifentanil,epil"
    parser.add_argument("--data", default=default, help="names of loso and datasets, by commas (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def changes(terms: Terms) -> Iterator[tuple[str, str, Terms, Terms]]:
    """Yield kind and name of each change, and the terms of parent and child."""
    for term in terms:
        rest = tuple(other for other in terms if other is not term)
        if isinstance(term, Smooth | RandomEffect):
            yield "add", f"+ {term.name}", rest, terms
            yield "drop", f"- {term.name}", terms, rest
    for before, after in ((8, 15), (15, 8), (10, 20)):
        yield "k", f"k {before} to {after}", _wide(terms, before), _wide(terms, after)
    constant = tuple(t for t in terms if not (t.predictor == "scale" and isinstance(t, Smooth | RandomEffect)))
    if len(terms) - len(constant) > 1:  # of one term it is that term's addition
        yield "scale", "smooth scale from constant", constant, terms
        yield "scale", "constant scale from smooth", terms, constant


def _wide(terms: Terms, k: int) -> Terms:
    return tuple(replace(term, k=k) if isinstance(term, Smooth) else term for term in terms)


def measure(data: Any, family: Any, parent: Terms, child: Terms) -> dict[str, Any]:
    """Fit the child cold and from the parent; "warm" leaves out what serves later fits."""
    with tempfile.TemporaryDirectory(prefix="gamwarm-bench-") as folder:
        cold = engine.fit(engine.bind(data, child, family).case())
        with gamwarm.open(Path(folder) / "fits.h5", on_error="raise") as store:
            engine.fit(engine.bind(data, parent, family).case(), store=store)
            with _offers() as offers:
                warm = engine.fit(engine.bind(data, child, family).case(), store=store)
    assert warm.start is not None
    if not (cold.converged and warm.converged and warm.start.source == "transfer"):
        raise SystemExit(f"{warm.start}: cold {cold.reason or 'converged'}, warm {warm.reason or 'converged'}")
    ends = [fit.result.objective for fit in (cold, warm)]
    return {
        "cold": cold.cost.hessian_formations,
        "warm": warm.cost.hessian_formations - warm.cost.for_children,
        "cold evaluations": cold.cost.evaluations,
        "warm evaluations": warm.cost.evaluations,
        "for children": warm.cost.for_children,
        "offers": sum(offers),
        "continued from": warm.guard.continued_from,
        "guard": str(warm.guard),
        "gap": (ends[1] - ends[0]) / (1.0 + abs(ends[0])),
    }


@contextmanager
def _offers() -> Iterator[list[int]]:
    """Collect the formations of each evaluation of an offer."""
    plain, spent = search.Search.evaluate_offer, list[int]()

    def counted(self: Any, *args: Any) -> Any:
        before = self.objective.cost().hessian_formations
        at = plain(self, *args)
        spent.append(self.objective.cost().hessian_formations - before)
        return at

    search.Search.evaluate_offer = counted  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        search.Search.evaluate_offer = plain  # type: ignore[method-assign]


def gain(cases: Sequence[dict[str, Any]]) -> float:
    """Return the mean of cold by warm formations."""
    return statistics.fmean(case["cold"] / max(case["warm"], 1) for case in cases)


def is_bounded(case: dict[str, Any]) -> bool:
    """Whether the warm fit took no more than the cold one and the evaluations of the offer."""
    return bool(case["warm"] <= case["cold"] + case["offers"])


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=150)
    names = [name for name in arguments.data.split(",") if name]
    unknown = [name for name in names if name not in DATA_SETS and name not in datasets.SETS]
    if unknown:
        raise SystemExit(f"no data set {unknown}; there are {', '.join([*DATA_SETS, *datasets.SETS])}")
    cases = []
    for name in names:
        if name in DATA_SETS:
            data, terms, family = DATA_SETS[name].load(), DATA_SETS[name].terms, DATA_SETS[name].family
        else:
            _, _, family, _, terms = datasets.SETS[name]
            data, terms = datasets.load(name), (engine.Intercept(), *terms)
        for kind, change, parent, child in changes(tuple(terms)):
            cases.append({"data": name, "kind": kind, "change": change, **measure(data, family, parent, child)})
    where = machine(Path(tempfile.gettempdir()))
    console.print(case_table(cases, where))
    console.print(kind_table(cases))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": where, "cold / warm": gain(cases), "goal": GOAL, "cases": cases}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def case_table(cases: Sequence[dict[str, Any]], where: dict[str, Any]) -> Table:
    """Return a row per change."""
    table = Table(
        title=f"Hessian formations of a fit from a parent with other terms; {where['date']}",
        caption="offers: of the warm fit, to evaluate what the parent offers. for children: not in warm, the outer "
        "Hessian that is stored.",
    )
    heads = ("data", "change", "cold", "warm", "cold / warm", "offers", "for children", "evaluations", "from", "gap")
    for head in heads:
        table.add_column(head, justify="left" if head in ("data", "change", "from") else "right", no_wrap=True)
    for case in cases:
        count = f"{case['cold evaluations']}, {case['warm evaluations']}"
        ratio = f"{case['cold'] / max(case['warm'], 1):.2f}{'' if is_bounded(case) else ' !'}"
        parts = (case["cold"], case["warm"], ratio, case["offers"], case["for children"], count)
        same = f"{case['gap']:.0e}{'' if abs(case['gap']) <= SAME else ' !'}"
        table.add_row(case["data"], case["change"], *map(str, parts), case["continued from"], same)
    return table


def kind_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Return a row per kind of change, and one for all."""
    table = Table(title=f"by kind; goal on average ≥ {GOAL:g}, never above cold and offers")
    for head in ("change", "cases", "cold / warm", "sum of cold, warm", "above cold", "above cold and offers"):
        table.add_column(head, justify="left" if head == "change" else "right", no_wrap=True)
    kinds = list(dict.fromkeys(case["kind"] for case in cases))
    for kind in (*kinds, "all"):
        own = [case for case in cases if kind in ("all", case["kind"])]
        sums = f"{sum(case['cold'] for case in own)}, {sum(case['warm'] for case in own)}"
        above = sum(case["warm"] > case["cold"] for case in own)
        table.add_row(
            kind, str(len(own)), f"{gain(own):.2f}", sums, str(above), str(sum(not is_bounded(c) for c in own))
        )
    return table
