"""Work done in a forked child that may be killed at any call it makes on its files, and what it
promised.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gamwarm import BlockRecord, FitArtifact
from gamwarm.entries import EntryStore
from gamwarm.maintenance import verify
from gamwarm.storage import vfs
from tests.support import crash_simulator as kit
from tests.support.torture_model import STORE_PRODUCER, Model, random_artifact, random_record, see

__all__ = ["Plan", "in_child", "kill_round", "put_in_child", "random_plan"]

Plan = list[list[BlockRecord | FitArtifact]]
"""Transactions of entries."""


class Dying(kit.Fast):
    """Kills its own process in the middle of the n-th changing call: half of a write is done."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def _count(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _maybe(self) -> None:
        if self._count():
            os.kill(os.getpid(), signal.SIGKILL)

    def pwrite(self, fd: int, data: Any, offset: int) -> None:
        if self._count():
            with contextlib.suppress(OSError):
                super().pwrite(fd, bytes(data)[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        self._maybe()

    def ftruncate(self, fd: int, size: int) -> None:
        self._maybe()
        super().ftruncate(fd, size)

    def fallocate(self, fd: int, offset: int, count: int) -> None:
        self._maybe()
        super().fallocate(fd, offset, count)

    def unlink(self, path: Path) -> None:
        self._maybe()
        super().unlink(path)

    def rename(self, source: Path, target: Path) -> None:
        self._maybe()
        super().rename(source, target)


def _say(fd: int) -> None:
    os.write(fd, b".")


def in_child(act: Callable[[Callable[[], None]], None], die_after: int | None = None) -> tuple[int, bool]:
    """Fork and do `act(acknowledge)`; returns acknowledgements and whether the child was killed.

    Raises
    ------
    AssertionError
        The child failed; with its traceback.
    """
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as words:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other threads (a watchdog's) are not needed in the child
            pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.close(reading)
                if die_after is not None:
                    vfs.DISK = Dying(die_after)
                act(lambda: _say(writing))
                code = 0
            except BaseException:
                os.write(words.fileno(), traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, "rb") as pipe:
            acked = len(pipe.read())
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and die_after is not None:
            return acked, True
        words.seek(0)
        assert status == 0, f"child ended with status {status}: {words.read().decode()}"
        return acked, False


def put_in_child(path: Path, plan: Plan, die_after: int | None) -> tuple[int, bool]:
    """Do the transactions of a plan in a child; returns how many it was promised and whether it was
    killed.
    """

    def act(acknowledge: Callable[[], None]) -> None:
        with contextlib.closing(EntryStore(path, producer=STORE_PRODUCER)) as store:
            for entries in plan:
                with store.transaction():
                    for entry in entries:
                        if isinstance(entry, BlockRecord):
                            store.put_record(entry)
                        else:
                            store.put_artifact(entry)
                acknowledge()

    return in_child(act, die_after)


def random_plan(rng: random.Random, salt: int) -> Plan:
    """A few transactions of a few entries."""
    plan: Plan = []
    for step in range(rng.randrange(1, 4)):
        entries: list[BlockRecord | FitArtifact] = []
        for each in range(rng.randrange(1, 4)):
            number = salt * 100 + step * 10 + each
            big = rng.random() < 0.05
            entries.append(
                random_record(rng, salt=number, big=big)
                if rng.random() < 0.6
                else random_artifact(rng, salt=number, big=big)
            )
        plan.append(entries)
    return plan


def models_after(model: Model, plan: Plan) -> list[Model]:
    """The model after 0, 1, … transactions of the plan."""
    models = [model]
    for entries in plan:
        model = model.copy()
        for entry in entries:
            if isinstance(entry, BlockRecord):
                model.put_record(entry)
            else:
                model.put_artifact(entry)
        models.append(model)
    return models


def settle(store: EntryStore, models: list[Model], acked: int, killed: bool) -> Model:
    """Return the model that the store shows: after what was acknowledged or, killed, the
    transaction in flight.
    """
    report = verify(store)
    assert report.ok, [str(problem) for problem in report.problems]
    shown = see(store)
    for model in models[acked : acked + 1 + killed]:
        if shown == model.seen():
            return model
    known = [index for index, model in enumerate(models) if shown == model.seen()]
    raise AssertionError(f"after {acked} acknowledged transactions the store shows {known or 'none of them'}")


def kill_round(directory: Path, seed: int, children: int) -> Counter[str]:
    """One store, a child after the other, most of them killed; each leaves what the next one
    finds.
    """
    kit.fresh(directory)
    path = directory / kit.NAME
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    model = Model()
    for turn in range(children):
        plan = random_plan(rng, salt=seed % 1000 * 1000 + turn)
        die_after = rng.randrange(1, 40) if rng.random() < 0.9 else None
        acked, killed = put_in_child(path, plan, die_after)
        counts["children killed" if killed else "children that ended"] += 1
        counts["acknowledged transactions"] += acked
        models = models_after(model, plan)
        mode = "a" if rng.random() < 0.6 or not path.exists() else "r"
        with contextlib.closing(EntryStore(path, mode=mode, producer=STORE_PRODUCER)) as store:  # type: ignore[arg-type]
            model = settle(store, models, acked, killed)
    return counts
