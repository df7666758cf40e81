"""What ranks do in the tests of collective stores. Each body gets (comm, folder) and returns plain
values.

Several bodies share one launch, since starting ranks costs more than what they do; `everything` and
`faults` run them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gamwarm
from gamwarm import CollectiveError, UnkeyableFit, matrix_digest
from gamwarm.storage import vfs
from tests.support.problems import Rows, wave
from tests.support.stores import artifact_of, carrier_fit, exact_key_of, plain_fit, record_of, result_of

FOLDS = 7
LOOK = Path("/proc/self/fd")


def files_open(folder: Path) -> list[str]:
    """Return the names of this process's open files under ``folder``."""
    names = []
    for link in LOOK.iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith(str(folder)):
                names.append(Path(target).name)
    return sorted(names)


class Opens:
    """Counts what this process opens through the seam to the operating system."""

    def __init__(self) -> None:
        self.count = 0
        self.real = vfs.DISK.open

    def __enter__(self) -> Opens:
        def counted(*args: Any) -> int:
            self.count += 1
            return self.real(*args)

        vfs.DISK.open = counted  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        del vfs.DISK.open


class Torn(Rows):
    """A design whose last rows cannot be read, on every rank or on one."""

    def __init__(self, here: bool) -> None:
        super().__init__(wave(4 * 4096, 4, 1))
        self.here = here

    def row_chunk(self, start: int, stop: int, /) -> Any:
        if self.here and stop == 4 * 4096:
            raise OSError("the tape is torn")
        return super().row_chunk(start, stop)


class Warned(logging.Handler):
    """Collects gamwarm's warnings on this rank."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Warned:
        logging.getLogger("gamwarm").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("gamwarm").removeHandler(self)


def brief_repr(report: Any) -> dict[str, Any]:
    """Return a start report in plain values, its numbers bit by bit."""
    start = report.start
    return {
        "source": str(report.source),
        "key": report.key,
        "parent": report.parent,
        "entry": report.entry,
        "reason": report.reason,
        "numbers": None if start is None else [v.tobytes().hex() for v in (start.rho, *start.block_beta)],
    }


def settled(outcome: Any) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in ("written", "pending", "reason", "entry_id")}


def caught(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "text": str(error),
        "rank": getattr(error, "rank", None),
        "cause": getattr(error, "cause", None),
    }


def opened(path: Path, comm: Any, **options: Any) -> Any:
    return gamwarm.open(path, comm=comm, **options)


# -- all goes well ---------------------------------------------------------------------------------


def one_fit_on_all_ranks(comm: Any, folder: Path) -> Any:
    path = folder / "one.h5"
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    answer: dict[str, Any] = {}
    with opened(path, comm) as store:
        with store.fit(parent) as fit:
            answer["cold"] = brief_repr(fit.start)
            kept = fit.keep(result_of(parent, 2.0))
        answer["kept"] = [settled(kept.record), settled(kept.artifact)]
        with store.fit(child) as fit:
            answer["transfer"] = brief_repr(fit.start)
        answer["exact"] = brief_repr(store.start_for(carrier_fit(range(37))))
        answer["named"] = brief_repr(store.start_for(child, parent=kept.artifact.entry_id))
        answer["file"] = [len(store), store.generation, store.keys(), sorted(store.entry_ids()), store.verify().ok]
        answer["got"] = [store.get_record(parent.key).objective, store.get_artifact(parent.descriptor.key).fit_key]
        answer["put"] = [settled(store.put_record(record_of(1))), settled(store.put_artifact(artifact_of()))]
    return answer


def campaign(comm: Any, path: Path) -> Any:
    """Fit a parent, then folds in rounds of one per rank. ``comm=None`` is serial; the file must
    not know.
    """
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    starts, outcomes, generations = {}, {}, []
    full = carrier_fit(range(37), n=70)
    with opened(path, comm) as store:
        with store.fit(full) as fit:
            parent = fit.keep(result_of(full, 9.0)).artifact.entry_id
        for first in range(0, FOLDS, size):
            fold = first + rank if first + rank < FOLDS else None
            problem = None if fold is None else carrier_fit([c for c in range(37) if c % FOLDS != fold], n=60 + fold)
            before = store.generation
            with store.fit(problem, parent=parent, each=True) as fit:
                kept = fit.keep(None if problem is None else result_of(problem, float(fold), start_used=True))
            generations.append(store.generation - before)
            if fold is not None:
                starts[fold], outcomes[fold] = brief_repr(fit.start), [settled(kept.record), settled(kept.artifact)]
            else:
                starts["idle"], outcomes["idle"] = brief_repr(fit.start), [settled(kept.record), settled(kept.artifact)]
        ids = sorted(store.entry_ids())
        again = {}
        for first in range(0, FOLDS, size):
            fold = first + rank if first + rank < FOLDS else None
            problem = None if fold is None else carrier_fit([c for c in range(37) if c % FOLDS != fold], n=60 + fold)
            again[fold] = str(store.start_for(problem, each=True).source)
        return {
            "starts": starts,
            "outcomes": outcomes,
            "generations": generations,
            "ids": ids,
            "again": again,
            "sound": store.verify().ok,
        }


def one_fit_per_rank(comm: Any, folder: Path) -> Any:
    return campaign(comm, folder / "campaign.h5")


def a_batch_of_records(comm: Any, folder: Path) -> Any:
    """Uneven counts: rank r has r + 1 records, so that the later rounds hold None."""
    with opened(folder / "batch.h5", comm) as store:
        before = store.generation
        rounds = []
        for turn in range(comm.size):
            mine = record_of(100 * comm.rank + turn) if turn <= comm.rank else None
            rounds.append(settled(store.put_record(mine, each=True)))
        return {"rounds": rounds, "commits": store.generation - before, "keys": store.keys()}


def who_opens_the_file(comm: Any, folder: Path) -> Any:
    home = folder / "watched"
    if comm.rank == 0:
        home.mkdir()
    comm.barrier()
    problem = plain_fit()
    with Opens() as opens, opened(home / "fits.h5", comm) as store:
        with store.fit(problem) as fit:
            fit.keep(result_of(problem))
        with store.transaction():
            store.put_record(record_of(comm.rank), each=True)
        store.get_record(exact_key_of(0))
        store.verify()
        during = files_open(home)
    return {"opens": opens.count, "during": during, "after": files_open(home)}


def a_collective_transaction(comm: Any, folder: Path) -> Any:
    with opened(folder / "transaction.h5", comm) as store:
        before = store.generation
        with store.transaction():
            outcomes = [store.put_record(record_of(1)), store.put_record(record_of(10 + comm.rank), each=True)]
            pending = [o.pending and not o.written for o in outcomes]
            seen = store.get_record(exact_key_of(1)) is not None
        return {
            "pending": pending,
            "seen": seen,
            "after": [settled(o) for o in outcomes],
            "commits": store.generation - before,
            "entries": len(store),
        }


def collective_checkpoints(comm: Any, folder: Path) -> Any:
    """Ranks whose clocks disagree must still agree on whether a checkpoint is due: rank 0's clock
    counts.
    """
    from gamwarm.store import fit as fits

    now = [100.0 + 50.0 * comm.rank]
    real, fits.time = fits.time, type("time", (), {"monotonic": staticmethod(lambda: now[0])})  # type: ignore[assignment]
    try:
        problem = plain_fit()
        with opened(folder / "checkpoints.h5", comm) as store, store.fit(problem) as fit:
            outcomes = []
            for value, pause in ((5.0, 0.5), (4.0, 3.0), (3.0, 0.5), (2.0, 3.0)):
                now[0] += pause * (1 if comm.rank == 0 else 7)
                outcomes.append(fit.checkpoint(result_of(problem, value, converged=False)).written)
            return {"written": outcomes, "objective": store.get_record(problem.key).objective}
    finally:
        fits.time = real  # type: ignore[assignment]


def without_a_communicator(comm: Any, folder: Path) -> Any:
    """comm=None under mpiexec: as many processes as ranks, each by itself, on one file under its
    lock.
    """
    path = folder / "alone.h5"
    with gamwarm.open(path) as store:
        mine = [settled(store.put_record(record_of(100 * comm.rank + k))) for k in range(5)]
        if comm.rank == 0:
            time.sleep(0.05)  # nobody waits for anybody: no call is collective
            problem = plain_fit()
            store.keep(problem, result_of(problem))
    comm.barrier()
    with gamwarm.open(path, "r") as store:
        return {"mine": mine, "entries": len(store), "sound": store.verify().ok}


def shares_of_a_design(comm: Any, folder: Path) -> Any:
    design = Rows(wave(3 * 4096 + 5, 4, 1))
    problem = plain_fit(design=design)
    with opened(folder / "shares.h5", comm) as store:
        with store.fit(problem) as fit:
            fit.keep(result_of(problem))
        key = store.start_for(problem).key
    return {"leaves": len(design.asked), "key": key, "serial": plain_fit(design=wave(3 * 4096 + 5, 4, 1)).key}


def unkeyable_on_all_ranks(comm: Any, folder: Path) -> Any:
    """An opt-out and an unreadable design are answers, not failures: cold on all ranks, nothing
    hangs.
    """

    answer = {}
    with Warned() as warned, opened(folder / "unkeyable.h5", comm) as store:
        for name, problem in (
            ("opt-out", plain_fit(fingerprint=None)),
            ("torn", plain_fit(design=Torn(here=True))),
        ):
            with store.fit(problem) as fit:
                kept = fit.keep(result_of(problem))
            answer[name] = [str(fit.start.source), fit.start.key, fit.start.reason, kept.record.written]
        each = plain_fit(design=Torn(here=True))
        answer["each"] = [str(store.start_for(each, each=True).source), len(store)]
    return answer | {"warnings": warned.messages}


EVERYTHING = (
    one_fit_on_all_ranks,
    one_fit_per_rank,
    a_batch_of_records,
    who_opens_the_file,
    a_collective_transaction,
    collective_checkpoints,
    without_a_communicator,
    shares_of_a_design,
    unkeyable_on_all_ranks,
)


def everything(comm: Any, folder: str) -> Any:
    return {body.__name__: body(comm, Path(folder)) for body in EVERYTHING}


# -- one rank has a bad day ------------------------------------------------------------------------


def culprit_of(comm: Any) -> int:
    return int(comm.size) - 1


def attempt(comm: Any, path: Path, body: Any, **options: Any) -> Any:
    """Run ``body(store)`` in ``with store:`` and return what came out, and whether the file is
    whole afterwards.
    """
    try:
        with opened(path, comm, **options) as store:
            outcome = {"returned": body(store)}
    except BaseException as error:  # what is raised is the answer
        outcome = caught(error)
    comm.barrier()
    with gamwarm.open(path, "r") as store:
        return outcome | {"keys": store.keys(), "sound": store.verify().ok}


def raising_before_a_call(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> None:
        store.put_record(record_of(1))
        if comm.rank == culprit_of(comm):
            raise ValueError("a bad day")
        store.put_record(record_of(2))

    return attempt(comm, folder / "before.h5", body)


def raising_after_the_last_call(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> None:
        store.put_record(record_of(1))
        if comm.rank == culprit_of(comm):
            raise ValueError("a bad day")

    return attempt(comm, folder / "after.h5", body)


def raising_inside_a_fit(comm: Any, folder: Path) -> Any:
    problem = plain_fit()

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        with store.fit(problem) as fit:
            if comm.rank == culprit_of(comm):
                raise ValueError("a bad day")
            fit.keep(result_of(problem))

    return attempt(comm, folder / "fit.h5", body)


def raising_inside_a_fit_of_each(comm: Any, folder: Path) -> Any:
    problem = plain_fit(seed=comm.rank)

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        with store.fit(problem, each=True) as fit:
            if comm.rank == culprit_of(comm):
                raise ValueError("a bad day")
            fit.keep(result_of(problem))

    return attempt(comm, folder / "each.h5", body)


ROUNDS: dict[str, Callable[[Any, Any], Any]] = {
    "start_for": lambda store, each: store.start_for(plain_fit(), each=each),
    "fit": lambda store, each: store.fit(plain_fit(), each=each).__enter__(),
    "frozen": lambda store, each: store.frozen().start_for(plain_fit(), each=each),
    "keep": lambda store, each: store.keep(plain_fit(), result_of(plain_fit()), each=each),
    "put_record": lambda store, each: store.put_record(record_of(2), each=each),
}


def another_each_on_one_rank(comm: Any, folder: Path) -> Any:
    """What each call raises where one rank passes an ``each`` that is none, or the opposite of the
    others'.
    """

    def body(store: Any) -> Any:
        store.put_record(record_of(1))
        told = {}
        for name, call in ROUNDS.items():
            for common in (True, False):
                for other in (np.ones(2), not common):
                    each = other if comm.rank == culprit_of(comm) else common
                    try:
                        told[f"{name}, {common}, {other}"] = {"returned": repr(call(store, each))}
                    except Exception as error:
                        told[f"{name}, {common}, {other}"] = caught(error)
        return told | {"at last": store.put_record(record_of(1)).written}

    return attempt(comm, folder / "each-differs.h5", body)


def raising_inside_a_transaction(comm: Any, folder: Path) -> Any:
    outcomes = []

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        with store.transaction():
            outcomes.append(store.put_record(record_of(2)))
            if comm.rank == culprit_of(comm):
                raise ValueError("a bad day")

    answer = attempt(comm, folder / "transaction.h5", body)
    return answer | {"outcome": settled(outcomes[0])}


def interrupting_rank_0_inside_its_write(comm: Any, folder: Path) -> Any:
    """Ctrl-C reaches rank 0 while the others wait for its answer."""

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        if comm.rank == 0:

            def interrupted(*_: Any) -> None:
                raise KeyboardInterrupt

            store._file.put_encoded = interrupted
        store.put_record(record_of(2))

    return attempt(comm, folder / "interrupt.h5", body)


class Struck(Rows):
    """A design whose reader gets a Ctrl-C, once."""

    def __init__(self, here: bool) -> None:
        super().__init__(wave(4 * 4096, 4, 1))
        self.here = here

    def row_chunk(self, start: int, stop: int, /) -> Any:
        if self.here:
            self.here = False
            signal.raise_signal(signal.SIGINT)
        return super().row_chunk(start, stop)


def interrupting_one_rank_inside_its_design(comm: Any, folder: Path) -> Any:
    problem = plain_fit(design=Struck(here=comm.rank == culprit_of(comm)))

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        store.start_for(problem)

    return attempt(comm, folder / "struck.h5", body)


def interrupting_one_rank_inside_a_collective_call(comm: Any, folder: Path) -> Any:
    """The call is over on all ranks before the signal strikes, and the next one tells the
    others.
    """

    def body(store: Any) -> None:
        if comm.rank == culprit_of(comm):
            agree = store._ranks.comm.allgather

            def struck(value: Any) -> Any:
                signal.raise_signal(signal.SIGINT)
                store._ranks.comm.allgather = agree
                return agree(value)

            store._ranks.comm.allgather = struck
        store.put_record(record_of(1))
        store.put_record(record_of(2))

    return attempt(comm, folder / "struck_inside.h5", body)


def an_unreadable_design_on_one_rank(comm: Any, folder: Path) -> Any:
    problem = plain_fit(design=Torn(here=comm.rank == culprit_of(comm)))

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        with store.fit(problem) as fit:
            fit.keep(result_of(problem))

    return attempt(comm, folder / "unreadable.h5", body)


def different_problems(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> Any:
        seen = []
        for call in (
            lambda: store.start_for(plain_fit(fingerprint=f"y:{comm.rank}")),
            lambda: store.keep(plain_fit(), result_of(plain_fit(), float(comm.rank))),
            lambda: store.put_record(record_of(comm.rank)),
            lambda: store.get_record(exact_key_of(comm.rank)),
        ):
            try:
                call()
            except CollectiveError as error:
                seen.append(caught(error))
        store.put_record(record_of(1))
        return seen

    return attempt(comm, folder / "different.h5", body)


def different_calls(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> None:
        store.put_record(record_of(1))
        if comm.rank == 0:
            store.keys()
        else:
            store.verify()

    return attempt(comm, folder / "calls.h5", body)


def a_bad_result_on_one_rank(comm: Any, folder: Path) -> Any:
    problem = plain_fit()

    def body(store: Any) -> None:
        store.put_record(record_of(1))
        store.keep(problem, "nonsense" if comm.rank == culprit_of(comm) else result_of(problem))

    return attempt(comm, folder / "result.h5", body)


def bad_arguments_to_open_on_one_rank(comm: Any, folder: Path) -> Any:
    try:
        opened(folder / "open.h5", comm, mode="w" if comm.rank == culprit_of(comm) else "a")
    except BaseException as error:  # what is raised is the answer
        return caught(error)
    return {"type": None}


def different_openings(comm: Any, folder: Path) -> Any:
    last = comm.rank == culprit_of(comm)

    def refused(name: str, **options: Any) -> Any:
        try:
            opened(folder / name, comm, **options)
        except BaseException as error:  # what is raised is the answer
            return caught(error)
        return {"type": None}

    return {
        "path": refused("one.h5" if last else "other.h5"),
        "mode": refused("one.h5", mode="r" if last else "a"),
        "engine": refused("one.h5", engine="one" if last else "other"),
        "made": sorted(path.name for path in folder.glob("o*.h5") if path.name != "open.h5"),
    }


def communicators_that_cannot_be_used(comm: Any, folder: Path) -> Any:
    from mpi4py import MPI

    freed = comm.Dup()
    freed.Free()
    half = comm.Split(comm.rank % 2, comm.rank)
    between = half.Create_intercomm(0, comm, 1 - comm.rank % 2)
    answers = {}
    for name, wrong in (("null", MPI.COMM_NULL), ("freed", freed), ("between groups", between)):
        for use in (lambda: gamwarm.open(folder / "null.h5", comm=wrong), lambda: gamwarm.Walltime(comm=wrong)):  # noqa: B023
            try:
                use()
            except BaseException as error:  # what is raised is the answer
                answers[name] = caught(error)
    for used in (between, half):
        used.Free()
    return answers


def after_the_end_of_mpi(comm: Any, folder: str) -> Any:
    """Use, leave and forget stores that were open when MPI ended; nothing may end the process."""
    from mpi4py import MPI

    stores = [opened(Path(folder) / "open.h5", comm) for _ in range(3)]
    problem = carrier_fit(range(4))
    stores[0].keep(problem, result_of(problem))
    MPI.Finalize()
    answers: list[Any] = []

    def leave() -> None:
        with stores[1]:
            raise ValueError("a bad day")

    for use in (stores[0].keys, stores[0].close, leave, lambda: gamwarm.open(Path(folder) / "new.h5", comm=comm)):
        try:
            use()
        except BaseException as error:  # what is raised is the answer
            answers.append(caught(error))
    return answers


def a_file_that_is_not_ours(comm: Any, folder: Path) -> Any:
    path = folder / "notes.txt"
    if comm.rank == 0:
        path.write_text("notes")
    comm.barrier()
    try:
        opened(path, comm)
    except BaseException as error:  # what is raised is the answer
        return caught(error)
    return {"type": None}


def a_bad_array_on_one_rank(comm: Any, folder: Path) -> Any:
    values = wave(4 * 4096, 4, 1)
    design: Any = values.astype(complex) if comm.rank == culprit_of(comm) else values
    try:
        matrix_digest(design, comm)
    except (CollectiveError, UnkeyableFit) as error:
        return caught(error)
    return {"type": None}


def fail_on_rank_0(comm: Any) -> Any:
    stack = contextlib.ExitStack()
    if comm.rank == 0:

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        vfs.DISK.fdatasync = full  # type: ignore[method-assign]
        stack.callback(lambda: delattr(vfs.DISK, "fdatasync"))
    return stack


def a_full_disk_under_warn(comm: Any, folder: Path) -> Any:
    problem = plain_fit()

    def body(store: Any) -> Any:
        store.put_record(record_of(1))
        with Warned() as warned, fail_on_rank_0(comm):
            put = settled(store.put_record(record_of(2 + comm.rank), each=True))
            with store.fit(problem) as fit:
                kept = fit.keep(result_of(problem))
            with store.transaction():
                late = store.put_record(record_of(50))
        outcomes = [put, settled(kept.record), settled(late)]
        return {
            "off": store.disabled_reason,
            "outcomes": outcomes,
            "start": brief_repr(fit.start),
            "warnings": warned.messages,
        }

    return attempt(comm, folder / "full.h5", body)


def a_full_disk_in_a_transaction(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> Any:
        store.put_record(record_of(1))
        with fail_on_rank_0(comm), store.transaction():
            outcome = store.put_record(record_of(2))
        return {"outcome": settled(outcome), "off": store.disabled_reason}

    return attempt(comm, folder / "full-transaction.h5", body)


def a_full_disk_under_raise(comm: Any, folder: Path) -> Any:
    def body(store: Any) -> None:
        store.put_record(record_of(1))
        with fail_on_rank_0(comm):
            store.put_record(record_of(2))

    return attempt(comm, folder / "raise.h5", body, on_error="raise")


RAISING = (
    raising_before_a_call,
    raising_after_the_last_call,
    raising_inside_a_fit,
    raising_inside_a_fit_of_each,
    raising_inside_a_transaction,
)
FAULTS = (
    *RAISING,
    interrupting_rank_0_inside_its_write,
    interrupting_one_rank_inside_its_design,
    interrupting_one_rank_inside_a_collective_call,
    an_unreadable_design_on_one_rank,
    different_problems,
    different_calls,
    a_bad_result_on_one_rank,
    another_each_on_one_rank,
    bad_arguments_to_open_on_one_rank,
    different_openings,
    communicators_that_cannot_be_used,
    a_file_that_is_not_ours,
    a_bad_array_on_one_rank,
    a_full_disk_under_warn,
    a_full_disk_in_a_transaction,
    a_full_disk_under_raise,
)


def faults(comm: Any, folder: str) -> Any:
    return {body.__name__: body(comm, Path(folder)) for body in FAULTS}


# -- killed ----------------------------------------------------------------------------------------


def work_until_killed(comm: Any, path: str, log: str) -> None:
    """Put batches for ever; rank 0 notes each acknowledged one."""
    with opened(Path(path), comm) as store, open(log, "a", buffering=1) as acknowledged:
        turn = 0
        while True:
            outcome = store.put_record(record_of(1000 * turn + comm.rank, rho=np.full(2, 0.5)), each=True)
            assert outcome.written
            if comm.rank == 0:
                acknowledged.write(f"{turn}\n")
            turn += 1
