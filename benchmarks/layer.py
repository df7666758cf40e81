"""What the layer costs beside the fit that it speeds up: CPU time of each of its parts, fold by
fold, one process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.loso import OPTIONS, Bench, picked
from benchmarks.loso_data import DATA_SETS
from benchmarks.store import machine
from gamwarm import StartGuard, engine
from gamwarm.encoding import codec
from gamwarm.engine.driver import CaseObjective
from gamwarm.storage.vfs import DISK
from gamwarm.store import lookup

GOALS = {"mcycle": 1.0, "kostecki": 0.4, "remifentanil": 0.4, "birthdays": 0.1, "flights": 0.06}
"""Layer by warm fit, at most."""

PARTS = ("describe", "name", "look up", "decode", "start", "encode", "write", "sync")
"""What the layer does, in this order; each without those that it calls."""

ALL = (*PARTS, "rows", "fit", "guard", "road", "cold")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--data", default=",".join(GOALS), help="names, by commas (default: %(default)s)")
    parser.add_argument("--folds", type=int, metavar="N", help="at most N folds per data set, spread over their sizes")
    parser.add_argument("--no-cold", action="store_true", help="leave the cold fits out")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


class Stopwatch:
    """CPU seconds by part. A part that begins inside of another interrupts it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _turn(self) -> None:
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """What runs inside is of this part."""
        self._turn()
        self._running.append(part)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def around(self, part: str, act: Callable[..., Any], inside: str = "") -> Callable[..., Any]:
        """Return ``act``, timed; with ``inside``, only where that part runs."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if inside and inside not in self._running:
                return act(*args, **kwargs)
            with self.of(part):
                return act(*args, **kwargs)

        return timed


@contextmanager
def _watched(watch: Stopwatch) -> Iterator[None]:
    """While it lasts, the layer's inner functions are timed, wherever they are called from."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, value)

    for part, function in (("decode", codec.decode), ("encode", codec.encode), ("start", lookup.start_from)):
        timed = watch.around(part, function)
        for module in [m for n, m in sys.modules.items() if n.partition(".")[0] == "gamwarm"]:
            for name in [n for n, value in vars(module).items() if value is function]:
                put(module, name, timed)
    for name in ("fdatasync", "fsync_dir"):
        put(DISK, name, watch.around("sync", getattr(DISK, name)))
    put(StartGuard, "admit", watch.around("guard", StartGuard.admit))
    put(CaseObjective, "evaluate", watch.around("fit", CaseObjective.evaluate, inside="guard"))
    try:
        yield
    finally:
        for owner, name, value in reversed(undo):
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def measure(bench: Bench, folder: Path, *, cold: bool) -> list[dict[str, float]]:
    """Return the CPU seconds of each fold: rows picked, each part of the layer, the warm fit, its
    guard, the cold fit.

    ``road`` is all of a warm fold, once more and in another file, as `engine.fit` with a store does
    it.
    """
    first = folder / f"{bench.data.name}.gamwarm"
    with _opened(first) as store:
        parent = engine.fit(bench.bound.case(), options=OPTIONS, store=store, group_seeds=bench.data.group)
    entry = parent.kept.artifact.entry_id
    stores = []
    with ExitStack() as stack:
        for name in ("warm-up", "layer", "road"):
            shutil.copyfile(first, folder / f"{bench.data.name}.{name}")
            stores.append(stack.enter_context(_opened(folder / f"{bench.data.name}.{name}")))
        _fold(bench, bench.labels[-1], stores[0], entry)  # what is done for the first time, imports included
        found = []
        for label in bench.labels:
            seconds = _fold(bench, label, stores[1], entry)
            case = bench.fold(label, warm=True)
            watch = Stopwatch()
            with watch.of("road"):
                engine.fit(case, options=OPTIONS, store=stores[2], parent=entry, leave_out=label)
            if cold:
                case = picked(bench.fold(label, warm=False))
                with watch.of("cold"):
                    engine.fit(case, options=OPTIONS)
            found.append({**seconds, **watch.seconds})
    return found


def _opened(path: Path) -> Any:
    return gamwarm.open(path, engine=engine.ENGINE, engine_version=gamwarm.__version__, on_error="raise")


def _fold(bench: Bench, label: Any, store: Any, entry: str) -> dict[str, float]:
    watch = Stopwatch()
    with _watched(watch):
        case = bench.fold(label, warm=True)
        with watch.of("rows"):
            picked(case)
        with watch.of("describe"):
            problem = case.problem(OPTIONS)
        with watch.of("name"):
            _ = problem.key, problem.descriptor.key, problem.structural_key
        with watch.of("look up"):
            report = store.start_for(problem, entry, label)
        with watch.of("fit"):
            warm = engine.fit(case, options=OPTIONS, start=report.start)
        with watch.of("write"):
            kept = store.keep(problem, warm.result, report)
    if not (warm.converged and report.source == "transfer" and kept.artifact.written):
        raise SystemExit(f"{bench.data.name} without {label}: {report}, {warm.reason}, {kept}")
    return watch.seconds


def figures_of(bench: Bench, folds: list[dict[str, float]]) -> dict[str, Any]:
    """Return means per fold and the ratios of a data set."""
    means = {part: statistics.fmean(fold.get(part, 0.0) for fold in folds) for part in ALL}
    warm = means["fit"] + means["guard"]
    layer = sum(means[part] for part in PARTS)
    cold = means["cold"] or float("nan")
    goal = GOALS.get(bench.data.name, float("nan"))
    return {
        "data": bench.data.name,
        "rows": bench.bound.n,
        "folds": len(folds),
        "seconds per fold": {**means, "warm fit": warm, "layer": layer},
        "layer / warm": layer / warm,
        "goal": goal,
        "cold / warm": cold / warm,
        "cold / (warm + layer)": cold / (warm + layer),
        "each fold": folds,
    }


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=150)
    names = [name for name in arguments.data.split(",") if name]
    unknown = [name for name in names if name not in DATA_SETS]
    if unknown:
        raise SystemExit(f"no data set {unknown}; there are {', '.join(DATA_SETS)}")
    figures = []
    with tempfile.TemporaryDirectory(prefix="gamwarm-bench-", dir=arguments.folder) as folder:
        where = machine(Path(folder))
        for name in names:
            bench = Bench(DATA_SETS[name], arguments.folds, None, console)
            figures.append(figures_of(bench, measure(bench, Path(folder), cold=not arguments.no_cold)))
            if arguments.json is not None:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps({"machine": where, "data": figures}, indent=1) + "\n")
    console.print(parts_table(figures, where))
    console.print(ratios_table(figures))


def parts_table(figures: list[dict[str, Any]], where: dict[str, Any]) -> Table:
    """Return CPU milliseconds per fold."""
    table = Table(
        title=f"CPU ms of a warm fold, one process; {where['date']}, {where['cores']} × {where['processor']}",
        caption="guard: of the warm fit, what is evaluated for the guard alone. road: all of it again, by engine.fit "
        "with a store, rows included. rows: picking them, in no sum, since every fit does it.",
    )
    heads = ("data", "folds", "rows", *PARTS, "layer", "warm fit", "guard", "road", "cold fit")
    for head in heads:
        table.add_column(head, justify="left" if head == "data" else "right", no_wrap=True)
    for f in figures:
        ms = {part: f"{1e3 * seconds:.2f}" for part, seconds in f["seconds per fold"].items()}
        ms["cold fit"] = ms["cold"] if f["seconds per fold"]["cold"] else "-"
        table.add_row(f["data"], str(f["folds"]), *(ms[head] for head in heads[2:]))
    return table


def ratios_table(figures: list[dict[str, Any]]) -> Table:
    """Return what the layer costs and what is left of the gain."""
    table = Table(title="means over the folds; the cold fit is the engine's own")
    heads = ("data", "cold / warm", "cold / (warm + layer)", "layer / warm", "goal", "")
    for head in heads:
        table.add_column(head, justify="left" if head in ("data", "") else "right", no_wrap=True)
    for f in figures:
        verdict = "" if f["goal"] != f["goal"] else "met" if f["layer / warm"] <= f["goal"] else "[bold]missed[/bold]"
        ratios = (f"{f[head]:.2f}" for head in heads[1:4])
        table.add_row(f["data"], *ratios, f"≤ {f['goal']:g}" if verdict else "", verdict)
    return table
