"""What the batch scripts run: a fit of all rows, then one without each subject.

Ended early, it continues where it was::

    python campaign.py --file fits.h5                           one process
    python campaign.py --file fits.h5 --parent-only             the fit of all rows alone
    python campaign.py --file fits.h5 --share 3 --of 16         an array task: folds 3, 19, 35, ...
    python campaign.py --file own.h5 --from fits.h5 --share 3 --of 16    into a file of its own
    mpirun -n 8 python -m mpi4py campaign.py --file fits.h5 --mpi        folds dealt over ranks

Exit code 0: every fold of the share is fitted and in the file; 75: time was up or a signal came,
run it again; 1: it failed, or a fold has no answer; 2: the command line is wrong. The last line
says how many folds of how many are in the file. Data and terms are synthetic: put your own into
`model`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gamwarm
from gamwarm import engine, folds

RUN_AGAIN = 75


def model(subjects: int) -> tuple[engine.Bound, Any]:
    """Return the model, bound to all rows, and the column whose groups are left out. Equal in every
    process.
    """
    rng = np.random.default_rng(20261125)
    n = 100 * subjects
    columns = {
        "hour": rng.uniform(0, 24, n),
        "dose": rng.uniform(0, 5, n),
        "subject": np.repeat(np.arange(subjects), 100),
    }
    level = np.sin(columns["hour"] / 4) + 0.4 * rng.normal(size=subjects)[columns["subject"]]
    columns["response"] = level + (0.2 + 0.1 * columns["dose"]) * rng.normal(size=n)
    terms = [
        engine.Intercept(),
        engine.Smooth("hour", k=12),
        engine.RandomEffect("subject"),
        engine.Intercept(predictor="scale"),
        engine.Smooth("dose", k=8, predictor="scale"),
    ]
    return engine.bind(columns, terms, engine.GaussianLocationScale("response")), columns["subject"]


def say(*words: object) -> None:
    """Print at once: a job's log should not end with what was buffered when it was killed."""
    print(*words, flush=True)


def in_the_file(path: Path, bound: engine.Bound, every: list[folds.Fold]) -> str:
    """Return how many of all folds have their answer in the file, whoever fitted them."""
    with gamwarm.open(path, "r") as store:
        records = [store.get_record(bound.case(fold.rows).problem().key) for fold in every]
    there = sum(record is not None and record.kind == "final" for record in records)
    return f"{there} of {len(every)} folds are in {path.name}"


def share_of_folds(asked: argparse.Namespace) -> int:
    """Fit every ``asked.of``-th fold, in one process; other processes may use the file too."""
    bound, subject = model(asked.subjects)
    with gamwarm.open(asked.file, on_error="raise") as store, store.walltime(margin=asked.margin):
        if asked.source is not None:
            store.merge(asked.source)  # a file of one's own has the parent it starts from
        full = engine.fit(bound.case(), store=store)
        say(f"all rows: {full.start.source} ({full.start.reason}), {full.cost.hessian_formations} Hessian formations")
        if full.kept.stopped:
            say("stopped in the fit of all rows")
            return RUN_AGAIN
        if not full.result.converged:
            say(f"all rows: no answer ({full.reason})")
            return 1
        if asked.parent_only:
            return 0
        parent = full.kept.artifact.entry_id
        every = folds.folds_of(subject)
        # Largest first, as everywhere: a share is every so-manieth, so shares take about equally
        # long.
        mine = every[asked.share :: asked.of]
        fitted = failed = 0
        with store.independent(flush_seconds=30) as own:
            for fold in mine:
                if store.should_stop():
                    break
                fit = engine.fit(bound.case(fold.rows), store=own, parent=parent, attributes=fold.attributes)
                cost = f"{fit.cost.hessian_formations} Hessian formations"
                say(f"fold {fold.group}: {fit.start.source} ({fit.start.reason}), {cost}")
                if fit.kept.stopped:
                    say(f"fold {fold.group} is stopped, its checkpoint kept")
                    break
                fitted += fit.result.converged
                failed += not fit.result.converged
                if not fit.result.converged:
                    say(f"fold {fold.group} has no answer: {fit.reason}")
        left = len(mine) - fitted - failed
        share = f"share {asked.share} of {asked.of}"
        there = in_the_file(asked.file, bound, every)
        if left:
            say(f"stopped: {share} has {left} of its {len(mine)} folds left; {there}")
            return RUN_AGAIN
        if failed:
            say(f"{share} has {failed} of its {len(mine)} folds without an answer; {there}")
            return 1
        say(f"done: {share}, {len(mine)} folds; {there}")
    return 0


def over_ranks(asked: argparse.Namespace) -> int:
    """Deal the folds over the ranks of an MPI job."""
    from mpi4py import MPI  # noqa: PLC0415 - the other ways do not need it

    bound, subject = model(asked.subjects)

    def fit(fold: folds.Fold | None, **how: Any) -> engine.EngineFit:
        return engine.fit(None if fold is None else bound.case(fold.rows), **how)

    comm = MPI.COMM_WORLD
    with (
        gamwarm.open(asked.file, comm=comm, on_error="raise") as store,
        store.walltime(margin=asked.margin),
    ):
        report = folds.leave_one_out(store, subject, fit, progress=comm.rank == 0 and _line)
    failed = sum(not fold.converged for fold in report.folds)
    if comm.rank == 0:
        say(report)
        state = "stopped" if report.stopped else f"{failed} folds without an answer" if failed else "done"
        say(f"{state}: {in_the_file(asked.file, bound, folds.folds_of(subject))}")
    if report.stopped or failed:
        # sys.exit would make `python -m mpi4py` abort the job: every rank has come to its end in
        # good order.
        MPI.Finalize()
        os._exit(RUN_AGAIN if report.stopped else 1)
    return 0


def _line(done: int, total: int) -> None:
    say(f"{done} of {total} fits")


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True, help="the gamwarm file")
    parser.add_argument("--from", dest="source", type=Path, help="merge this file (the parent's) into FILE first")
    parser.add_argument("--share", type=int, default=0, help="which share of the folds, from 0")
    parser.add_argument("--of", type=int, default=1, help="number of shares")
    parser.add_argument("--parent-only", action="store_true", help="fit all rows and end")
    parser.add_argument("--mpi", action="store_true", help="deal the folds over ranks")
    parser.add_argument("--margin", type=float, default=90.0, help="seconds before the end of the job at which to stop")
    parser.add_argument("--subjects", type=int, default=24, help="size of the made-up data")
    asked = parser.parse_args()
    if not 0 <= asked.share < asked.of:
        parser.error(f"--share {asked.share} --of {asked.of}: shares are numbered from 0 to {asked.of - 1}")
    try:
        return over_ranks(asked) if asked.mpi else share_of_folds(asked)
    except gamwarm.StoreError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
