"""Leave one group out: cold from three starts, then warm, as the ready-made job over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import gamwarm
from gamwarm import __version__, engine, folds
from gamwarm.demo.kept import ColdResults
from gamwarm.parallel import Communicator
from gamwarm.records import attributes_of_cold_run

__all__ = ["COLD_STARTS", "ENGINE_OPTIONS", "CarrierFit", "best_cold", "cold_folds", "key_of", "warm_folds"]

COLD_STARTS: Final = ("heuristic", "zero", "fellner-schall")
ENGINE_OPTIONS: Final = gamwarm.BlockwiseFitOptions()

Shown = Callable[[int, int], object]
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class CarrierFit:
    """What one fit took and gave; ``cost`` is its own, without work for later fits."""

    label: str
    source: str
    cost: gamwarm.Cost
    objective: float
    converged: bool
    theta: Array
    for_children: int = 0
    artifact: str | None = None


def best_cold(fits: Sequence[CarrierFit]) -> CarrierFit:
    """Return the cheapest converged cold fit: fewest Hessian formations, then seconds."""
    return min(fits, key=lambda f: (not f.converged, f.cost.hessian_formations, f.cost.seconds))


def key_of(bound: engine.Bound) -> str:
    """Return the exact key of the fit on all rows: equal for the same data and model only."""
    key = bound.case(None).problem(ENGINE_OPTIONS).key
    assert key is not None
    return key


def _theta(fit: engine.EngineFit) -> Array:
    return np.concatenate(fit.result.block_beta)


def _warm(outcome: folds.FoldOutcome) -> CarrierFit:
    return CarrierFit(
        outcome.group or "all rows",
        outcome.source,
        outcome.cost.own,
        float(outcome.objective or np.nan),
        outcome.converged,
        outcome.value,
        outcome.cost.for_children,
        outcome.artifact,
    )


def cold_folds(
    bound: engine.Bound, work: Sequence[folds.Fold], comm: Communicator, shown: Shown, known: ColdResults
) -> dict[str | None, list[CarrierFit]]:
    """Fit every fold cold from each of three starts, without a store; three fits per group.

    Results of an earlier run are taken from ``known``, new ones are added after each round.
    """

    def do(task: tuple[folds.Fold, str] | None) -> CarrierFit | None:
        if task is None:
            return None
        fold, start = task
        fit = engine.fit(bound.case(fold.rows), options=ENGINE_OPTIONS, cold_start=start)
        return CarrierFit(
            start, "cold", fit.cost.own, float(fit.result.objective or np.nan), fit.converged, _theta(fit)
        )

    tasks = [(fold, start) for fold in work for start in COLD_STARTS]
    fits = {(group, start): CarrierFit(start, "cold", *told) for (group, start), told in known.fits.items()}
    waiting = [(fold, start) for fold, start in tasks if (fold.group, start) not in fits]
    done = len(tasks) - len(waiting)
    for first in range(0, len(waiting), comm.size):
        some = waiting[first : first + comm.size]
        for (fold, start), fit in zip(some, folds.in_rounds(comm, some, do), strict=True):
            fits[fold.group, start] = fit
            known.add(fold.group, start, fit.cost, fit.objective, fit.converged, fit.theta)
        done += len(some)
        if comm.rank == 0:
            known.write()
            shown(done, len(tasks))
    return {fold.group: [fits[fold.group, start] for start in COLD_STARTS] for fold in work}


def warm_folds(
    bound: engine.Bound,
    groups: Any,
    column: str,
    path: Path,
    comm: Communicator,
    shown: Shown,
    cold: Mapping[str | None, Sequence[CarrierFit]],
) -> tuple[CarrierFit, list[CarrierFit]]:
    """Fit the parent on all rows, then every fold from it; return the parent's fit and the folds'.

    ``groups`` are the values of ``column``: the parent carries what leaving each of them out
    changes, to first order. Entries of a fold state what its best cold run took, so whatever reads
    the file knows what was saved.
    """

    def fit(fold: folds.Fold | None, /, **how: Any) -> engine.EngineFit:
        if fold is None:
            return engine.fit(None, options=ENGINE_OPTIONS, **how)
        seeds, measured = (column, {}) if fold.group is None else (None, _measured(cold[fold.group]))
        case = bound.case(fold.rows)
        # No checkpoints: the contents of the file must not depend on the duration of a fit.
        return engine.fit(case, options=ENGINE_OPTIONS, group_seeds=seeds, checkpoint=False, attributes=measured, **how)

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version=__version__) as store:
        report = folds.leave_one_out(store, groups, fit, value=_theta, progress=shown)
    assert report.parent is not None
    return _warm(report.parent), [_warm(outcome) for outcome in report.folds]


def _measured(cold: Sequence[CarrierFit]) -> dict[str, int | float]:
    best = best_cold(cold)
    return attributes_of_cold_run(best.cost, best.objective if np.isfinite(best.objective) else None)
