"""What the demo prints and draws, within 80 columns."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import gamwarm
from gamwarm import engine
from gamwarm.demo.flights import LEAST_ROWS
from gamwarm.demo.job import COLD_STARTS, CarrierFit, best_cold
from gamwarm.demo.kept import ColdResults
from gamwarm.folds import Fold

__all__ = ["Compared", "print_plan", "print_results", "print_resumed"]

SAME_OBJECTIVE: Final = 1e-3
SECONDS: Final = (12.0, 0.45e-3)
"""CPU seconds of a run, at least, and per flight: as measured, rounded up."""


@dataclass(frozen=True)
class Compared:
    """One fold, cold and warm.

    Attributes
    ----------
    fold : Fold
    cold : tuple of CarrierFit
        From each of the starts.
    best : CarrierFit
        The cheapest of them.
    warm : CarrierFit
    gap, gap_to_lowest : float
        Largest difference of a linear predictor between warm and best cold, and between warm and
        the cold fit with the lowest objective, in standard deviations.
    """

    fold: Fold
    cold: tuple[CarrierFit, ...]
    best: CarrierFit
    warm: CarrierFit
    gap: float
    gap_to_lowest: float

    @classmethod
    def of(cls, bound: engine.Bound, fold: Fold, cold: Sequence[CarrierFit], warm: CarrierFit) -> Compared:
        """Evaluate the predictors of the fold's rows and compare."""
        case, best = bound.case(fold.rows), best_cold(cold)
        mine, others = case.predictors_at(warm.theta), (case.predictors_at(c.theta) for c in (best, _lowest(cold)))
        return cls(fold, tuple(cold), best, warm, *(_gap(np.concatenate(o), np.concatenate(mine)) for o in others))

    @property
    def lowest(self) -> CarrierFit:
        """The cold fit with the lowest objective."""
        return _lowest(self.cold)

    @property
    def is_exact(self) -> bool:
        """Whether the fold was in the file already: then its cost says nothing of warm starts."""
        return self.warm.source == "exact"


def _lowest(cold: Sequence[CarrierFit]) -> CarrierFit:
    return min(cold, key=lambda fit: (not fit.converged, fit.objective))


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(float(a.std()), 1e-300))


def print_plan(console: Console, rows: int, work: Sequence[Fold], ranks: int) -> None:
    """Say what is about to happen, and how long it takes."""
    seconds = (SECONDS[0] + SECONDS[1] * rows) / ranks
    length = f"{10 * math.ceil(seconds / 10)} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    console.print(
        f"[bold]gamwarm demo[/bold]: minutes gained in the air, {rows:,} flights, {len(work)} folds (one carrier\n"
        f"left out), {ranks} rank{'s' if ranks > 1 else ''}. About {length} on quiet cores; --rows {LEAST_ROWS} is the "
        "shortest.\n"
        "Ctrl-C ends it at any time; --resume then continues where it ended.\n\n"
        "Gaussian location-scale: smooths of departure hour, distance and day of the\n"
        "year for mean and scale, carrier as a random effect\n"
    )


def print_resumed(console: Console, known: ColdResults, path: Path) -> None:
    """Say what an earlier run left."""
    if known.fits:
        stored = f", stored folds from {path.name}" if path.exists() else ""
        console.print(f"{len(known.fits)} cold fits are taken from {known.path.name}{stored}\n")


def print_results(
    console: Console, compared: Sequence[Compared], parent: CarrierFit, again: Sequence[CarrierFit], path: Path
) -> None:
    """Print the tables and draw the plot."""
    console.print()
    console.print(_cold_table(compared))
    later = f" (and {parent.for_children} for the folds)" if parent.for_children else ""
    console.print(
        f"\nParent on all rows: {_START[parent.source]}, {parent.cost.hessian_formations} Hessian formations{later},\n"
        f"{parent.cost.seconds:.2f} s; every fold started from its artifact {str(parent.artifact)[:12]}\n"
    )
    console.print(_fold_table(compared))
    for line in (*_notes(compared), "", *verdict(compared)):
        console.print(line)
    console.print()
    console.print(_rerun_table([each.warm for each in compared], again))
    with gamwarm.open(path, "r") as store:
        savings = store.savings()
    if savings.basis:
        console.print(f"\n[bold]Saved[/bold] ({savings.basis}): {savings.total}")
    plot = path.with_suffix(".png")
    _draw(plot, compared, again)
    _print_how_to_inspect(console, path)
    console.print(f"[bold]The plot:[/bold] {plot}", soft_wrap=True)


_START: Final = {"cold": "cold start", "exact": "stored already", "transfer": "warm start"}


def _table(title: str, *names: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(names):
        table.add_column(name, justify="left" if n < left else "right", no_wrap=True)
    return table


def _cold_table(compared: Sequence[Compared]) -> Table:
    """Compare the three cold starts over all folds."""
    names = ("start", "evaluations", "Hessian formations", "seconds", "best of three in")
    table = _table("Cold starts, mean per fold", *names)
    for i, start in enumerate(COLD_STARTS):
        column = [each.cold[i] for each in compared]
        wins = sum(each.best is each.cold[i] for each in compared)
        table.add_row(start, *_mean_costs(column), f"{wins} of {len(compared)}")
    return table


def _mean_costs(fits: Sequence[CarrierFit]) -> tuple[str, str, str]:
    return (
        f"{np.mean([f.cost.evaluations for f in fits]):.1f}",
        f"{np.mean([f.cost.hessian_formations for f in fits]):.1f}",
        f"{np.mean([f.cost.seconds for f in fits]):.2f}",
    )


def _fold_table(compared: Sequence[Compared]) -> Table:
    """One row per fold: best cold against warm; at the right what shows that answers agree."""
    names = ("left out", "Hessians", "seconds", "gain", "objective", "max fitted")
    table = _table("Best cold start → warm start, one carrier left out per fold", *names)
    for each in compared:
        c, w = each.best.cost, each.warm.cost
        table.add_row(
            str(each.fold.group),
            f"{c.hessian_formations} → {w.hessian_formations}",
            f"{c.seconds:.2f} → {w.seconds:.2f}",
            "exact" if each.is_exact else f"{c.hessian_formations / max(w.hessian_formations, 1):.1f}×",
            f"{each.warm.objective - each.best.objective:+.1e}",
            f"{each.gap:.1e}",
        )
    table.add_section()
    warm = [each for each in compared if not each.is_exact]
    table.add_row("all folds", *_means(warm), *_worst(compared))
    return table


def _notes(compared: Sequence[Compared]) -> list[str]:
    lines = [
        "objective: warm less cold (negative: warm found the better optimum)",
        "max fitted: largest difference of a predictor, in standard deviations",
    ]
    if any(each.is_exact for each in compared):
        lines.append("exact: was in the file already, one evaluation confirmed it; not in the means")
    return lines


def _means(warm: Sequence[Compared]) -> tuple[str, str, str]:
    if not warm:
        return "", "", "exact"
    c, w = [each.best for each in warm], [each.warm for each in warm]
    (_, c_hessians, c_seconds), (_, w_hessians, w_seconds) = _mean_costs(c), _mean_costs(w)
    gain = sum(f.cost.hessian_formations for f in c) / max(sum(f.cost.hessian_formations for f in w), 1)
    return f"{c_hessians} → {w_hessians}", f"{c_seconds} → {w_seconds}", f"{gain:.1f}×"


def _worst(compared: Sequence[Compared]) -> tuple[str, str]:
    gaps = [each.warm.objective - each.best.objective for each in compared]
    return f"{max(gaps, key=abs):+.1e}", f"{max(each.gap for each in compared):.1e}"


def verdict(compared: Sequence[Compared]) -> list[str]:
    """Describe where cold and warm agree, and name the folds where one found a better optimum."""
    same: list[float] = []
    better: list[str] = []
    worse: list[str] = []
    for each in compared:
        # The yardstick is the lowest objective that any of the three cold starts found.
        gap = each.warm.objective - each.lowest.objective
        if abs(gap) <= SAME_OBJECTIVE:
            same.append(each.gap_to_lowest)
        else:
            (better if gap < 0 else worse).append(f"{each.fold.group} (by {abs(gap):.2g})")
    lines = [f"Same optimum in {len(same)} of {len(compared)} folds (objective within {SAME_OBJECTIVE:g});"]
    if same:
        lines.append(f"predictors there differ by at most {max(same):.1e} standard deviations")
    if better:
        lines.append(f"A warm start found a better optimum than any cold start: {', '.join(better)}")
    if worse:
        lines.append(
            f"A cold start found a better optimum (the objective has several): {', '.join(worse)}. "
            "Such samples need several starts, cold or warm; a larger sample usually has one optimum"
        )
    return lines


def _rerun_table(first: Sequence[CarrierFit], again: Sequence[CarrierFit]) -> Table:
    """The same job run a second time."""
    names = ("", "starts", "evaluations", "outer iterations", "Hessians", "seconds")
    table = _table("The same job again, from the file", *names, left=2)
    for name, fits in (("first run", first), ("second run", again)):
        sources = sorted({f.source for f in fits})
        starts = ", ".join(f"{sum(f.source == s for f in fits)} {s}" for s in sources)
        table.add_row(
            name,
            starts,
            str(sum(f.cost.evaluations for f in fits)),
            str(sum(f.cost.outer_iterations for f in fits)),
            str(sum(f.cost.hessian_formations for f in fits)),
            f"{sum(f.cost.seconds for f in fits):.2f}",
        )
    return table


def _print_how_to_inspect(console: Console, path: Path) -> None:
    """Say where the file is and how to read it, with the command and without gamwarm."""
    console.print(f"\n[bold]The file:[/bold] {path} ({path.stat().st_size / 1024:.0f} KiB)", soft_wrap=True)
    command, page = f"{_shortest(Path(sys.executable))} -m gamwarm", path.with_suffix(".html")
    console.print("What is in it, and what it saved:\n", soft_wrap=True)
    console.print(f"    {command} ls {_shortest(path)}", markup=False, soft_wrap=True)
    console.print(f"    {command} report {_shortest(path)} -o {_shortest(page)}", markup=False, soft_wrap=True)
    console.print("\nWithout gamwarm, by plain h5py:\n")
    console.print(
        f"""    import h5py, json
    with h5py.File({str(path)!r}) as f:
        print(f.attrs["README"].decode())
        for key, entry in f["block_records"].items():
            meta = json.loads(entry.attrs["meta"])
            print(key[:12], meta["attributes"], meta["n_rows"], "rows")
            print("   blocks:", dict(zip(meta["blocks"], meta["widths"])))
            print("   log lambda:", entry.attrs["rho"])
""",
        markup=False,
        soft_wrap=True,
    )


def _shortest(path: Path) -> str:
    """Return a path as a shell takes it, from here if it lies here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _draw(path: Path, compared: Sequence[Compared], again: Sequence[CarrierFit]) -> None:
    """Draw cold against warm cost per fold."""
    import matplotlib as mpl  # noqa: PLC0415 - only rank 0 draws

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    at = np.arange(len(compared))
    figure, axes = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    panels: tuple[tuple[str, Callable[[CarrierFit], float]], ...] = (
        ("Hessian formations", lambda fit: fit.cost.hessian_formations),
        ("seconds", lambda fit: fit.cost.seconds),
    )
    stored = np.array([each.is_exact for each in compared])
    for axis, (name, value) in zip(axes, panels, strict=True):
        for i, start in enumerate(COLD_STARTS):
            axis.plot(at, [value(each.cold[i]) for each in compared], "o", ms=4, mfc="none", label=f"cold, {start}")
        axis.bar(at, [value(each.best) for each in compared], color="0.85", label="cold, best of three")
        costs = np.array([value(each.warm) for each in compared])
        if not stored.all():
            axis.bar(at[~stored], costs[~stored], width=0.5, color="tab:blue", label="warm, from the parent")
        if stored.any():
            axis.bar(at[stored], costs[stored], width=0.5, color="tab:green", label="exact, stored by an earlier run")
        axis.plot(at, [value(a) for a in again], "_", color="black", ms=12, label="second run, exact")
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[0].set_title("Leave one carrier out: cost per fold", loc="left")
    # Below both panels: inside, it would lie on the marks of a cold start.
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    axes[1].set_xticks(at, [each.fold.group for each in compared])
    axes[1].set_xlabel("carrier left out, largest fold first")
    figure.savefig(path, dpi=120)
    plt.close(figure)
