"""What the adapters save: each tool alone and with a store, fold by fold and by turns.

CPU time with a store holds all of it: naming, look-up, guard, fit, keeping.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.adapters_data import Answer, Tool, chosen
from benchmarks.store import machine

KINDS = ("cold", "warm", "again")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--tools", default="", metavar="NAMES", help="names of tools, by commas (default: all)")
    parser.add_argument("--folds", type=int, help="at most so many folds of each (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def measure(tool: Tool, folds: int | None, repeats: int) -> dict[str, Any]:
    """Fit all rows with a store, then each fold alone, with the store, and again."""
    masks, fit = tool.make()
    masks = masks[: None if folds is None else folds + 1]
    seconds: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    answers: dict[str, list[Answer]] = {}
    fit(masks[0], None)  # what the first call of a library loads
    for _ in range(repeats):
        with (
            tempfile.TemporaryDirectory(prefix="gamwarm-bench-") as folder,
            gamwarm.open(Path(folder) / "fits.h5", on_error="raise") as store,
        ):
            fit(masks[0], store)
            took: dict[str, list[float]] = {kind: [] for kind in KINDS}
            answers = {kind: [] for kind in KINDS}
            for rows in masks[1:]:
                for kind in KINDS:
                    answer, cpu = _timed(lambda rows=rows, kind=kind: fit(rows, None if kind == "cold" else store))
                    answers[kind].append(answer)
                    took[kind].append(cpu)
        for kind in KINDS:
            seconds[kind].append(took[kind])
    figures: dict[str, Any] = {"what": tool.what, "lines": tool.lines, "folds": len(masks) - 1}
    for kind in KINDS:
        every = answers[kind]
        figures[kind] = {
            "iterations": statistics.mean(each.iterations for each in every),
            "evaluations": statistics.mean(each.evaluations for each in every),
            "cpu": statistics.mean(statistics.median(times) for times in zip(*seconds[kind], strict=True)),
            "converged": sum(each.converged for each in every),
        }
    gaps = [
        (warm.objective - cold.objective) / (1.0 + abs(cold.objective))
        for cold, warm in zip(answers["cold"], answers["warm"], strict=True)
    ]
    figures["worse by"], figures["better by"] = max(0.0, *gaps), max(0.0, *(-gap for gap in gaps))
    return figures


def _timed(act: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.process_time()
    answer = act()
    return answer, time.process_time() - began


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=160)
    rows: dict[str, Any] = {}
    for tool in chosen(arguments.tools):
        rows[tool.name] = measure(tool, arguments.folds, arguments.repeats)
        console.print(f"{tool.name}: {rows[tool.name]['folds']} folds", style="dim")
    console.print(_table(rows))
    if arguments.json is not None:
        report = {"machine": machine(Path(tempfile.gettempdir())), "repeats": arguments.repeats, "tools": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _table(rows: dict[str, Any]) -> Table:
    table = Table(title="A fold: alone, with a store, and the same again; CPU with the layer's own cost")
    for column in ("tool", "lines", "folds", "iterations", "evaluations", "CPU, ms", "gain", "again", "warm worse by"):
        table.add_column(column, justify="left" if column == "tool" else "right")
    for row in rows.values():
        cold, warm, again = (row[kind] for kind in KINDS)
        table.add_row(
            row["what"],
            str(row["lines"]),
            str(row["folds"]),
            _arrows(row, "iterations", ".1f"),
            _arrows(row, "evaluations", ".1f"),
            " → ".join(f"{1e3 * row[kind]['cpu']:.3g}" for kind in KINDS),
            f"{cold['cpu'] / warm['cpu']:.2g}×",
            f"{cold['cpu'] / again['cpu']:.2g}×",
            f"{row['worse by']:.1g}",
        )
    return table


def _arrows(row: dict[str, Any], count: str, form: str) -> str:
    return " → ".join(format(row[kind][count], form) for kind in KINDS)
