"""A signal at any line of any public call, and what must hold afterwards.

``CALLS`` names every public call; `strike_at` runs one on a store of its own and lets a signal come
at the n-th line that gamwarm executes. ``python -m tests.support.interrupt_kit NAME...`` tries
lines of some calls and prints what is wrong; with ``--unshielded`` without the critical sections,
which must go wrong.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import fcntl
import gc
import logging
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import gamwarm
from gamwarm import interrupts
from gamwarm.archive import export_archive, import_archive, verify_archive
from gamwarm.entries import PutOutcome
from tests.support.stores import artifact_of, exact_key_of, plain_fit, record_of, result_of

__all__ = ["CALLS", "HARMLESS", "SIGNALS", "base_file", "count_lines", "lines_of", "strike_at"]

PATIENCE = 10.0
LATE = 0.05  # seconds in which a thread that was started counts among the running ones
PACKAGE = str(Path(gamwarm.__file__).parent)
STRAYS = 4
SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGUSR1: TimeoutError, signal.SIGTERM: SystemExit}
"""What is sent, and what its handler raises: Ctrl-C, a time limit of the user's, an orderly end."""


@dataclass
class Scene:
    """One store, the folder that it is in, and what its puts said."""

    folder: Path
    store: gamwarm.WarmStartStore
    told: list[PutOutcome] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "fits.h5"

    def put(self, store: Any, number: int) -> None:
        self.told.append(store.put_record(record_of(number)))


def _transaction(s: Scene) -> None:
    with s.store.transaction():
        for number in (20, 21):
            s.put(s.store, number)
        with s.store.transaction():
            s.told.append(s.store.put_artifact(artifact_of("s(t)", 20.0)))


def _independent(s: Scene) -> None:
    with s.store.independent(flush_entries=3) as own:
        for number in range(30, 34):
            s.put(own, number)
        own.get_record(exact_key_of(33))
        with own.transaction():
            s.put(own, 35)
        own.flush()
        s.put(own, 36)


def _fit(s: Scene) -> None:
    problem = plain_fit(7)
    with s.store.fit(problem) as fit:
        fit._last_written = -1e9
        s.told.append(fit.checkpoint(result_of(problem, 9.0, converged=False)))
        fit.should_stop()
        kept = fit.keep(result_of(problem, 2.0))
        s.told += [kept.record, kept.artifact]


def _keep(s: Scene) -> None:
    kept = s.store.keep(plain_fit(8), result_of(plain_fit(8)))
    s.told += [kept.record, kept.artifact]


def _frozen(s: Scene) -> None:
    view = s.store.frozen()
    view.start_for(plain_fit(1))
    with view.independent() as own:
        s.put(own.store, 40)


def _open(s: Scene) -> None:
    with gamwarm.open(s.folder / "new.h5", on_error="raise") as store:
        s.others.append(store)
    with gamwarm.open(s.path, on_error="raise") as store:
        len(store)


class _Rows:
    """A lazy design: its rows come from the user's code."""

    shape = (30, 4)

    def row_chunk(self, start: int, stop: int) -> Any:
        return np.arange(4.0 * start, 4.0 * stop).reshape(-1, 4)


def _source(s: Scene) -> Path:
    return Path(shutil.copy(s.folder / "other.h5", s.folder / "source.h5"))


CALLS: dict[str, tuple[Callable[[Scene], object], set[str]]] = {
    "open": (_open, {"open"}),
    "close": (lambda s: s.store.close(), {"close"}),
    "put_record": (lambda s: s.put(s.store, 10), {"put_record"}),
    "put_artifact": (lambda s: s.told.append(s.store.put_artifact(artifact_of("s(u)", 3.0))), {"put_artifact"}),
    "transaction": (_transaction, {"transaction"}),
    "get_record": (lambda s: [s.store.get_record(exact_key_of(k)) for k in (1, 1, 99)], {"get_record"}),
    "get_artifact": (lambda s: s.store.get_artifact(artifact_of().descriptor.key), {"get_artifact"}),
    "fit": (_fit, {"fit", "checkpoint", "keep", "should_stop"}),
    "keep": (_keep, {"keep"}),
    "start_for": (lambda s: s.store.start_for(plain_fit(2, design=_Rows())), {"start_for"}),
    "frozen": (_frozen, {"frozen", "start_for", "independent"}),
    "independent": (_independent, {"independent", "flush", "pending"}),
    "explain": (lambda s: s.store.explain(plain_fit(2)), {"explain"}),
    "savings": (lambda s: s.store.savings(), {"savings"}),
    "verify": (lambda s: s.store.verify(lambda *_: True), {"verify"}),
    "pin": (lambda s: s.store.pin(min(s.store.entry_ids())), {"pin", "entry_ids"}),
    "pins": (lambda s: s.store.pins(), {"pins"}),
    "evict": (lambda s: s.store.evict(max_age=10**6, size_budget=10**9), {"evict"}),
    "compact": (lambda s: s.store.compact(), {"compact"}),
    "merge": (lambda s: s.store.merge(_source(s)), {"merge"}),
    "counts": (lambda s: (len(s.store), s.store.keys(), s.store.generation, repr(s.store)), {"keys", "generation"}),
    "should_stop": (lambda s: s.store.should_stop(), {"should_stop"}),
    "export": (
        lambda s: export_archive(s.path, s.folder / "a.h5", title="t", creators="A B", license="CC0-1.0"),
        {"export_archive"},
    ),
    "import": (lambda s: import_archive(s.folder / "archive.h5", s.path), {"import_archive"}),
    "verify_archive": (lambda s: verify_archive(s.folder / "archive.h5", lambda *_: True), {"verify_archive"}),
    "salvage": (lambda s: s.store.salvage(s.folder / "salvaged.h5"), {"salvage"}),
}
"""What to do, and which public calls that tries."""

HARMLESS = {
    *("check_open", "comm", "disabled_reason", "labelled", "mode", "path", "problem", "should_stop_fits", "start"),
    *("store", "time_left", "walltime"),
}
"""They look at what this process has in memory, or at the clock."""


def base_file(folder: Path) -> Path:
    """Return a folder with a store, another one, and an archive: what every scene is a copy of."""
    base = folder / "base"
    base.mkdir()
    for name, numbers in (("fits.h5", (1, 2, 3)), ("other.h5", (3, 4, 5))):
        with gamwarm.open(base / name, on_error="raise") as store, store.transaction():
            for number in numbers:
                store.put_record(record_of(number))
                store.put_artifact(artifact_of("s(x)", float(number)))
            store.keep(plain_fit(1), result_of(plain_fit(1)))
    export_archive(base / "other.h5", base / "archive.h5", title="t", creators="A B", license="CC0-1.0")
    return base


class _Tracer:
    """Sends signals at certain lines that gamwarm (or contextlib, on its behalf) executes."""

    def __init__(self, at: tuple[int, ...], number: signal.Signals) -> None:
        self.at, self.number = at, number
        self.lines: list[tuple[str, int]] = []
        self.count = self.fired = 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        name = frame.f_code.co_filename
        return self.local if name.startswith(PACKAGE) or name.endswith("contextlib.py") else None

    def local(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.count += 1
            if not self.at:
                self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            elif self.count in self.at:
                self.fired += 1
                if self.count == max(self.at):
                    sys.settrace(None)
                signal.raise_signal(self.number)
        return self.local


class _Ear(logging.Handler):
    """Hears a sound file being called damaged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "salvage" in text or "damaged" in text:
            self.heard.append(text)


@contextlib.contextmanager
def _scene(base: Path) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(dir=base.parent) as place:
        folder = Path(place)
        for file in base.iterdir():
            shutil.copy(file, folder)
        store = gamwarm.open(folder / "fits.h5", on_error="raise")
        scene = Scene(folder, store)
        try:
            yield scene
        finally:
            scene.others.clear()
            with contextlib.suppress(gamwarm.GamwarmError):
                store.close()
            gc.collect()  # an independent store left without its end files what waits, with the folder there


@contextlib.contextmanager
def _handler(number: signal.Signals) -> Iterator[Callable[..., object]]:
    def handler(*_: object) -> None:
        raise SIGNALS[number]

    before = signal.signal(number, handler)
    try:
        yield handler
    finally:
        signal.signal(number, before)


def lines_of(name: str, base: Path) -> list[tuple[str, int]]:
    """Return the lines that gamwarm executes in a call, in their order."""
    with _scene(base) as scene:
        tracer = _Tracer((), signal.SIGINT)
        sys.settrace(tracer)
        try:
            CALLS[name][0](scene)
        finally:
            sys.settrace(None)
    return tracer.lines


def count_lines(name: str, base: Path) -> int:
    return len(lines_of(name, base))


def strike_at(name: str, base: Path, at: tuple[int, ...], number: signal.Signals = signal.SIGINT) -> list[str]:
    """Run a call with a signal at the lines numbered ``at``; return what is wrong afterwards."""
    for _ in range(STRAYS):
        # A signal that was posted for a moment later may come while this kit looks; then it looks
        # again.
        with contextlib.suppress(SIGNALS[number]):
            return _strike_at(name, base, at, number)
    return [f"signals strike long after the call: {STRAYS} times in a row"]


def _strike_at(name: str, base: Path, at: tuple[int, ...], number: signal.Signals) -> list[str]:
    ear, log = _Ear(), logging.getLogger("gamwarm")
    tracer = _Tracer(at, number)
    kept: BaseException | None = None
    threads = _thread._count()
    log.addHandler(ear)
    try:
        with _handler(number) as handler, _scene(base) as scene:
            sys.settrace(tracer)
            try:
                CALLS[name][0](scene)
            except BaseException as error:
                kept = error  # the traceback lives on, as it does in a notebook
            finally:
                sys.settrace(None)
            try:
                if tracer.fired:
                    kept = _what_comes_later(number, threads) or kept
                wrong = list(_wrong(scene, handler, number))
                if not tracer.fired and kept is not None:
                    raise kept
                if tracer.fired and not isinstance(kept, SIGNALS[number]):
                    wrong.append(f"the handler's exception became {kept!r}")
            finally:
                kept = None  # a store that only the traceback holds ends while its folder is there
    finally:
        log.removeHandler(ear)
    return wrong + [f"said: {text}" for text in ear.heard]


def _what_comes_later(number: signal.Signals, threads: int) -> BaseException | None:
    """Return what is raised by signals that were posted for a moment later, if any was.

    Each is posted by a thread of its own, which counts once it runs and which a busy machine may
    keep waiting: ``threads`` is how many there were before. Signals may come in a row, so they are
    noted here: one that raised could meet the next outside of any ``try``.
    """
    noted: list[int] = []
    before = signal.signal(number, lambda *_: noted.append(number))
    until = time.monotonic() + PATIENCE
    time.sleep(LATE)
    while _thread._count() > threads and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0)  # the handler of the last one runs here at the latest
    signal.signal(number, before)
    return SIGNALS[number]() if noted else None


def _wrong(scene: Scene, handler: object, number: signal.Signals) -> Iterator[str]:
    """Yield what does not hold in this process, in another thread, for another handle, and on
    disk.
    """
    shield = interrupts._shield
    if (shield.depth, shield.bodies, shield.finalizers, shield.window) != (0, 0, 0, None):
        yield f"inside a section still: {vars(shield)}"
    with open(scene.folder / "fits.h5.lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError:
            yield "the lock is held"
            return
    store = scene.store
    closed = store._ranks.closed
    met: list[Exception] = []

    def look() -> None:
        try:
            if not closed:
                store.get_record(exact_key_of(3))
        except Exception as error:
            met.append(error)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE)
    if looking.is_alive():
        yield "another thread never gets its turn"
        return
    if met:
        yield f"in another thread: {met[0]!r}"
    try:
        if closed:
            store = gamwarm.open(scene.path, on_error="raise")
        outcome = store.put_record(record_of(90))
        if not outcome.written:
            yield f"the next put is {outcome}"
        if signal.getsignal(number) is not handler:
            yield f"the handler in place is {signal.getsignal(number)}"
        with gamwarm.open(scene.path, on_error="raise") as other:
            if not other.put_record(record_of(91)).written:
                yield "another handle's put is not written"
            report = other.verify()
            if not report.ok:
                yield f"verify: {report}"
            there = other.entry_ids()
    except Exception as error:
        yield f"afterwards: {type(error).__name__}: {error}"
        return
    finally:
        if closed:
            store.close()
    for outcome in scene.told:
        if outcome.written and outcome.entry_id not in there:
            yield f"acknowledged and not there: {outcome}"
        if not outcome.written and not outcome.reason and not outcome.pending:
            yield f"not written, and does not say why: {outcome}"


def main(arguments: list[str]) -> int:
    """Try some lines of the calls named; print what is wrong; exit code 1 if anything is."""
    made = argparse.ArgumentParser()
    made.add_argument("calls", nargs="*", metavar="NAME")
    made.add_argument("--every", type=int, default=1)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--unshielded", action="store_true")
    given = made.parse_args(arguments)
    if given.unshielded:
        globals()["PATIENCE"] = 2.0
        interrupts._Shield.enter = lambda self: interrupts.NOT_MAIN  # type: ignore[method-assign]
    bad = tried = 0
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = base_file(Path(folder))
        for name in given.calls or CALLS:
            for n in range(1 + rng.randrange(given.every), count_lines(name, base) + 1, given.every):
                number = rng.choice(list(SIGNALS))
                tried += 1
                for text in strike_at(name, base, (n,), number):
                    bad += 1
                    print(f"{name}, {number.name} at line {n}: {text}", flush=True)
                    if given.unshielded:
                        return 1
    print(f"{tried} signals, {bad} wrong")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
