"""Every collective call of a store, with a rank that fails before, in or after it, or a disk that
fails on rank 0.

`CALLS` is the table: a call, and the same call with an argument that is wrong.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gamwarm
from gamwarm import StoreUnavailable, exact_key, folds, matrix_digest
from tests.mpi.bodies import Warned, caught
from tests.support.campaigns import GROUPS, Solver
from tests.support.problems import wave
from tests.support.stores import artifact_of, exact_key_of, plain_fit, record_of, result_of

NONSENSE: Any = "nonsense"


@dataclass(frozen=True)
class Call:
    """One public call: what it touches beside the agreement, and how a wrong argument looks."""

    make: Callable[[Any, Path], Any]
    wrong: Callable[[Any, Path], Any] | None = None
    at_file: bool = True


def in_a_fit(store: Any, do: Callable[[Any], Any], **how: Any) -> Any:
    with store.fit(plain_fit(), **how) as fit:
        return do(fit)


def in_a_transaction(store: Any, record: Any) -> Any:
    with store.transaction():
        return store.put_record(record)


def by_itself(store: Any, _: Path, **pace: Any) -> None:
    with store.independent(**pace) as own:
        own.keys()


def salvaged(store: Any, place: Path) -> Any:
    into = place / "salvaged.h5"
    if store.comm.rank == 0:
        into.unlink(missing_ok=True)
    return store.salvage(into)


def all_folds(store: Any, groups: Any) -> Any:
    return folds.leave_one_out(store, groups, Solver(), progress=False)


def key_of(store: Any, design: Any) -> Any:
    problem = plain_fit(design=design)
    return exact_key(problem.family, problem.specs, problem.options, engine="tests", comm=store.comm)


CALLS: dict[str, Call] = {
    "start_for": Call(lambda s, _: s.start_for(plain_fit()), lambda s, _: s.start_for(NONSENSE)),
    "start_for each": Call(
        lambda s, _: s.start_for(plain_fit(), each=True), lambda s, _: s.start_for(NONSENSE, each=True)
    ),
    "start_for named": Call(
        lambda s, _: s.start_for(plain_fit(), parent="0" * 32), lambda s, _: s.start_for(plain_fit(), parent="x")
    ),
    "fit": Call(lambda s, _: in_a_fit(s, id), lambda s, _: s.fit(NONSENSE).__enter__()),
    "fit each": Call(lambda s, _: in_a_fit(s, id, each=True), lambda s, _: s.fit(NONSENSE, each=True).__enter__()),
    "fit checkpoint": Call(
        lambda s, _: in_a_fit(s, lambda fit: fit.checkpoint(result_of(fit.problem, converged=False))),
        lambda s, _: in_a_fit(s, lambda fit: fit.checkpoint(NONSENSE)),
    ),
    "fit keep": Call(
        lambda s, _: in_a_fit(s, lambda fit: fit.keep(result_of(fit.problem))),
        lambda s, _: in_a_fit(s, lambda fit: fit.keep(NONSENSE)),
    ),
    "keep": Call(lambda s, _: s.keep(plain_fit(), result_of(plain_fit())), lambda s, _: s.keep(plain_fit(), NONSENSE)),
    "keep each": Call(
        lambda s, _: s.keep(plain_fit(), result_of(plain_fit()), each=True),
        lambda s, _: s.keep(plain_fit(), NONSENSE, each=True),
    ),
    "put_record": Call(lambda s, _: s.put_record(record_of(2)), lambda s, _: s.put_record(NONSENSE)),
    "put_record each": Call(
        lambda s, _: s.put_record(record_of(2), each=True), lambda s, _: s.put_record(NONSENSE, each=True)
    ),
    "put_artifact": Call(lambda s, _: s.put_artifact(artifact_of()), lambda s, _: s.put_artifact(NONSENSE)),
    "get_record": Call(lambda s, _: s.get_record(exact_key_of(1)), lambda s, _: s.get_record(NONSENSE)),
    "get_artifact": Call(
        lambda s, _: s.get_artifact(artifact_of().descriptor.key), lambda s, _: s.get_artifact(NONSENSE)
    ),
    "keys": Call(lambda s, _: s.keys()),
    "entry_ids": Call(lambda s, _: s.entry_ids()),
    "len": Call(lambda s, _: len(s)),
    "generation": Call(lambda s, _: s.generation),
    "savings": Call(lambda s, _: s.savings()),
    "verify": Call(lambda s, _: s.verify()),
    "salvage": Call(salvaged, lambda s, _: s.salvage(5), at_file=False),
    "explain": Call(lambda s, _: s.explain(plain_fit()), lambda s, _: s.explain(NONSENSE)),
    "frozen": Call(lambda s, _: s.frozen()),
    "frozen start_for": Call(
        lambda s, _: s.frozen().start_for(plain_fit()), lambda s, _: s.frozen().start_for(NONSENSE)
    ),
    "should_stop": Call(lambda s, _: s.should_stop(), at_file=False),
    "pins": Call(lambda s, _: s.pins()),
    "pin": Call(lambda s, _: s.pin("0" * 32), lambda s, _: s.pin(NONSENSE)),
    "evict": Call(lambda s, _: s.evict(10**9), lambda s, _: s.evict(-1)),
    "merge": Call(lambda s, place: s.merge(place / "other.h5"), lambda s, _: s.merge(5)),
    "compact": Call(lambda s, _: s.compact()),
    "transaction": Call(lambda s, _: in_a_transaction(s, record_of(2)), lambda s, _: in_a_transaction(s, NONSENSE)),
    "independent": Call(by_itself, lambda s, place: by_itself(s, place, flush_entries=0), at_file=False),
    "close": Call(lambda s, _: s.close(), at_file=False),
    "matrix_digest": Call(
        lambda s, _: matrix_digest(wave(9000, 3, 1), s.comm),
        lambda s, _: matrix_digest(wave(9000, 3, 1).astype(complex), s.comm),
        at_file=False,
    ),
    "exact_key": Call(lambda s, _: key_of(s, wave(9000, 4, 1)), at_file=False),
    "leave_one_out": Call(lambda s, _: all_folds(s, GROUPS), lambda s, _: all_folds(s, GROUPS[:1]), at_file=False),
}

LOCAL = {"open", "fit", "comm", "disabled_reason", "path", "mode"}
LOCAL |= {"time_left", "walltime", "check_open", "should_stop_fits"}
"""Public names of a store that are no collective call of their own (``fit`` begins at the
``with``).
"""


class Gone:
    """A file whose disk has gone: every look at it and every write fails."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        raise StoreUnavailable("the disk is gone")

    def __len__(self) -> int:
        raise StoreUnavailable("the disk is gone")

    def close(self) -> None:
        self.real.close()


def attempt(comm: Any, path: Path, body: Callable[[Any], Any], **options: Any) -> dict[str, Any]:
    """Run ``body`` in ``with store:`` and return what came out of it."""
    try:
        with gamwarm.open(path, comm=comm, **options) as store:
            body(store)
            answer: dict[str, Any] = {"type": None, "off": store.disabled_reason}
    except BaseException as error:  # what is raised is the answer
        answer = caught(error)
    return answer


def is_crowd(size: int) -> bool:
    """Whether there are so many ranks that, on few cores, some of the ways to fail must do."""
    return size > 3


def culprits(size: int) -> list[int]:
    """Which ranks fail, in turn."""
    return [size - 1] if is_crowd(size) else [0, size - 1]


def before_and_after(comm: Any, path: Path, call: Call, culprit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    def raising_before(store: Any) -> None:
        if comm.rank == culprit:
            raise ValueError("a bad day")
        call.make(store, path.parent)

    def raising_after(store: Any) -> None:
        call.make(store, path.parent)
        if comm.rank == culprit:
            raise ValueError("a bad day")
        if path.stem != "close":
            call.make(store, path.parent)

    def wrong(store: Any) -> None:
        assert call.wrong is not None
        (call.wrong if comm.rank == culprit else call.make)(store, path.parent)

    yield f"before, rank {culprit}", attempt(comm, path, raising_before)
    if path.stem != "close" and not is_crowd(comm.size):  # after it there is nothing more to agree on
        yield f"after, rank {culprit}", attempt(comm, path, raising_after)
    if call.wrong is not None:
        yield f"wrong, rank {culprit}", attempt(comm, path, wrong)


def without_disk(comm: Any, path: Path, call: Call, on_error: str) -> dict[str, Any]:
    def body(store: Any) -> None:
        if comm.rank == 0:
            store._writes.file = Gone(store._writes.file)
        call.make(store, path.parent)

    with Warned() as warned:
        answer = attempt(comm, path, body, on_error=on_error)
    return answer | {"warnings": len(warned.messages)}


def every_call(comm: Any, folder: str) -> Any:
    """Return, per call, what each way of failing gave on this rank, and what serial verification
    says in the end.
    """
    place = Path(folder)
    if comm.rank == 0:
        with gamwarm.open(place / "other.h5") as other:
            other.put_record(record_of(77))
    comm.barrier()
    answers: dict[str, Any] = {}
    for name, call in CALLS.items():
        path = place / f"{name}.h5"
        with gamwarm.open(path, comm=comm) as store:
            store.put_record(record_of(1))
        mine: dict[str, Any] = {}
        for culprit in culprits(comm.size):
            mine |= before_and_after(comm, path, call, culprit)
        if call.at_file:
            for on_error in ("raise",) if is_crowd(comm.size) else ("raise", "warn"):
                mine[f"disk, {on_error}"] = without_disk(comm, path, call, on_error)
        answers[name] = mine
    comm.barrier()
    sound = True
    if comm.rank == 0:
        for name in CALLS:
            with gamwarm.open(place / f"{name}.h5", "r") as store:
                sound = sound and store.verify().ok and store.get_record(exact_key_of(1)) is not None
    return {"answers": answers, "sound": sound}


# -- a disk that is full in earnest ----------------------------------------------------------------


@contextlib.contextmanager
def no_more_room(comm: Any, path: Path) -> Iterator[None]:
    """Let no file of rank 0 grow beyond the store's present size: what a full disk or a quota
    does.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if comm.rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        if comm.rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def big(number: int) -> Any:
    """A record that does not fit into what room a new file has left."""
    return record_of(number, block_dims=[30_000, 2], block_beta=[np.full(30_000, 0.5), [4.0, 5.0]])


WRITES: dict[str, Callable[[Any, Any, Path], Any]] = {
    "put": lambda store, comm, _: store.put_record(big(5)),
    "put each": lambda store, comm, _: store.put_record(big(10 + comm.rank), each=True),
    "transaction": lambda store, comm, _: in_a_transaction(store, big(5)),
    "merge": lambda store, comm, place: store.merge(place / "big.h5"),
    "own flush": lambda store, comm, _: flushed(store, big(20 + comm.rank)),
}


def flushed(store: Any, record: Any) -> Any:
    with store.independent() as own:
        return own.put_record(record)


def a_full_disk(comm: Any, folder: str) -> Any:
    place = Path(folder)
    if comm.rank == 0:
        with gamwarm.open(place / "big.h5") as other:
            other.put_record(big(77))
    comm.barrier()
    answers: dict[str, Any] = {}
    for name, write in WRITES.items():
        for on_error in ("raise", "warn"):
            path = place / f"{name}-{on_error}.h5"
            with Warned() as warned:
                try:
                    with gamwarm.open(path, comm=comm, on_error=on_error) as store:
                        store.put_record(record_of(1))
                        before = sorted(store.keys())
                        with no_more_room(comm, path):
                            made = write(store, comm, place)
                        answer: dict[str, Any] = {"type": None, "off": store.disabled_reason, "made": settled(made)}
                except Exception as error:
                    answer = caught(error)
            comm.barrier()
            with gamwarm.open(path, comm=comm, on_error="raise") as store:
                answer["sound"] = store.verify().ok
                answer["before"] = before == [exact_key_of(1)]
                answer["keys"] = len(store.keys())
                answer["goes on"] = store.put_record(big(6)).written
            answers[f"{name}, {on_error}"] = answer | {"warnings": len(warned.messages)}
    return answers


def settled(made: Any) -> Any:
    return {name: getattr(made, name, None) for name in ("written", "pending", "reason")}


# -- a rank that dies ------------------------------------------------------------------------------


def dying(comm: Any, path: str, log: str, how: str) -> None:
    """Rank 1 leaves by ``how`` in the middle of the work; rank 0 has noted what was
    acknowledged.
    """
    with gamwarm.open(Path(path), comm=comm) as store, Path(log).open("a", buffering=1) as acknowledged:
        for turn in range(1000):
            if turn == 5 and comm.rank == 1:
                if how == "abort":
                    comm.Abort(3)
                os._exit(4)
            outcome = store.put_record(record_of(1000 * turn + comm.rank), each=True)
            assert outcome.written
            if comm.rank == 0:
                acknowledged.write(f"{turn}\n")
