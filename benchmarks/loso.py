"""Leave one group out, cold and warm: what a warm start saves, and that it never changes the
answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.loso_data import DATA_SETS, DataSet
from benchmarks.loso_terms import TERM_SETS
from benchmarks.picture import draw
from benchmarks.store import machine
from gamwarm import ConstrainedWarmStart, engine
from gamwarm.engine.laml import Laml

STARTS = ("heuristic", "zero", "fellner-schall")
OPTIONS = gamwarm.BlockwiseFitOptions()
SAME = 1e-3
QUICK = ("mcycle", "kostecki", "remifentanil")
QUICK_FOLDS = 8
LARGE_ROWS = 50_000
RESUME_TARGET = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--data", default=",".join(DATA_SETS), help="names, by commas (default: %(default)s)")
    parser.add_argument("--terms", action="store_true", help=f"{', '.join(TERM_SETS)} instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there; plots beside it")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables of docs/gains.md there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the SVG picture of docs/index.md there")
    parser.add_argument("--folds", type=int, metavar="N", help="at most N folds per data set, spread over their sizes")
    parser.add_argument("--repeats", type=int, metavar="N", help="timed runs per fit, the median counts (3; large: 1)")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} with {QUICK_FOLDS} folds each")


@dataclass
class Arm:
    """One way to fit every fold: counts and CPU seconds per fold, medians of the repeats."""

    evaluations: list[int] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    formations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)

    def add(self, fit: engine.EngineFit, seconds: float) -> None:
        """Count one fold's fit."""
        self.evaluations.append(fit.cost.evaluations)
        self.outer.append(fit.cost.outer_iterations)
        self.inner.append(fit.cost.inner_iterations)
        self.formations.append(fit.cost.hessian_formations)
        self.seconds.append(seconds)
        self.objective.append(float(fit.result.objective))

    def means(self) -> dict[str, float]:
        """Per fold."""
        return {
            name: statistics.fmean(getattr(self, name))
            for name in ("outer", "evaluations", "inner", "formations", "seconds")
        }


def timed(make: Callable[[], engine.Case], repeats: int, **how: Any) -> tuple[engine.EngineFit, float]:
    """Fit a fresh case some times; return the last fit and the median CPU seconds of the fit
    alone.
    """
    seconds = []
    for _ in range(repeats):
        case = picked(make())
        if case.left_out is not None:
            case.bound.group_moments(case.left_out[0])
        before = time.process_time()
        fit = engine.fit(case, options=OPTIONS, **how)
        seconds.append(time.process_time() - before)
    return fit, statistics.median(seconds)


def picked(case: engine.Case) -> engine.Case:
    """Return a case whose rows are picked, as any fit needs them but a subtraction."""
    if case.left_out is None:
        _ = case.y, case.w, case.offset, case.groups
    return case


class plain_inner:  # noqa: N801 - used as a function
    """While it lasts, inner solves are plain Newton: one Hessian formation per step."""

    def __enter__(self) -> None:
        Laml.reuse = False

    def __exit__(self, *error: object) -> None:
        Laml.reuse = True


def largest(a: Sequence[float]) -> float:
    """Return the largest of some numbers, 0 of none."""
    return max(a, default=0.0)


class Bench:
    """One data set."""

    def __init__(self, data: DataSet, folds: int | None, repeats: int | None, console: Console) -> None:
        self.data, self.console = data, console
        columns = data.load()
        self.bound = engine.bind(columns, data.terms, data.family)
        self.columns = columns
        self.is_large = self.bound.n > LARGE_ROWS
        self.repeats = repeats or (1 if self.is_large else 3)
        self.groups = np.asarray(columns[data.group])
        names, sizes = np.unique(self.groups, return_counts=True)
        order = np.argsort(-sizes, kind="stable")
        wanted = folds or data.folds or len(names)
        if wanted < len(names):
            order = order[np.unique(np.linspace(0, len(names) - 1, wanted).round().astype(int))]
        self.labels = [names[i] for i in order]
        self.is_gaussian = isinstance(data.family, engine.Gaussian)
        self.answered: list[Any] = []
        self.unanswered: list[str] = []

    def lacks_an_answer(self, label: Any, **arms: engine.EngineFit) -> bool:
        """Whether a fit of a fold has no answer; it is listed then, and the fold counts in no
        arm.
        """
        found = [f"without {label}, {arm}: {fit.reason}" for arm, fit in arms.items() if not fit.converged]
        self.unanswered += found
        return bool(found)

    def fold(self, label: Any, *, warm: bool) -> engine.Case:
        """Return a fresh case without one group; of a Gaussian model a warm one is a
        subtraction.
        """
        if warm and self.is_gaussian:
            return self.bound.without(self.data.group, label)
        return self.bound.case(self.groups != label)

    def run(self, folder: Path) -> dict[str, Any] | None:
        """Return everything that was measured; None where no fold has an answer from every
        start.
        """
        name = self.data.name
        self.cold = {start: Arm() for start in STARTS}
        self.plain = {start: Arm() for start in STARTS}
        self.warm, self.resume = Arm(), Arm()
        lookup, keeping, fitted_gap, objective_gap = [], [], [], []
        case = self.fold(self.labels[-1], warm=True)
        _ = case.problem(OPTIONS).key  # what is done for the first time, imports included
        better = other = 0
        path = folder / f"{name}.gamwarm"
        with gamwarm.open(path, engine=engine.ENGINE, engine_version=gamwarm.__version__, on_error="raise") as store:
            moments = None
            if self.is_gaussian:
                before = time.process_time()
                self.bound.group_moments(self.data.group)
                moments = time.process_time() - before
            parent = engine.fit(self.bound.case(), options=OPTIONS, store=store, group_seeds=self.data.group)
            if not parent.converged:
                self.unanswered.append(f"all rows: {parent.reason}")
                return None
            entry = parent.kept.artifact.entry_id
            for label in self.labels:
                if self.console.is_terminal:
                    self.console.print(f"{name}: without {label}      ", end="\r")
                colds = {s: timed(partial(self.fold, label, warm=False), self.repeats, cold_start=s) for s in STARTS}
                plains = {}
                if not self.is_gaussian:
                    with plain_inner():
                        plains = {
                            s: timed(partial(self.fold, label, warm=False), self.repeats, cold_start=s) for s in STARTS
                        }
                case = picked(self.fold(label, warm=True))
                before = time.process_time()
                problem = case.problem(OPTIONS)
                report = store.start_for(problem, entry, label)
                looked_up = time.process_time() - before
                assert report.seeds == "used", report
                warm, seconds = timed(partial(self.fold, label, warm=True), self.repeats, start=report.start)
                arms = {f"cold, {s}": fit for s, (fit, _) in colds.items()}
                arms |= {f"plain cold, {s}": fit for s, (fit, _) in plains.items()}
                if self.lacks_an_answer(label, **arms, warm=warm):
                    continue
                self.answered.append(label)
                for start in STARTS:
                    self.cold[start].add(*colds[start])
                    if plains:
                        self.plain[start].add(*plains[start])
                lookup.append(looked_up)
                self.warm.add(warm, seconds)
                before = time.process_time()
                store.keep(problem, warm.result, report)
                keeping.append(time.process_time() - before)
                again = store.start_for(problem)
                assert again.source == "exact"
                resumed, seconds = timed(partial(self.fold, label, warm=True), self.repeats, start=again.start)
                assert resumed.cost.outer_iterations == 0
                pairs = zip(warm.result.block_beta, resumed.result.block_beta, strict=True)
                assert all(np.array_equal(a, b) for a, b in pairs), "theta came back with other bits"
                self.resume.add(resumed, seconds)
                best = min((fit for fit, _ in colds.values()), key=lambda f: float(f.result.objective))
                gap = float(warm.result.objective) - float(best.result.objective)
                better += gap < -SAME
                other += gap > SAME
                objective_gap.append(gap)
                near = min(
                    (fit for fit, _ in colds.values()),
                    key=lambda f: abs(float(f.result.objective) - float(warm.result.objective)),
                )
                fitted_gap.append(
                    largest([float(np.abs(warm.fitted[p] - near.fitted[p]).max()) for p in self.data.family.predictors])
                )
            if not self.answered:
                return None
            rescue = self.rescue(store, entry)
        return self.summary(parent, lookup, keeping, fitted_gap, objective_gap, better, other, rescue, moments)

    def rescue(self, store: Any, entry: str) -> list[dict[str, Any]]:
        """Start from corrupted offers; return what each ended in and cost."""
        reversed_columns = {**self.columns, self.data.family.response: self.columns[self.data.family.response][::-1]}
        other = engine.fit(
            engine.bind(reversed_columns, self.data.terms, self.data.family).case(), options=OPTIONS
        ).result
        labels = self.answered[:: max(1, len(self.answered) // 4)][: 2 if self.is_large else 4]
        rng = np.random.default_rng(1)
        out = []
        for label in labels:
            place = self.answered.index(label)
            known = [arm.objective[place] for arm in (*self.cold.values(), *self.plain.values()) if arm.objective]
            best, worst = min(known), max(known)
            start = store.start_for(self.fold(label, warm=True).problem(OPTIONS), entry, label).start
            rho, beta, metric = np.array(start.rho), [np.array(b) for b in start.block_beta], start.curvature
            starts: dict[str, tuple[Any, Any]] = {}
            for j in range(rho.size):
                for sign in (6.0, -6.0):
                    starts[f"rho[{j}]{sign:+.0f}"] = (rho + sign * np.eye(rho.size)[j], beta)
            starts["rho permuted"] = (np.roll(rho, 1), beta)
            starts["all rho 14"] = (np.full_like(rho, 14.0), beta)
            starts["beta negated"] = (rho, [-b for b in beta])
            starts["beta x5"] = (rho, [5.0 * b for b in beta])
            starts["beta noise"] = (rho, [b + rng.normal(0.0, 3.0, b.shape) for b in beta])
            starts["beta NaN"] = (rho, [np.full_like(b, np.nan) for b in beta])
            elsewhere = [b[: len(a)] for a, b in zip(beta, other.block_beta, strict=True)]
            starts["another model"] = (other.rho, elsewhere)
            for what, (r, b) in starts.items():
                fit, seconds = timed(
                    partial(self.fold, label, warm=True), 1, start=ConstrainedWarmStart(r, b, curvature=metric)
                )
                gap = float(fit.result.objective) - best
                verdict = (
                    "same" if gap <= SAME else "a cold start's mode" if gap <= worst - best + SAME else "other mode"
                )
                if gap < -SAME:
                    verdict = "better"
                if not fit.converged:
                    verdict = "not converged"
                out.append(
                    {"group": str(label), "start": what, "verdict": verdict, "gap": gap,
                     "formations": fit.cost.hessian_formations, "seconds": seconds}
                )  # fmt: skip
        return out

    def summary(
        self,
        parent: engine.EngineFit,
        lookup: list[float],
        keeping: list[float],
        fitted_gap: list[float],
        objective_gap: list[float],
        better: int,
        other: int,
        rescue: list[dict[str, Any]],
        moments: float | None,
    ) -> dict[str, Any]:
        """Put the figures of a data set together."""

        def ratio(arms: dict[str, Arm], what: str, arm: Arm, more: float = 0.0) -> float:
            mine = sum(getattr(arm, what)) + more
            totals = [sum(getattr(a, what)) for a in arms.values() if getattr(a, what)]
            return min(totals) / mine if mine and totals else float("nan")

        usual = {"heuristic": self.cold["heuristic"]}
        against = self.cold if self.is_gaussian else self.plain
        targets = self.data.targets
        layer = sum(lookup) + sum(keeping)
        ratios = {
            "time with the layer": ratio(self.cold, "seconds", self.warm, layer),
            "formations": ratio(against, "formations", self.warm),
            "time": ratio(against, "seconds", self.warm),
            "formations, better cold": ratio(self.cold, "formations", self.warm),
            "time, better cold": ratio(self.cold, "seconds", self.warm),
            "formations, mgcv-like cold": ratio(usual, "formations", self.warm),
            "time, mgcv-like cold": ratio(usual, "seconds", self.warm),
            "exact resume, time": ratio(against, "seconds", self.resume),
            "exact resume, formations": ratio(against, "formations", self.resume),
        }
        costs = [r["formations"] for r in rescue]
        return {
            "data": self.data.name,
            "what": self.data.what,
            "rows": self.bound.n,
            "coefficients": sum(parent.result.block_beta[i].size for i in range(len(parent.result.block_beta))),
            "smoothing parameters": len(parent.result.rho),
            "folds": len(self.answered),
            "folds without an answer": self.unanswered,
            "groups": len(np.unique(self.groups)),
            "repeats": self.repeats,
            "targets": {"formations": targets[0], "time": targets[1], "exact resume, time": RESUME_TARGET},
            "ratios": ratios,
            "means per fold": {
                **{f"cold, {start}": arm.means() for start, arm in self.cold.items()},
                **{f"plain cold, {start}": arm.means() for start, arm in self.plain.items() if arm.seconds},
                "warm": self.warm.means(),
                "exact resume": self.resume.means(),
            },
            "look-up seconds": statistics.fmean(lookup),
            "keeping seconds": statistics.fmean(keeping),
            "parent": {"formations": parent.cost.hessian_formations, "seconds": parent.cost.seconds},
            "group seeds": {"formations": parent.seeds.hessian_formations, "seconds": parent.seeds.seconds},
            "group moments seconds": moments,
            "largest objective gap": largest([abs(g) for g in objective_gap if abs(g) <= SAME]),
            "largest fitted gap": largest(fitted_gap),
            "folds where warm is better": better,
            "folds where warm is in another mode": other,
            "rescue": {
                "starts": len(rescue),
                "verdicts": {v: sum(r["verdict"] == v for r in rescue) for v in sorted({r["verdict"] for r in rescue})},
                "mean formations": statistics.fmean(costs),
                "most formations": max(costs),
                "each": rescue,
            },
            "per fold": {
                "labels": [str(label) for label in self.answered],
                "warm formations": self.warm.formations,
                "warm seconds": self.warm.seconds,
                **{f"cold formations, {s}": a.formations for s, a in self.cold.items()},
                **{f"cold seconds, {s}": a.seconds for s, a in self.cold.items()},
            },
        }


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, write figures and plots where asked."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    sets = DATA_SETS | TERM_SETS
    names = QUICK if arguments.quick else tuple(n for n in arguments.data.split(",") if n)
    if arguments.terms:
        names = tuple(TERM_SETS)
    unknown = [n for n in names if n not in sets]
    if unknown:
        raise SystemExit(f"no data set {unknown}; there are {', '.join(sets)}")
    folds = arguments.folds or (QUICK_FOLDS if arguments.quick else None)
    figures, unanswered = [], []
    with tempfile.TemporaryDirectory(prefix="gamwarm-bench-") as folder:
        where = machine(Path(folder))
        for name in names:
            began = time.perf_counter()
            bench = Bench(sets[name], folds, arguments.repeats, console)
            figure = bench.run(Path(folder))
            console.print(f"{name}: {time.perf_counter() - began:.0f} s")
            unanswered += [f"{name}, {line}" for line in bench.unanswered]
            if figure is None:
                continue
            figures.append(figure)
            if arguments.json is not None:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps({"machine": where, "data": figures}, indent=1) + "\n")
                plot(figures[-1], arguments.json.with_name(f"{arguments.json.stem}-{name}.png"))
    console.print(gains_table(figures, where))
    console.print(cost_table(figures))
    console.print(safety_table(figures))
    if arguments.markdown is not None:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text(markdown(figures))
    if arguments.picture is not None:
        draw(figures, arguments.picture)
    for line in unanswered:
        console.print(line, markup=False, highlight=False)


def against(value: float, target: float) -> str:
    """Return a ratio and what was asked of it."""
    if np.isnan(value):
        return "-"
    return f"{value:.1f}" if np.isnan(target) else f"{value:.1f} {'≥' if value >= target else '<'} {target:g}"


def gains_table(figures: list[dict[str, Any]], where: dict[str, Any]) -> Table:
    """Return the ratios."""
    table = Table(
        title=f"cold ÷ warm, per fold; best of three cold starts; {where['processor']}, {where['cores']} cores",
        caption="H: formations of X'WX; time: CPU seconds of the fit alone; with the layer: warm fit, description, "
        "name, look-up and durable storage. 'plain': every inner step forms one; 'shipped': gamwarm.engine's own cold "
        "fit. Default options.",
    )
    for column in ("data", "folds", "time with the layer, shipped", "H, plain", "time, plain", "H, shipped",
                   "time, shipped", "H, mgcv-like", "time, mgcv-like", "resume, time"):  # fmt: skip
        table.add_column(column, justify="left" if column == "data" else "right")
    for f in figures:
        r, t = f["ratios"], f["targets"]
        table.add_row(
            f["data"], f"{f['folds']}/{f['groups']}", f"[bold]{r['time with the layer']:.2f}[/bold]",
            against(r["formations"], t["formations"]), against(r["time"], t["time"]),
            f"{r['formations, better cold']:.1f}", f"{r['time, better cold']:.1f}",
            f"{r['formations, mgcv-like cold']:.1f}", f"{r['time, mgcv-like cold']:.1f}",
            against(r["exact resume, time"], t["exact resume, time"]),
        )  # fmt: skip
    return table


def cost_table(figures: list[dict[str, Any]]) -> Table:
    """Return the means per fold behind the ratios."""
    table = Table(title="means per fold")
    for column in ("data", "arm", "outer", "evaluations", "inner", "formations", "ms"):
        table.add_column(column, justify="left" if column in ("data", "arm") else "right")
    for f in figures:
        for arm, m in f["means per fold"].items():
            table.add_row(
                f["data"], arm, *(f"{m[n]:.1f}" for n in ("outer", "evaluations", "inner", "formations")),
                f"{1e3 * m['seconds']:.1f}",
            )  # fmt: skip
        table.add_row(f["data"], "description, name and look-up; keeping", "", "", "", "",
                      f"{1e3 * f['look-up seconds']:.1f}, {1e3 * f['keeping seconds']:.1f}")  # fmt: skip
        seeds, moments = f["group seeds"], f["group moments seconds"]
        table.add_row(f["data"], f"seeds of all {f['groups']} groups, once", "", "", "", str(seeds["formations"]),
                      f"{1e3 * seeds['seconds']:.1f}")  # fmt: skip
        if moments is not None:
            table.add_row(
                f["data"], f"moments of all {f['groups']} groups, once", "", "", "", "", f"{1e3 * moments:.1f}"
            )
        table.add_section()
    return table


def safety_table(figures: list[dict[str, Any]]) -> Table:
    """Return how far answers differ, and what corrupted starts ended in."""
    table = Table(title="the answer does not move")
    for column in (
        "data",
        "objective gap",
        "fitted gap",
        "warm better",
        "other mode",
        "corrupted starts",
        "their cost",
    ):
        table.add_column(column, justify="left" if column in ("data", "corrupted starts") else "right")
    for f in figures:
        rescue = f["rescue"]
        table.add_row(
            f["data"], f"{f['largest objective gap']:.1e}", f"{f['largest fitted gap']:.1e}",
            str(f["folds where warm is better"]), str(f["folds where warm is in another mode"]),
            ", ".join(f"{n} {v}" for v, n in rescue["verdicts"].items()),
            f"{rescue['mean formations']:.0f} H, at most {rescue['most formations']}",
        )  # fmt: skip
    return table


def markdown(figures: list[dict[str, Any]]) -> str:
    """Return the tables of docs/gains.md."""

    def rows(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
        return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *cells)]

    def number(value: float, form: str = ".1f") -> str:
        return "-" if np.isnan(value) else f"{value:{form}}"

    gains, costs = [], []
    for f in figures:
        r, mean, rescue, seeds = f["ratios"], f["means per fold"]["warm"], f["rescue"], f["group seeds"]
        gains.append([
            f["what"], f"{f['folds']} of {f['groups']}", number(r["time with the layer"], ".2f"),
            *(number(r[name]) for name in (
                "time, better cold", "time", "formations, better cold", "formations", "time, mgcv-like cold",
                "formations, mgcv-like cold", "exact resume, time",
            )),
        ])  # fmt: skip
        once = f"{1e3 * seeds['seconds']:.0f}"
        if f["group moments seconds"] is not None:
            once += f", and {1e3 * f['group moments seconds']:.0f} for the moments"
        costs.append([
            f["data"], f"{mean['evaluations']:.1f}, {mean['formations']:.1f}, {1e3 * mean['seconds']:.1f}",
            f"{1e3 * f['look-up seconds']:.1f}, {1e3 * f['keeping seconds']:.1f}", once,
            f"{f['largest objective gap']:.0e}", f"{f['largest fitted gap']:.0e}",
            ", ".join(f"{n} {v}" for v, n in rescue["verdicts"].items())
            + f"; {rescue['mean formations']:.0f} H on average, at most {rescue['most formations']}",
        ])  # fmt: skip
    heads = [
        "data", "folds", "**time with the layer**", "time, shipped", "time, plain", "H, shipped", "H, plain",
        "time, mgcv-like", "H, mgcv-like", "exact resume, time",
    ]  # fmt: skip
    parts = [
        "data", "warm: evaluations, H, ms", "description, name and look-up; storage, ms",
        "seeds of all groups, once, ms", "largest objective gap", "largest fitted gap", "corrupted starts",
    ]  # fmt: skip
    return "\n".join([*rows(heads, gains), "", *rows(parts, costs), ""])


def plot(figure: dict[str, Any], path: Path) -> None:
    """Draw formations and time per fold, cold against warm."""
    import matplotlib  # noqa: PLC0415 - only where plots are wanted

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    fold = figure["per fold"]
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, what in zip(axes, ("formations", "seconds"), strict=True):
        order = np.argsort(fold[f"warm {what}"])
        for start in STARTS:
            axis.plot(np.array(fold[f"cold {what}, {start}"])[order], ".", label=f"cold, {start}", alpha=0.7)
        axis.plot(np.array(fold[f"warm {what}"])[order], ".", color="black", label="warm")
        axis.set(yscale="log", xlabel="folds, by the warm fit's cost")
        axis.set_ylabel("Hessian formations" if what == "formations" else "CPU seconds")
        if what == "formations":
            axis.set_yscale("symlog", linthresh=1.0)
    axes[0].legend()
    fig.suptitle(f"{figure['what']} ({figure['rows']:,} rows)")
    fig.savefig(path, dpi=120)
    plt.close(fig)
