"""What the layer costs in files of different sizes: look-ups, keeps, a long campaign, work on the
whole file; beside sqlite3.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.store import machine
from gamwarm import (
    BlockwiseFitOptions,
    Cost,
    Curvature,
    DensePenalty,
    FitProblem,
    FitResult,
    Gauge,
    InnerMode,
    ParameterBlockSpec,
)

SIZES = (100, 1_000, 10_000)
LARGE = 100_000
WHOLE = (1_000, 4_000, 16_000)
MOST_GROWTH = 1.5
"""A cost may be so many times that in the smallest file."""
ROUNDS = 50
BATCH = 1_000
"""Fits per transaction while a file is filled."""
JOBS = ("named artifact", "named record", "strict", "structural", "partial", "keep")
LEVELS = 40

Seconds = dict[str, float]


class _Family:
    family_kind = "bench.growth"

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def persistent_warm_start_fingerprint(self, specs: Any, options: Any) -> str:
        return self.fingerprint


def problem_of(number: int, levels: int = LEVELS - 1, *, more: bool = False) -> FitProblem:
    """Return a fit of a smooth and a factor, named by its number.

    Another number of ``levels`` is another strict key; ``more``: with another smooth, so that only
    single terms are those of the others.
    """
    rows = np.ones((1, LEVELS))
    widths = [6, levels, *([5] if more else [])]
    specs = [
        ParameterBlockSpec(name, rows[:, :width], penalties=[DensePenalty(np.eye(width))], nullspace_dims=[0])
        for name, width in zip(("mean s(x)", "mean factor", "mean s(z)"), widths, strict=False)
    ]
    lifts = [np.eye(6), np.eye(LEVELS)[:, :levels], *([np.eye(5)] if more else [])]
    return FitProblem(
        _Family(f"y:{number}"),
        specs,
        BlockwiseFitOptions(rho_bound=10.0),
        engine="bench",
        engine_version="1",
        gauge=Gauge.from_blocks(lifts),
    )


def result_of(problem: FitProblem, value: float) -> FitResult:
    """Return a converged result."""
    q = problem.layout.n_outer
    return FitResult(
        rho=np.linspace(0.5, 1.5, q),
        block_beta=[value * np.arange(1.0, width + 1) for width in problem.block_dims],
        objective=value,
        converged=True,
        inner=InnerMode(-value, 0.5, 4, True, np.zeros(len(problem.specs)), np.zeros(len(problem.specs))),
        curvature=Curvature(np.zeros(q), np.eye(q), np.ones(q), np.zeros(q, dtype=bool), np.ones(q, dtype=bool)),
        cost=Cost(7, 5, 20, 25, seconds=0.1),
    )


def named(problem: FitProblem) -> FitProblem:
    """Return a fit whose names are known: what they cost does not depend on the file."""
    _ = problem.key, problem.descriptor.key, problem.structural_key
    return problem


class Gamwarm:
    """The public store."""

    def __init__(self, path: Path) -> None:
        self.store = gamwarm.open(path, engine="bench", engine_version="1", on_error="raise")
        self.parent = self.record = ""
        self._last: Any = None

    def fill(self, numbers: range) -> None:
        for first in range(numbers.start, numbers.stop, BATCH):
            with self.store.transaction():
                for number in range(first, min(first + BATCH, numbers.stop)):
                    self.keep(named(problem_of(number)), number)
        self.parent = self.parent or self._last.artifact.entry_id
        self.record = self.record or self._last.record.entry_id

    def keep(self, problem: FitProblem, number: int) -> None:
        self._last = self.store.keep(problem, result_of(problem, 1.0 + number))

    def find(self, job: str, problem: FitProblem) -> None:
        parent = {"named artifact": self.parent, "named record": self.record}.get(job)
        if self.store.start_for(problem, parent=parent).source != "transfer":
            raise SystemExit(f"{job}: no parent was found")

    def close(self) -> None:
        self.store.close()


class Sqlite:
    """The same with tables of pickles: WAL, FULL, an index on every key that is asked for."""

    def __init__(self, path: Path) -> None:
        self.parent = self.record = ""
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS fits (id INTEGER PRIMARY KEY, key TEXT UNIQUE, strict TEXT, structural TEXT,"
            " term TEXT, rows INTEGER, record BLOB, artifact BLOB)"
        )
        for name in ("strict", "structural", "term"):
            self.db.execute(f"CREATE INDEX IF NOT EXISTS by_{name} ON fits ({name}, rows, id)")

    def fill(self, numbers: range) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for number in numbers:
            self.keep(named(problem_of(number)), number)
        self.db.execute("COMMIT")

    def keep(self, problem: FitProblem, number: int) -> None:
        result = result_of(problem, 1.0 + number)
        entries = pickle.dumps(result, 5), pickle.dumps(result, 5)
        names = problem.key, problem.descriptor.key, problem.structural_key, problem.block_names[0]
        self.db.execute(
            "INSERT OR REPLACE INTO fits (key, strict, structural, term, rows, record, artifact)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*names, problem.n_rows, *entries),
        )

    def find(self, job: str, problem: FitProblem) -> None:
        exact = self.db.execute("SELECT record FROM fits WHERE key=?", (problem.key,)).fetchone()
        column, value = {
            "strict": ("strict", problem.descriptor.key),
            "structural": ("structural", problem.structural_key),
            "partial": ("term", problem.block_names[0]),
        }.get(job, ("id", 1))
        query = f"SELECT artifact FROM fits WHERE {column}=? ORDER BY rows DESC, id DESC LIMIT 1"
        found = self.db.execute(query, (value,)).fetchone()
        if exact is not None or found is None or not pickle.loads(found[0]).converged:
            raise SystemExit(f"{job}: no parent was found")

    def close(self) -> None:
        self.db.close()


STORES = {"gamwarm": Gamwarm, "sqlite3": Sqlite}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", default=SIZES, help="fits in the files")
    parser.add_argument("--large", action="store_true", help=f"also a file of {LARGE} fits")
    parser.add_argument("--whole", type=int, nargs="*", metavar="N", default=WHOLE, help="fits, for whole-file work")
    parser.add_argument("--folds", type=int, metavar="N", default=10_000, help="folds of the campaign; 0: none")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def cpu_of(act: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    started = time.process_time()
    act()
    return time.process_time() - started


def growth(folder: Path, sizes: list[int]) -> dict[str, dict[int, Seconds]]:
    """Return mean CPU seconds of each job, by store and size: files of all sizes by turns, since a
    busy machine is slower at one time than at another.

    Means: every sixteenth `keep` of two entries also moves ids of earlier ones.
    """
    files = {name: _filled(folder, name, sorted(sizes)) for name in STORES}
    stores = {(name, size): store for name, by_size in files.items() for size, store in by_size.items()}
    seconds: dict[tuple[str, int], dict[str, list[float]]] = {which: {job: [] for job in JOBS} for which in stores}
    others = count(-1, -1)
    for number in range(ROUNDS):
        for which, store in stores.items():
            for job, took in seconds[which].items():
                problem = named(_asked(job, next(others)))
                took.append(cpu_of(partial(_do, store, job, problem, number)))
    for store in stores.values():
        store.close()
    found: dict[str, dict[int, Seconds]] = {name: {} for name in STORES}
    for (name, size), by_job in seconds.items():
        found[name][size] = {job: statistics.fmean(took[2:]) for job, took in by_job.items()}
    return found


def _filled(folder: Path, name: str, sizes: list[int]) -> dict[int, Any]:
    """Return stores of these sizes: one that grows is copied at each."""
    growing, filled, stores = folder / name, 0, {}
    for size in sizes:
        store: Any = STORES[name](growing)
        store.fill(range(filled, size))
        store.close()
        filled = size
        shutil.copyfile(growing, folder / f"{name}.{size}")
        copy: Any = STORES[name](folder / f"{name}.{size}")
        first = next(iter(stores.values()), store)
        copy.parent, copy.record = first.parent, first.record
        stores[size] = copy
    growing.unlink()
    return stores


def _do(store: Gamwarm | Sqlite, job: str, problem: FitProblem, number: int) -> None:
    if job == "keep":
        store.keep(problem, number)
    else:
        store.find(job, problem)


def _asked(job: str, number: int) -> FitProblem:
    if job == "structural":
        return problem_of(number, LEVELS - 2)
    return problem_of(number, more=job == "partial")


def campaign(folder: Path, folds: int) -> dict[str, Seconds]:
    """Return mean CPU seconds of the first and last thousand folds of a campaign, by store."""
    found = {}
    for name, kind in STORES.items():
        store: Any = kind(folder / f"campaign.{name}")
        store.fill(range(1))
        took = []
        for number in range(1, folds + 1):
            problem = named(problem_of(number))
            took.append(sum(cpu_of(partial(_do, store, job, problem, number)) for job in ("named artifact", "keep")))
        store.close()
        part = min(1_000, max(1, folds // 2))
        found[name] = {"first": statistics.fmean(took[:part]), "last": statistics.fmean(took[-part:])}
    return found


def whole_file(folder: Path, sizes: list[int]) -> dict[int, Seconds]:
    """Return CPU seconds per entry of what reads or changes a whole file."""
    found: dict[int, Seconds] = {}
    for size in sorted(sizes):
        store = Gamwarm(folder / f"whole.{size}")
        store.fill(range(size))
        other = gamwarm.open(folder / f"merged.{size}", on_error="raise")
        live = store.store.evict(dry_run=True).bytes_before
        acts: dict[str, Callable[[], object]] = {
            "frozen": store.store.frozen,
            "verify": store.store.verify,
            "merge": partial(other.merge, store.store.path),
            "evict a hundredth": partial(store.store.evict, live - live // 100),
            "evict half": partial(store.store.evict, live // 2),
        }
        found[size] = {name: cpu_of(act) / (2 * size) for name, act in acts.items()}
        other.close()
        store.close()
    return found


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    sizes = [*arguments.sizes, *([LARGE] if arguments.large else [])]
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    try:
        figures: dict[str, Any] = {"machine": machine(folder)}
        figures["jobs"] = growth(folder, sizes)
        console.print(jobs_table(figures["jobs"]))
        if arguments.folds:
            figures["campaign"] = campaign(folder, arguments.folds)
            console.print(campaign_table(figures["campaign"], arguments.folds))
        if arguments.whole:
            figures["whole file"] = whole_file(folder, arguments.whole)
            console.print(whole_table(figures["whole file"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def jobs_table(found: dict[str, dict[int, Seconds]]) -> Table:
    """Return the costs by size, and their growth."""
    table = Table(
        title="CPU ms of one call, by the number of fits in the file",
        caption="Names of fits are not included. sqlite3 finds and unpickles; gamwarm also builds the start.",
    )
    for head in ("store", "job", *(f"{size:,}" for size in found["gamwarm"]), "growth", ""):
        table.add_column(head, justify="left" if head in ("store", "job", "") else "right", no_wrap=True)
    for name, by_size in found.items():
        for job in JOBS:
            costs = [seconds[job] for seconds in by_size.values()]
            ratio = max(costs) / costs[0]
            verdict = "" if name != "gamwarm" else "met" if ratio <= MOST_GROWTH else "[bold]missed[/bold]"
            table.add_row(name, job, *(f"{1e3 * cost:.2f}" for cost in costs), f"{ratio:.2f}", verdict)
    return table


def campaign_table(found: dict[str, Seconds], folds: int) -> Table:
    """Return what a fold costs at the beginning and at the end."""
    table = Table(title=f"CPU ms of a fold (start_for and keep) in a campaign of {folds:,}")
    for head in ("store", "first thousand", "last thousand", "growth"):
        table.add_column(head, justify="left" if head == "store" else "right")
    for name, cost in found.items():
        first, last = cost["first"], cost["last"]
        table.add_row(name, f"{1e3 * first:.2f}", f"{1e3 * last:.2f}", f"{last / first:.2f}")
    return table


def whole_table(found: dict[int, Seconds]) -> Table:
    """Return what work on the whole file costs per entry."""
    table = Table(title="CPU ms per entry of the file, by the number of fits (a record and an artifact each)")
    table.add_column("work")
    for size in found:
        table.add_column(f"{size:,}", justify="right")
    for work in next(iter(found.values())):
        table.add_row(work, *(f"{1e3 * seconds[work]:.3f}" for seconds in found.values()))
    return table
