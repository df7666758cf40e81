"""What the demo prints and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from gamwarm.demo.job import CarrierFit
from gamwarm.folds import Fold

__all__ = ["best_cold", "cold_table", "draw", "fold_table", "print_how_to_inspect", "rerun_table", "verdict"]

SAME_OBJECTIVE: Final = 1e-3


def best_cold(fits: Sequence[CarrierFit]) -> CarrierFit:
    """Return the cheapest converged cold fit: fewest Hessian formations, then seconds."""
    return min(fits, key=lambda f: (not f.converged, f.cost.hessian_formations, f.cost.seconds))


def fitted_gap(a: CarrierFit, b: CarrierFit) -> float:
    """Return the largest difference of linear predictors, in standard deviations of ``a``'s."""
    return float(np.abs(a.fitted - b.fitted).max() / max(float(a.fitted.std()), 1e-300))


def cold_table(cold: dict[str | None, list[CarrierFit]]) -> Table:
    """Compare the three cold starts over all folds."""
    table = Table(title="Cold starts (mean per fold)", title_justify="left")
    for name in ("start", "evaluations", "Hessian formations", "seconds", "best of three in"):
        table.add_column(name, justify="left" if name == "start" else "right")
    fits = list(cold.values())
    for i, first in enumerate(fits[0]):
        column = [three[i] for three in fits]
        wins = sum(best_cold(three) is three[i] for three in fits)
        table.add_row(first.label, *_mean_costs(column), f"{wins} of {len(fits)} folds")
    return table


def _mean_costs(fits: Sequence[CarrierFit]) -> tuple[str, str, str]:
    return (
        f"{np.mean([f.cost.evaluations for f in fits]):.1f}",
        f"{np.mean([f.cost.hessian_formations for f in fits]):.1f}",
        f"{np.mean([f.cost.seconds for f in fits]):.2f}",
    )


def fold_table(folds: Sequence[Fold], cold: dict[str | None, list[CarrierFit]], warm: Sequence[CarrierFit]) -> Table:
    """One row per fold: best cold against warm."""
    table = Table(title="Best cold start against warm start, one carrier left out per fold", title_justify="left")
    for name in ("left out", "rows", "evals", "Hessians", "seconds", "ratio", "objective", "max fitted"):
        table.add_column(name, justify="left" if name == "left out" else "right")
    table.caption = (
        "cold → warm. objective: warm less cold (negative: warm found the better optimum). "
        "max fitted: largest difference of a linear predictor, in its standard deviations"
    )
    table.caption_justify = "left"
    best = [best_cold(cold[fold.group]) for fold in folds]
    for fold, c, w in zip(folds, best, warm, strict=True):
        table.add_row(
            str(fold.group),
            f"{fold.n_rows:,}",
            *_pair(c, w),
            f"{w.objective - c.objective:+.1e}",
            f"{fitted_gap(c, w):.1e}",
        )
    table.add_section()
    table.add_row("all folds", "", *_pair_means(best, warm), *_worst(best, warm))
    return table


def _pair(c: CarrierFit, w: CarrierFit) -> tuple[str, str, str, str]:
    return (
        f"{c.cost.evaluations} → {w.cost.evaluations}",
        f"{c.cost.hessian_formations} → {w.cost.hessian_formations}",
        f"{c.cost.seconds:.2f} → {w.cost.seconds:.2f}",
        f"{c.cost.hessian_formations / max(w.cost.hessian_formations, 1):.1f}×",
    )


def _pair_means(cold: Sequence[CarrierFit], warm: Sequence[CarrierFit]) -> tuple[str, str, str, str]:
    c, w = _mean_costs(cold), _mean_costs(warm)
    hessians = sum(f.cost.hessian_formations for f in cold) / sum(f.cost.hessian_formations for f in warm)
    return (f"{c[0]} → {w[0]}", f"{c[1]} → {w[1]}", f"{c[2]} → {w[2]}", f"{hessians:.1f}×")


def _worst(cold: Sequence[CarrierFit], warm: Sequence[CarrierFit]) -> tuple[str, str]:
    gaps = [w.objective - c.objective for c, w in zip(cold, warm, strict=True)]
    return f"{max(gaps, key=abs):+.1e}", f"{max(fitted_gap(c, w) for c, w in zip(cold, warm, strict=True)):.1e}"


def verdict(folds: Sequence[Fold], cold: dict[str | None, list[CarrierFit]], warm: Sequence[CarrierFit]) -> list[str]:
    """Describe where cold and warm agree, and name the folds where one found a better optimum."""
    same: list[float] = []
    better: list[str] = []
    worse: list[str] = []
    for fold, w in zip(folds, warm, strict=True):
        # The yardstick is the lowest objective that any of the three cold starts found.
        c = min(cold[fold.group], key=lambda fit: (not fit.converged, fit.objective))
        gap = w.objective - c.objective
        if abs(gap) <= SAME_OBJECTIVE:
            same.append(fitted_gap(c, w))
        else:
            (better if gap < 0 else worse).append(f"{fold.group} (by {abs(gap):.2g})")
    lines = [f"Same optimum in {len(same)} of {len(folds)} folds (objective within {SAME_OBJECTIVE:g})"]
    if same:
        lines[0] += f"; fitted predictors there differ by at most {max(same):.1e} standard deviations"
    if better:
        lines.append(f"A warm start found a better optimum than any cold start: {', '.join(better)}")
    if worse:
        lines.append(
            f"A cold start found a better optimum (the objective has several): {', '.join(worse)}. "
            "Such samples need several starts, cold or warm; a larger sample usually has one optimum"
        )
    return lines


def rerun_table(first: Sequence[CarrierFit], again: Sequence[CarrierFit]) -> Table:
    """The same job run a second time."""
    table = Table(title="The same job again, from the file", title_justify="left")
    for name in ("", "starts", "evaluations", "outer iterations", "Hessians", "seconds in fits"):
        table.add_column(name, justify="left" if name in ("", "starts") else "right")
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


def print_how_to_inspect(console: Console, path: Path) -> None:
    """Say where the file is and how to read it without gamwarm."""
    console.print(f"\n[bold]The file:[/bold] {path} ({path.stat().st_size / 1024:.0f} KiB)")
    console.print("Inspect it with plain h5py, without gamwarm:\n")
    console.print(
        f"""    import h5py, json
    with h5py.File({str(path)!r}) as f:
        print(f.attrs["README"].decode())
        for key, entry in f["block_records"].items():
            meta = json.loads(entry.attrs["meta"])
            print(key[:12], meta["kind"], meta["n_rows"], "rows", dict(zip(meta["blocks"], meta["widths"])))
            print("   log lambda:", entry.attrs["rho"])
""",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def draw(
    path: Path,
    folds: Sequence[Fold],
    cold: dict[str | None, list[CarrierFit]],
    warm: Sequence[CarrierFit],
    again: Sequence[CarrierFit],
) -> None:
    """Draw cold against warm cost per fold."""
    import matplotlib as mpl  # noqa: PLC0415 - only rank 0 draws

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    at = np.arange(len(folds))
    figure, axes = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    panels: tuple[tuple[str, Callable[[CarrierFit], float]], ...] = (
        ("Hessian formations", lambda fit: fit.cost.hessian_formations),
        ("seconds", lambda fit: fit.cost.seconds),
    )
    for axis, (name, value) in zip(axes, panels, strict=True):
        for i, start in enumerate(fit.label for fit in next(iter(cold.values()))):
            axis.plot(at, [value(cold[f.group][i]) for f in folds], "o", ms=4, mfc="none", label=f"cold, {start}")
        axis.bar(at, [value(best_cold(cold[f.group])) for f in folds], color="0.85", label="cold, best of three")
        axis.bar(at, [value(w) for w in warm], width=0.5, color="tab:blue", label="warm, from the parent")
        axis.plot(at, [value(a) for a in again], "_", color="black", ms=12, label="second run, exact")
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[0].set_title("Leave one carrier out: cost per fold", loc="left")
    # Below both panels: inside, it would lie on the marks of a cold start.
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    axes[1].set_xticks(at, [f.group for f in folds])
    axes[1].set_xlabel("carrier left out, largest fold first")
    figure.savefig(path, dpi=120)
    plt.close(figure)
