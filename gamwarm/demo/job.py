"""Leave one group out, in rounds of one fit per rank: cold from three starts, warm from the parent, then again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import gamwarm
from gamwarm import __version__, engine
from gamwarm.parallel import Communicator, agree, already_agreed

__all__ = ["COLD_STARTS", "ENGINE_OPTIONS", "Fit", "Fold", "cold_folds", "warm_folds"]

COLD_STARTS: Final = ("heuristic", "zero", "fellner-schall")
# The certificate of the published figures: |gradient| < 1e-3, rho within ±15.
ENGINE_OPTIONS: Final = gamwarm.BlockwiseFitOptions(inner_tol=3e-4, outer_tol=1e-3, rho_bound=15.0)

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Fit:
    """What one fit took and gave; ``fitted`` are its linear predictors, one after the other."""

    label: str
    source: str
    cost: gamwarm.Cost
    objective: float
    converged: bool
    fitted: np.ndarray[Any, np.dtype[np.float64]]
    entry_ids: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class Fold:
    """One group left out."""

    group: str
    rows: Any

    @property
    def size(self) -> int:
        return int(self.rows.sum())


def folds_of(groups: Any) -> list[Fold]:
    """Return one fold per group, largest fold first, so that the fits of a round are of one size."""
    folds = [Fold(str(name), groups != name) for name in np.unique(groups)]
    return sorted(folds, key=lambda fold: (-fold.size, fold.group))


def _summary(label: str, fit: engine.EngineFit) -> Fit | None:
    kept = fit.kept
    if fit.result is None:
        return None
    ids = (None, None) if kept is None else (kept.record.entry_id, kept.artifact.entry_id)
    fitted = np.concatenate([eta for name, eta in fit.fitted.items() if name != "response"])
    return Fit(
        label=label,
        source="cold" if fit.start is None else str(fit.start.source),
        cost=fit.cost,
        objective=float(fit.result.objective or np.nan),
        converged=fit.result.converged,
        fitted=fitted,
        entry_ids=ids,
    )


def _rounds(
    comm: Communicator, work: Sequence[Any], do: Callable[[Any | None], Fit | None], advance: Advance
) -> list[Fit]:
    """Deal ``work`` to ranks in rounds of one item each; return every rank's results in the order of the work."""
    done: list[Fit] = []
    for first in range(0, len(work), comm.size):
        mine = first + comm.rank
        result, error = None, None
        try:
            result = do(work[mine] if mine < len(work) else None)
        except Exception as caught:  # the other ranks wait for this round's results
            if already_agreed(caught):
                raise
            error = caught
        done += [fit for fit in agree(comm, "round of folds", result, error) if fit is not None]
        advance(min(comm.size, len(work) - first))
    return done


def cold_folds(
    bound: engine.Bound, folds: Sequence[Fold], comm: Communicator, advance: Advance
) -> dict[str, list[Fit]]:
    """Fit every fold cold from each of three starts, without any store; return the three fits per group."""

    def do(task: tuple[Fold, str] | None) -> Fit | None:
        if task is None:
            return None
        fold, start = task
        return _summary(start, engine.fit(bound.case(fold.rows), options=ENGINE_OPTIONS, cold_start=start))

    tasks = [(fold, start) for fold in folds for start in COLD_STARTS]
    fits = _rounds(comm, tasks, do, advance)
    return {fold.group: fits[3 * i : 3 * i + 3] for i, fold in enumerate(folds)}


def warm_folds(
    bound: engine.Bound, folds: Sequence[Fold], path: Path, comm: Communicator, advance: Advance
) -> tuple[Fit, list[Fit]]:
    """Fit the parent on all rows, then every fold from it, through the file; return the parent's fit and the folds'."""
    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version=__version__) as store:
        full = bound.case() if comm.rank == 0 else None
        parent = comm.bcast(_summary("all rows", engine.fit(full, options=ENGINE_OPTIONS, store=store, each=True)))
        advance(1)

        def do(fold: Fold | None) -> Fit | None:
            case = None if fold is None else bound.case(fold.rows)
            fit = engine.fit(case, options=ENGINE_OPTIONS, store=store, parent=parent.entry_ids[1], each=True)
            return None if fold is None else _summary(fold.group, fit)

        return parent, _rounds(comm, folds, do, advance)
