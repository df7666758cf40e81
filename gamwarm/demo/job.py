"""Leave one group out: cold from three starts, then warm, as the ready-made job over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import gamwarm
from gamwarm import __version__, engine, folds
from gamwarm.parallel import Communicator

__all__ = ["COLD_STARTS", "ENGINE_OPTIONS", "CarrierFit", "cold_folds", "warm_folds"]

COLD_STARTS: Final = ("heuristic", "zero", "fellner-schall")
ENGINE_OPTIONS: Final = gamwarm.BlockwiseFitOptions()

Shown = Callable[[int, int], object]


@dataclass(frozen=True)
class CarrierFit:
    """What one fit took and gave; ``fitted`` are its linear predictors, one after the other."""

    label: str
    source: str
    cost: gamwarm.Cost
    objective: float
    converged: bool
    fitted: np.ndarray[Any, np.dtype[np.float64]]
    artifact: str | None = None


def _fitted(fit: engine.EngineFit) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([eta for name, eta in fit.fitted.items() if name != "response"])


def _warm(outcome: folds.FoldOutcome) -> CarrierFit:
    return CarrierFit(
        outcome.group or "all rows",
        outcome.source,
        outcome.cost,
        float(outcome.objective or np.nan),
        outcome.converged,
        outcome.value,
        outcome.artifact,
    )


def cold_folds(
    bound: engine.Bound, work: Sequence[folds.Fold], comm: Communicator, shown: Shown
) -> dict[str | None, list[CarrierFit]]:
    """Fit every fold cold from each of three starts, without a store; three fits per group."""

    def do(task: tuple[folds.Fold, str] | None) -> CarrierFit | None:
        if task is None:
            return None
        fold, start = task
        fit = engine.fit(bound.case(fold.rows), options=ENGINE_OPTIONS, cold_start=start)
        return CarrierFit(start, "cold", fit.cost, float(fit.result.objective or np.nan), fit.converged, _fitted(fit))

    tasks = [(fold, start) for fold in work for start in COLD_STARTS]
    fits = folds.in_rounds(comm, tasks, do, shown=shown)
    return {fold.group: fits[3 * i : 3 * i + 3] for i, fold in enumerate(work)}


def warm_folds(
    bound: engine.Bound, groups: Any, column: str, path: Path, comm: Communicator, shown: Shown
) -> tuple[CarrierFit, list[CarrierFit]]:
    """Fit the parent on all rows, then every fold from it; return the parent's fit and the folds'.

    ``groups`` are the values of ``column``: the parent carries what leaving each of them out
    changes, to first order.
    """

    def fit(fold: folds.Fold | None, /, **how: Any) -> engine.EngineFit:
        if fold is None:
            return engine.fit(None, options=ENGINE_OPTIONS, **how)
        seeds = column if fold.group is None else None
        # No checkpoints: the contents of the file must not depend on the duration of a fit.
        return engine.fit(bound.case(fold.rows), options=ENGINE_OPTIONS, group_seeds=seeds, checkpoint=False, **how)

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version=__version__) as store:
        report = folds.leave_one_out(store, groups, fit, value=_fitted, progress=shown)
    assert report.parent is not None
    return _warm(report.parent), [_warm(outcome) for outcome in report.folds]
