"""A campaign of the reference engine on a small count model, as ranks run it: to its end, or until
they are killed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import gamwarm
from gamwarm import engine, folds
from tests.support.campaigns import GROUPS, Solver
from tests.support.models import USUAL, columns, model

N_GROUPS = 16


@cache
def data() -> dict[str, Any]:
    return columns(n=320, groups=N_GROUPS)


def campaign(comm: Any, path: Path, progress: Any = False, **options: Any) -> folds.FoldsReport:
    """Leave out one group after the other. Without checkpoints, whose times would change where a
    fit begins.
    """
    bound = model("poisson", data())

    def fit(fold: folds.Fold | None, /, **how: Any) -> engine.EngineFit:
        case = None if fold is None else bound.case(fold.rows)
        return engine.fit(case, options=USUAL, checkpoint=False, **how)

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version="1") as store:
        return folds.leave_one_out(store, data()["group"], fit, progress=progress, **options)


def content(report: folds.FoldsReport) -> dict[str, Any]:
    """Everything of a report that neither ranks nor interruptions may change."""
    whole = [report.parent, *report.folds]
    return {
        "parent": report.parent_id,
        "folds": [[f.group, f.n_rows, f.objective, f.converged, f.record, f.artifact] for f in whole if f is not None],
        "remaining": list(report.remaining),
    }


def sources(report: folds.FoldsReport) -> list[str]:
    return [fold.source for fold in report.folds]


# -- to the end ------------------------------------------------------------------------------------


def campaigns(comm: Any, folder: str) -> Any:
    """The same job twice, then a longer one that is stopped by a signal to the last rank and run
    again.
    """
    place = Path(folder)
    shown: list[list[int]] = []
    first = campaign(comm, place / "whole.h5", lambda done, total: shown.append([done, total]))
    again = campaign(comm, place / "whole.h5")
    stopped = stopped_campaign(comm, place / "stopped.h5")
    resumed = campaign(comm, place / "stopped.h5")
    return {
        "first": [content(first), sources(first)],
        "again": [content(again), sources(again)],
        "stopped": [content(stopped), sources(stopped)],
        "resumed": [content(resumed), sources(resumed)],
        "shown": shown,
        "ranks": sorted({fold.rank for fold in first.folds}),
    }


def stopped_campaign(comm: Any, path: Path) -> folds.FoldsReport:
    """Send SIGUSR1 to the last rank while it has its second fold: that fit stops, the round ends,
    no other begins.
    """
    bound = model("poisson", data())
    mine = []

    def fit(fold: folds.Fold | None, /, **how: Any) -> engine.EngineFit:
        if fold is not None and fold.group is not None:
            mine.append(fold.group)
        if len(mine) == 2 and comm.rank == comm.size - 1:
            os.kill(os.getpid(), 10)
        case = None if fold is None else bound.case(fold.rows)
        return engine.fit(case, options=USUAL, checkpoint=False, **how)

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version="1") as store, store.walltime():
        return folds.leave_one_out(store, data()["group"], fit, progress=False)


# -- Ctrl-C in a terminal reaches every rank ------------------------------------------------------


def interrupted_campaigns(comm: Any, folder: str) -> Any:
    """Campaigns whose ranks all get a SIGINT: in their fit, or while they wait for one that is."""
    in_their_fit = {"rank 0": {0}, "the last": {comm.size - 1}, "all": set(range(comm.size))}
    return {
        name: _interrupted(comm, Path(folder) / f"struck-{k}.h5", comm.rank in ranks)
        for k, (name, ranks) in enumerate(in_their_fit.items())
    }


def _interrupted(comm: Any, path: Path, in_its_fit: bool) -> dict[str, Any]:
    solver, begun = Solver(), 0

    def fit(fold: folds.Fold | None, /, **how: Any) -> Any:
        nonlocal begun
        begun += 1 if fold is None or fold.group is not None else 0
        if begun == 2 and in_its_fit:
            time.sleep(0.3)
            signal.raise_signal(signal.SIGINT)
        if begun == 2:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return solver(fold, **how)

    def run(fit: Any) -> folds.FoldsReport:
        with gamwarm.open(path, comm=comm, engine="tests", engine_version="1") as store:
            return folds.leave_one_out(store, GROUPS, fit, progress=False)

    try:
        run(fit)
        ended = ["nothing"]
    except BaseException as error:  # what is raised is the answer
        ended = [type(error).__name__, error.__notes__[-1]]
    comm.barrier()
    return {"ended": ended, "then": sources(run(Solver()))}


# -- what a campaign tells -------------------------------------------------------------------------


def measured_campaign(comm: Any, folder: str) -> Any:
    """A campaign over pairs of columns with audits, in which two folds have no answer at first."""
    path = Path(folder) / "measured.h5"
    return [_measured(comm, path, fails=("a, late", "c, early")), _measured(comm, path, fails=())]


def _measured(comm: Any, path: Path, fails: tuple[str, ...]) -> dict[str, Any]:
    columns_ = data()
    bound = model("poisson", columns_)
    half = np.array(["early", "late"])[(columns_["x"] > 5.0).astype(int)]

    def fit(fold: folds.Fold | None, /, **how: Any) -> engine.EngineFit:
        case = None if fold is None else bound.case(fold.rows)
        if fold is not None and fold.group in fails[:1]:
            raise ArithmeticError("before the look-up")
        made = engine.fit(case, options=USUAL, checkpoint=False, **how)
        if fold is not None and fold.group in fails[1:]:
            raise ArithmeticError("after the keeping")
        return made

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version="1") as store:
        report = folds.leave_one_out(store, {"kind": columns_["kind"], "half": half}, fit, audit=0.4, progress=False)
        pinned = sorted(store.pins())
    whole = {fold.group: fold for fold in report.folds}
    return {
        "folds": content(report),
        "failures": {fold.group: fold.failure for fold in report.unanswered},
        "held_out": {group: fold.held_out for group, fold in whole.items()},
        "changes": {
            group: {n: [c.edf, *c.log_lambda, c.curve] for n, c in f.changes.items()} for group, f in whole.items()
        },
        "audits": {
            g: [f.audit.objective, f.audit.cost.hessian_formations] for g, f in whole.items() if f.audit is not None
        },
        "influential": [fold.group for fold in report.influential],
        "sources": sources(report),
        "pinned": pinned,
    }


# -- at their own pace -----------------------------------------------------------------------------


def at_their_own_pace(comm: Any, folder: str) -> Any:
    """Ranks share out folds unevenly and keep them independently; a second part has a rank that
    fails.
    """
    from tests.support.stores import carrier_fit, exact_key_of, record_of, result_of

    path = Path(folder) / "paces.h5"
    parent = carrier_fit(range(37), n=70)
    answer: dict[str, Any] = {}
    with gamwarm.open(path, comm=comm, engine="tests", engine_version="1") as store:
        with store.fit(parent) as fit:
            named = fit.keep(result_of(parent, 9.0)).artifact.entry_id
        with store.frozen().independent(flush_entries=5) as own:
            starts, outcomes = [], []
            for k in range(3 * comm.rank + 1):  # rank 3 has ten, rank 0 has one
                problem = carrier_fit(range(1, 37), n=60 + comm.rank, seed=10 + k)
                with own.fit(problem) as fit:
                    starts.append([str(fit.start.source), fit.start.parent])
                    outcomes.append(fit.keep(result_of(problem, float(k))))
            pending = sum(o.record.pending for o in outcomes)
            seen = [own.start_for(parent).source == "exact", len(own) >= 2 + 2 * len(outcomes)]
        answer |= {
            "named": named,
            "starts": starts,
            "pending": pending,
            "seen": seen,
            "written": all(o.record.written and o.artifact.written for o in outcomes),
            "entries": len(store),  # collective again: every rank's fits are there
            "ids": sorted(store.entry_ids()),
            "sound": store.verify().ok,
        }
        try:
            with store.independent() as own:
                own.put_record(record_of(500 + comm.rank, np.pi))
                if comm.rank == comm.size - 1:
                    raise ValueError("a bad day")
        except (ValueError, gamwarm.CollectiveError) as error:
            answer["failed"] = [type(error).__name__, str(error), getattr(error, "rank", None)]
        # All ranks know of it, so the store goes on; and what was kept before the bad day was
        # written.
        answer["kept"] = [store.get_record(exact_key_of(500 + rank)) is not None for rank in range(comm.size)]
    return answer


worker: dict[str, gamwarm.IndependentStore] = {}


def begin_worker(path: str) -> None:
    worker["own"] = gamwarm.open(path, engine="tests", engine_version="1").independent()


def fit_in_worker(number: int) -> list[Any]:
    """Fit one task in whichever process; say which, how it started, and what is on disk when it
    returns.
    """
    from tests.support.stores import carrier_fit, result_of

    problem = carrier_fit(range(1, 37), n=64, seed=200 + number)
    with worker["own"].fit(problem) as fit:
        kept = fit.keep(result_of(problem, float(number)))
    worker["own"].flush()
    return [os.getpid(), str(fit.start.source), kept.record.written, kept.record.entry_id]


def workers_of_a_pool(comm: Any, folder: str) -> Any:
    """A manager hands tasks to workers, each with the file opened for itself, twice."""
    from mpi4py.futures import MPICommExecutor

    path = Path(folder) / "pool.h5"
    answer: dict[str, Any] = {}
    for turn in ("first", "again"):
        with MPICommExecutor(comm, root=0, initializer=begin_worker, initargs=(str(path),)) as pool:
            if pool is not None:
                answer[turn] = list(pool.map(fit_in_worker, range(8)))
        if "own" in worker:
            worker.pop("own").close()
        comm.barrier()
    with gamwarm.open(path, "r") as store:
        return answer | {"ids": sorted(store.entry_ids()), "sound": store.verify().ok, "me": os.getpid()}


def everything(comm: Any, folder: str) -> Any:
    return {
        body.__name__: body(comm, folder)
        for body in (campaigns, measured_campaign, at_their_own_pace, workers_of_a_pool)
    }


# -- killed ----------------------------------------------------------------------------------------


def campaign_until_killed(comm: Any, path: str, log: str) -> None:
    """Note on rank 0 how many fits all ranks know to be kept."""
    with Path(log).open("a", buffering=1) as acknowledged:
        campaign(comm, Path(path), lambda done, total: acknowledged.write(f"{done}\n"))
