"""Thousands of Ctrl-C on one writer, at random, with a second process on the same file.

`storm` starts both, sends the signals and judges: nothing acknowledged is missing, nobody waits for
a lock that nobody holds, no sound file is called damaged.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gamwarm
from gamwarm.entries import PutOutcome
from tests.support.stores import artifact_of, exact_key_of, plain_fit, record_of, result_of

__all__ = ["storm"]

HERE = Path(__file__).resolve().parents[2]
SLOW = 20.0
"""Seconds for one put beside a storm; a lock that stays held would take the sixty of the
time-out.
"""
FULL = 5
"""Errors that are told with their tracebacks."""
NEIGHBOUR = 10_000_000
"""The keys of the second process begin here."""


def _report_of(path: Path, who: str) -> Path:
    return path.with_name(f"{path.stem}-{who}.json")


class _Storm:
    """SIGINT raises in what is under way, at most `shots` times; between two acts it does
    nothing.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.shots = 0
        self.came = self.struck = 0

    def __call__(self, *_: object) -> None:
        self.came += 1
        if self.shots:
            self.shots -= 1
            self.struck += 1
            raise KeyboardInterrupt

    def run(self, act: Any) -> BaseException | None:
        kept: BaseException | None = None
        try:
            try:
                self.shots = self.rng.choice((1, 1, 1, 2))
                act()
                self.shots = 0
            except KeyboardInterrupt as error:
                kept = error
            except BaseException as error:
                self.shots = 0
                kept = error
        except KeyboardInterrupt as error:  # the second one, while the first was caught
            kept = error
        self.shots = 0
        return kept


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _writer(path: Path, seed: int, strikes: int, seconds: float) -> None:
    rng = random.Random(seed)
    storm = _Storm(rng)
    heard = _Heard()
    logging.getLogger("gamwarm").addHandler(heard)
    logging.getLogger("gamwarm").propagate = False
    told: list[PutOutcome] = []
    wrong: list[str] = []
    acts: Counter[str] = Counter()
    stores = [gamwarm.open(path, on_error="raise")]
    number = 0
    fits = [plain_fit(each) for each in range(6)]

    def put(store: Any, each: int) -> None:
        told.append(store.put_record(record_of(number + each)))

    def transaction() -> None:
        with stores[0].transaction():
            for each in range(rng.randrange(1, 9)):
                put(stores[0], each)
            told.append(stores[0].put_artifact(artifact_of("s(x)", float(number))))

    def fit() -> None:
        problem = rng.choice(fits)
        with stores[0].fit(problem) as begun:
            kept = begun.keep(result_of(problem, 1.0 + number))
            told.append(kept.artifact)  # records of one key replace each other

    def independent() -> None:
        with stores[0].independent(flush_entries=4) as own:
            for each in range(rng.randrange(1, 7)):
                put(own, each)

    def again() -> None:
        stores[0].close()
        stores[0] = gamwarm.open(path, on_error="raise")

    def look() -> None:
        stores[0].get_record(exact_key_of(rng.randrange(number + 1)))
        stores[0].frozen().start_for(rng.choice(fits))

    acts_of: dict[str, tuple[Callable[[], object], int]] = {
        "put": (lambda: put(stores[0], 0), 12),
        "transaction": (transaction, 8),
        "fit": (fit, 4),
        "independent": (independent, 3),
        "again": (again, 2),
        "look": (look, 4),
        "verify": (lambda: stores[0].verify(), 1),
        "compact": (lambda: stores[0].compact(), 1),
        "evict": (lambda: stores[0].evict(max_age=10**6), 1),
        "savings": (lambda: stores[0].savings(), 1),
    }
    signal.signal(signal.SIGINT, storm)
    print("ready", flush=True)
    deadline = time.monotonic() + seconds
    kept: BaseException | None = None  # as a notebook keeps it
    while storm.struck < strikes and time.monotonic() < deadline:
        number += 10
        name = rng.choices(list(acts_of), [weight for _, weight in acts_of.values()])[0]
        begun = time.monotonic()
        kept = storm.run(acts_of[name][0])
        took = time.monotonic() - begun
        acts[name] += 1
        if kept is not None and not isinstance(kept, KeyboardInterrupt):
            if isinstance(kept, gamwarm.StoreClosed) and stores[0]._ranks.closed:
                stores[0] = gamwarm.open(path, on_error="raise")  # `again` was struck between its two calls
            else:
                wrong.append(
                    f"{name}: {''.join(traceback.format_exception(kept)) if len(wrong) < FULL else repr(kept)}"
                )
        if took > SLOW and name == "put":
            wrong.append(f"{name} took {took:.1f} s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    del kept
    stores[0].close()
    report = {
        "came": storm.came,
        "struck": storm.struck,
        "acts": acts,
        "written": [outcome.entry_id for outcome in told if outcome.written],
        "not_written": sum(not (outcome.written or outcome.pending) for outcome in told),
        "silent": sum(not (outcome.written or outcome.pending or outcome.reason) for outcome in told),
        "wrong": wrong,
        "heard": [text for text in heard.texts if "salvage" in text or "damaged" in text],
    }
    _report_of(path, "write").write_text(json.dumps(report))


def _neighbour(path: Path) -> None:
    written: list[str | None] = []
    slowest = 0.0
    with gamwarm.open(path, on_error="raise") as store:
        print("ready", flush=True)
        number = NEIGHBOUR
        stop = False

        def end(*_: object) -> None:
            nonlocal stop
            stop = True

        signal.signal(signal.SIGTERM, end)
        while not stop:
            number += 1
            begun = time.monotonic()
            outcome = store.put_record(record_of(number))
            slowest = max(slowest, time.monotonic() - begun)
            assert outcome.written, f"the process beside: {outcome}"
            written.append(outcome.entry_id)
            time.sleep(0.02)
    _report_of(path, "beside").write_text(json.dumps({"written": written, "slowest": slowest}))


class _SetElsewhereError(Exception):
    pass


def _hit_from_elsewhere(path: Path, seed: int) -> None:
    """Set exceptions in a thread that puts; print what was acknowledged, and whether the store can
    be used then.
    """
    rng = random.Random(seed)
    sys.unraisablehook = lambda _: None  # one may come in a finalizer
    logging.getLogger("gamwarm").addHandler(logging.NullHandler())
    done = threading.Event()
    with gamwarm.open(path, on_error="raise") as store:

        def work() -> None:
            number = NEIGHBOUR
            while not done.is_set():
                number += 1
                with contextlib.suppress(Exception):
                    print(store.put_record(record_of(number)).entry_id, flush=True)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(60):
            time.sleep(rng.choice((0.001, 0.003, 0.005)))
            target = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(_SetElsewhereError))
        done.set()
        thread.join()
        if store.put_record(record_of(2)).written:
            print("\nusable", flush=True)


def storm(path: Path, seed: int, strikes: int, seconds: float) -> Counter[str]:
    """Strike one writer so many times (or for so long); return counts.

    Raises
    ------
    AssertionError
        What did not hold.
    """
    rng = random.Random(seed)
    gamwarm.open(path).close()
    command = [sys.executable, "-m", "tests.support.interrupt_storm", str(path)]
    writer = subprocess.Popen(
        [*command, "write", str(seed), str(strikes), str(seconds)], stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    neighbour = subprocess.Popen([*command, "beside"], stdout=subprocess.PIPE, text=True, cwd=HERE)
    try:
        for who, process in (("writer", writer), ("process beside", neighbour)):
            assert process.stdout is not None
            begun = process.stdout.readline()
            assert begun == "ready\n", f"the {who} did not begin: {begun!r}"
        while writer.poll() is None:
            writer.send_signal(signal.SIGINT)
            time.sleep(rng.choice((0.0, 0.0001, 0.001, 0.002, 0.004)))
        neighbour.terminate()
        neighbour.wait(60)
        for who, process in (("writer", writer), ("process beside", neighbour)):
            assert process.returncode == 0, f"the {who} ended with {process.returncode}; its error is above"
        said, beside = (json.loads(_report_of(path, who).read_text()) for who in ("write", "beside"))
    finally:
        for process in (writer, neighbour):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    with gamwarm.open(path, on_error="raise") as store:
        there = store.entry_ids()
        report = store.verify()
    lost = (set(said["written"]) | set(beside["written"])) - there
    assert not lost, f"{len(lost)} acknowledged entries are not there"
    assert not said["wrong"], f"{len(said['wrong'])} errors:\n" + "\n".join(said["wrong"][:FULL])
    assert not said["heard"], f"a sound file was called damaged: {said['heard'][:5]}"
    assert not said["silent"], f"{said['silent']} outcomes are not written and do not say why"
    assert beside["slowest"] < SLOW, f"a put of the process beside took {beside['slowest']:.1f} s"
    assert report.ok, f"verify: {report}"
    return Counter(
        {
            "interrupts sent and received": said["came"],
            "interrupts that struck a call": said["struck"],
            "acknowledged by the writer": len(said["written"]),
            "taken back, saying why": said["not_written"],
            "acknowledged by the process beside": len(beside["written"]),
            "longest wait of the process beside, ms": round(1000 * beside["slowest"]),
            **{f"calls: {name}": count for name, count in said["acts"].items()},
        }
    )


if __name__ == "__main__":
    if sys.argv[2] == "write":
        _writer(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    elif sys.argv[2] == "async":
        _hit_from_elsewhere(Path(sys.argv[1]), int(sys.argv[3]))
    else:
        _neighbour(Path(sys.argv[1]))
