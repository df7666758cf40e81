"""Faults below libc: every work of a store, with the n-th call on its files killed, failed or cut
short.

`Faults` builds ``faults.c`` and starts one process under it (``python -m tests.support.faults``).
For every run that process forks a child, which arms the library and works, and then judges what the
child left: everything acknowledged is there and is what was put, nothing is partial, the file opens
and verifies, and the child raised nothing untyped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import gamwarm
from gamwarm import BlockRecord
from gamwarm.archive import export_archive, import_archive, verify_archive
from gamwarm.maintenance import salvage_worker
from gamwarm.storage import header as _header
from gamwarm.storage import pager, redo_journal
from gamwarm.storage.overlay import Overlay
from tests.support.stores import artifact_of, record_of

__all__ = ["ACTIONS", "CONTROLS", "WORKS", "Faults", "Wrong", "compiler", "some_runs"]

SOURCE: Final = Path(__file__).with_name("faults.c")
PATIENCE: Final = 60.0
"""Seconds after which a child counts as hung."""

# As faults.c has them.
COUNT, KILL_BEFORE, KILL_MIDDLE, FAIL_ONCE, FAIL_ON, HALVE = range(1, 7)
OPEN, MAKE, READ, WRITE, SYNC, SIZE, NAME = (1 << bit for bit in range(7))
CHANGES: Final = MAKE | WRITE | SYNC | SIZE | NAME
EVERYTHING: Final = CHANGES | OPEN | READ
GROWTH: Final = MAKE | WRITE | SIZE | NAME

ACTIONS: Final[dict[str, tuple[int, int, int]]] = {
    "killed before": (KILL_BEFORE, CHANGES, 0),
    "killed in the middle": (KILL_MIDDLE, CHANGES, 0),
    "EIO once": (FAIL_ONCE, EVERYTHING, errno.EIO),
    "EIO from then on": (FAIL_ON, EVERYTHING, errno.EIO),
    "ESTALE once": (FAIL_ONCE, EVERYTHING, errno.ESTALE),
    "ESTALE from then on": (FAIL_ON, EVERYTHING, errno.ESTALE),
    "ENOSPC once": (FAIL_ONCE, GROWTH, errno.ENOSPC),
    "ENOSPC from then on": (FAIL_ON, GROWTH, errno.ENOSPC),
    "EDQUOT from then on": (FAIL_ON, GROWTH, errno.EDQUOT),
    "EMFILE from then on": (FAIL_ON, OPEN | MAKE, errno.EMFILE),
    "EINTR": (FAIL_ONCE, READ | WRITE | SYNC | SIZE | OPEN | MAKE, errno.EINTR),
    "cut short": (HALVE, READ | WRITE, 0),
}
"""What happens, to which calls, and the error."""


class Wrong(AssertionError):
    """A run that broke a promise."""


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


# -- what a child does -----------------------------------------------------------------------------

BASE: Final = range(1, 7)
OTHERS: Final = range(11, 15)
BIG: Final = 24
NEXT: Final = 99
"""What the next run puts."""


def numbered(number: int) -> BlockRecord:
    """A record all of whose numbers say the same; one of them is big."""
    width = 9000 if number == BIG else 60
    return record_of(number, float(number), block_names=["x"], block_dims=[width], block_beta=[[float(number)] * width])


def to_archive(path: Path, out: Path) -> None:
    export_archive(path, out, title="t", creators="A. Person", license="CC0-1.0")


class Notes:
    """What a child promised, kept in a file that no fault strikes.

    Parameters
    ----------
    fd : int
    on_error : str
        Of every store that it opens.
    """

    def __init__(self, fd: int, on_error: str) -> None:
        self._fd = fd
        self.on_error: Any = on_error

    def say(self, *words: object) -> None:
        os.write(self._fd, (json.dumps(words) + "\n").encode())

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A typed error ends the step, not the work."""
        try:
            yield
        except gamwarm.GamwarmError as error:
            self.say("error", type(error).__name__, str(error))

    def put(self, store: Any, *numbers: int) -> None:
        for number in numbers:
            with self.step():
                self.say("try", number)
                if store.put_record(numbered(number)).written:
                    self.say("ack", number)


def create(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        notes.put(store, 21, 22)


def put(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        notes.put(store, 21, 3, 22)
        with notes.step():
            store.put_artifact(artifact_of("s(x)", 21.0))


def transaction(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        outcomes = {}
        with notes.step(), store.transaction():
            for number in (21, 22, 23, BIG, 25):
                notes.say("try", number)
                outcomes[number] = store.put_record(numbered(number))
        for number, outcome in outcomes.items():
            if outcome.written:
                notes.say("ack", number)
        notes.put(store, 26)


def read(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, mode="r", on_error=notes.on_error) as store:
        for number in BASE:
            with notes.step():
                record = store.get_record(numbered(number).key)
                if record is not None and not is_whole(record, number):
                    notes.say("wrong", f"record {number} is read with other numbers")
        with notes.step():
            store.verify()


def compact(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        notes.put(store, 21)
        with notes.step():
            store.compact()
        notes.put(store, 22)


def evict(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        with notes.step():
            notes.say("may go", *BASE)
            store.evict(size_budget=3000)
        notes.put(store, 21)


def merge(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        with notes.step():
            notes.say("try", *OTHERS)
            if store.merge(path.with_name("other.h5")).added:
                notes.say("ack", *OTHERS)
        notes.put(store, 21)


def export(path: Path, notes: Notes) -> None:
    with notes.step():
        to_archive(path, path.with_name("out.h5"))
        notes.say("made", "out.h5")


def import_(path: Path, notes: Notes) -> None:
    with notes.step():
        notes.say("try", *OTHERS)
        if import_archive(path.with_name("archive.h5"), path).added:
            notes.say("ack", *OTHERS)


def salvaged(path: Path, notes: Notes) -> None:
    vars(subprocess)["Popen"] = ForkedReader
    with notes.step():
        report = gamwarm.salvage(path, path.with_name("out.h5"))
        if len(report.copied) >= len(BASE):
            notes.say("made", "out.h5")


def independent(path: Path, notes: Notes) -> None:
    with notes.step(), gamwarm.open(path, on_error=notes.on_error) as store:
        outcomes = {}
        with notes.step(), store.independent() as own:
            for number in (21, 22, 23):
                notes.say("try", number)
                outcomes[number] = own.put_record(numbered(number))
                if number == 22:
                    with notes.step():
                        own.flush()
        for number, outcome in outcomes.items():
            if outcome.written:
                notes.say("ack", number)
        notes.put(store, 25)


def checkpoint(path: Path, notes: Notes) -> None:
    """Under the soft lock every turn ends with a checkpoint."""
    with notes.step(), gamwarm.open(path, lock="soft", on_error=notes.on_error) as store:
        notes.put(store, 21, 22)


WORKS: Final[dict[str, Callable[[Path, Notes], None]]] = {
    "create": create,
    "put and close": put,
    "transaction": transaction,
    "recovery": put,
    "read": read,
    "read a torn file": read,
    "compact": compact,
    "evict": evict,
    "merge": merge,
    "export": export,
    "import": import_,
    "salvage": salvaged,
    "independent": independent,
    "checkpoint": checkpoint,
}
TORN: Final = {"recovery", "read a torn file"}


class ForkedReader:
    """What `salvage` starts as a new Python, forked instead; faults strike the parent alone."""

    def __init__(self, command: list[str], **_: object) -> None:
        asked, ask = os.pipe()
        answers, answer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            arm("", 0)
            os.dup2(asked, 0)
            os.dup2(answer, 1)
            for fd in (asked, ask, answers, answer):
                os.close(fd)
            sys.argv, sys.stdin = command[-2:], os.fdopen(0)
            salvage_worker._OUT = os.fdopen(1, "wb")
            try:
                salvage_worker.main()
            finally:
                os._exit(1)
        os.close(asked)
        os.close(answer)
        self.stdin, self.stdout = os.fdopen(ask, "wb"), os.fdopen(answers, "rb")
        self._status: int | None = None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return self._status


# -- negative controls -----------------------------------------------------------------------------


def never_replay() -> None:
    """A journal is emptied where it should be replayed."""

    def recover(self: Any, header: Any, uuid: bytes) -> None:
        if header is not None:
            self.header = header
        self._discard_journal(1)

    pager.FilePair._recover = recover  # type: ignore[method-assign]


def apply_first() -> None:
    """A transaction reaches the file before the journal has its frame."""
    real = redo_journal.build_frame

    def build(*given: Any) -> bytes:
        return bytes(len(real(*given)))

    vars(redo_journal)["build_frame"] = build


CONTROLS: Final = {"never replay": never_replay, "apply first": apply_first}


# -- the oracle ------------------------------------------------------------------------------------


def is_whole(record: BlockRecord, number: int) -> bool:
    return record.objective == number and bool((record.block_beta[0] == number).all())


def judge(folder: Path, work: str, notes: list[list[Any]]) -> None:
    """Look at what a child left, as the next run would; `Wrong` if a promise is broken."""
    said: dict[str, list[Any]] = {}
    for word, *rest in notes:
        said.setdefault(word, []).extend(rest)
    for word in ("bare", "wrong", "left"):
        if word in said:
            raise Wrong(f"{word}: {said[word][0]}")
    path = folder / "fits.h5"
    owed = set(said.get("ack", ())) | (set() if work == "create" else set(BASE)) - set(said.get("may go", ()))
    known = owed | set(said.get("try", ())) | (set() if work == "create" else set(BASE))
    if work in TORN:
        known.add(21)  # in flight when its writer died
    for mode in "ra":
        if path.exists() or owed or mode == "a":
            look_at(path, mode, owed, known, all_or_none={21, 22, 23, BIG, 25} if work == "transaction" else set())
    out = folder / "out.h5"
    if "made" in said and not out.exists():
        raise Wrong("out.h5 was made, and is not there")
    if out.exists() and work == "export" and not verify_archive(out).ok:
        raise Wrong("an archive that is there does not verify")
    if out.exists() and work == "salvage":
        look_at(out, "a", set(BASE) if "made" in said else set(), set(BASE), set(BASE))
    # filelock clears its own unfinished files away when they are old.
    left = {each.name for each in folder.iterdir() if ".lock" not in each.name}
    extra = left - {"fits.h5", "other.h5", "archive.h5", "out.h5", "out.h5-new"}
    if extra:
        raise Wrong(f"left behind by the next run: {sorted(extra)}")


def look_at(path: Path, mode: Any, owed: set[int], known: set[int], all_or_none: set[int]) -> None:
    with gamwarm.open(path, mode, on_error="raise") as store:
        there = set()
        for number in sorted(known):
            record = store.get_record(numbered(number).key)
            if record is None:
                continue
            if not is_whole(record, number):
                raise Wrong(f"mode {mode}: record {number} has other numbers")
            there.add(number)
        if not owed <= there:
            raise Wrong(f"mode {mode}: acknowledged and lost: {sorted(owed - there)}")
        if (there & all_or_none) not in (set(), all_or_none):
            raise Wrong(f"mode {mode}: a part of a transaction: {sorted(there & all_or_none)}")
        keys = list(store.keys())
        strangers = {key for key in keys if key.startswith("cf-")} - {numbered(each).key for each in known | {NEXT}}
        if strangers:
            raise Wrong(f"mode {mode}: nobody put {strangers}")
        report = store.verify()
        if mode == "a":  # and goes on: what a dead process has left is cleared away by then
            with store.transaction():
                store.put_record(numbered(NEXT))
        if not report.ok:
            raise Wrong(f"mode {mode}: verify: {report.problems}")


# -- the process under the library -----------------------------------------------------------------


def arm(folder: str, calls: int, action: int = 0, number: int = 0, code: int = 0) -> None:
    library = ctypes.CDLL(None)
    library.faults_arm(os.fsencode(folder), calls, action, ctypes.c_long(number), code)


class Ground:
    """Folders to work in, and the children."""

    def __init__(self, folder: Path) -> None:
        self._base, self._torn, self._run = folder / "base", folder / "torn", folder / "run"
        self._notes = folder / "notes"
        self._base.mkdir()
        with gamwarm.open(self._base / "fits.h5") as store, gamwarm.open(self._base / "other.h5") as other:
            for number in (*BASE, *BASE):
                store.put_record(numbered(number))
            store.put_artifact(artifact_of())
            for number in OTHERS:
                other.put_record(numbered(number))
        to_archive(self._base / "other.h5", self._base / "archive.h5")
        number = 1
        while not self._is_torn():
            self._fresh("put")
            self._child(partial(self._work, "put and close", KILL_BEFORE, CHANGES, number, 0), "")
            shutil.copytree(self._run, self._torn, dirs_exist_ok=True)
            number += 1

    def _is_torn(self) -> bool:
        if not (self._torn / "fits.h5-journal").exists():
            return False
        block = (self._torn / "fits.h5").read_bytes()[:512]
        return _header.parse(block + _header.HDF5_SIGNATURE, "").applying

    def _fresh(self, work: str) -> None:
        shutil.rmtree(self._run, ignore_errors=True)
        if work == "create":
            self._run.mkdir()
        else:
            shutil.copytree(self._torn if work in TORN else self._base, self._run)
        if work == "checkpoint":
            (self._run / "fits.h5.lock").unlink()  # which says that the other kind of lock is in use
        self._notes.write_bytes(b"")

    def run(self, work: str, action: str, number: int, control: str) -> dict[str, Any]:
        """Fork a child that works under a fault at the n-th call (0: count them), and judge what it
        leaves.
        """
        self._fresh(work)
        what, calls, code = ACTIONS[action]
        status = self._child(partial(self._work, work, what if number else COUNT, calls, number, code), control)
        notes = [json.loads(line) for line in self._notes.read_text().splitlines()]
        seen = next((rest[0] for word, *rest in notes if word == "seen"), None)
        answer: dict[str, Any] = {"seen": seen, "killed": status == signal.SIGKILL, "wrong": None}
        answer["errors"] = [rest for word, *rest in notes if word == "error"]
        if status not in (0, signal.SIGKILL) or (status and what not in (KILL_BEFORE, KILL_MIDDLE)):
            answer["wrong"] = f"the child ended with status {status}"
            return answer
        if control:
            self._child(partial(self._judge, work, notes), control)
            verdict = self._notes.read_text()
            answer["wrong"] = json.loads(verdict.splitlines()[-1])[1] if "broken" in verdict else None
            return answer
        try:
            judge(self._run, work, notes)
        except Exception as error:
            answer["wrong"] = "".join(traceback.format_exception_only(error)).strip()
        return answer

    def _work(self, work: str, what: int, calls: int, number: int, code: int, fd: int) -> None:
        notes = Notes(fd, "raise" if number % 2 else "warn")
        arm(str(self._run), calls, what, number, code)
        try:
            WORKS[work](self._run / "fits.h5", notes)
        except BaseException:
            notes.say("bare", traceback.format_exc())
        arm_seen = ctypes.CDLL(None).faults_seen
        arm_seen.restype = ctypes.c_long
        notes.say("seen", arm_seen())
        while gc.collect():  # a finalizer keeps what it is called with for another round
            pass
        if any(isinstance(each, Overlay) and each.error is not None for each in gc.get_objects()):
            notes.say("left", "HDF5 has kept a file, and calls into it when the process ends")

    def _judge(self, work: str, notes: list[list[Any]], fd: int) -> None:
        try:
            judge(self._run, work, notes)
        except BaseException as error:
            Notes(fd, "raise").say("broken", str(error))

    def _child(self, act: Callable[[int], None], control: str) -> int:
        pid = os.fork()
        if not pid:
            try:
                if control:
                    CONTROLS[control]()
                act(os.open(self._notes, os.O_WRONLY | os.O_APPEND))
                os._exit(0)
            finally:
                os._exit(1)
        handle = os.pidfd_open(pid)
        try:
            if not select.select([handle], [], [], PATIENCE)[0]:
                os.kill(pid, signal.SIGABRT)
        finally:
            os.close(handle)
        return os.waitpid(pid, 0)[1]


def main() -> None:
    """Answer lines ``[work, action, number, control]`` until the input ends."""
    log = logging.getLogger("gamwarm")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    ground = Ground(Path(sys.argv[1]))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(ground.run(*json.loads(line))), flush=True)


# -- the process that asks -------------------------------------------------------------------------


class Faults:
    """The library, built, and a process under it. Use in a ``with``."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gamwarm-faults-")
        library = Path(self._folder.name) / "faults.so"
        found = compiler()
        assert found is not None
        command = [found, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.faults", self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            text=True,
        )
        self._counted: dict[tuple[str, int], int] = {}
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Wrong("the process that starts the children died")
        return json.loads(line)

    def run(self, work: str, action: str, number: int, control: str = "") -> dict[str, Any]:
        """One run; `number` 0 strikes nothing."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([work, action, number, control]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._answer()
        return answer

    def calls(self, work: str, action: str) -> int:
        """How many calls of a work an action could strike."""
        known = work, ACTIONS[action][1]
        if known not in self._counted:
            answer = self.run(work, action, 0)
            if answer["wrong"] or answer["errors"]:
                raise Wrong(f"{work} without a fault: {answer}")
            self._counted[known] = int(answer["seen"])
        return self._counted[known]

    def try_out(self, runs: list[tuple[str, str, int]]) -> Counter[str]:
        """Make runs and count them; `Wrong` with all that failed, and how to repeat it."""
        counts: Counter[str] = Counter()
        wrong = []
        for work, action, number in runs:
            answer = self.run(work, action, number)
            counts[f"faults: {action}"] += 1
            if answer["wrong"]:
                wrong.append(f"{work}, {action} at call {number}: {answer['wrong']}")
        if wrong:
            raise Wrong(f"{len(wrong)} of {len(runs)} runs broke a promise:\n" + "\n".join(wrong[:20]))
        return counts

    def every_run(self) -> list[tuple[str, str, int]]:
        """Every action at every call of every work."""
        return [
            (work, action, number)
            for work in WORKS
            for action in ACTIONS
            for number in range(1, self.calls(work, action) + 1)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()
        self._folder.cleanup()


def some_runs(faults: Faults, seed: int, count: int) -> list[tuple[str, str, int]]:
    """A share of all runs: every kind of fault in every kind of work, somewhere, as far as `count`
    goes.
    """
    rng = random.Random(seed)
    pairs = [(work, action) for work in WORKS for action in ACTIONS]
    pairs = [pair for pair in pairs if faults.calls(*pair)]
    rng.shuffle(pairs)
    chosen = (pairs * (count // len(pairs) + 1))[:count]
    return [(*pair, rng.randint(1, faults.calls(*pair))) for pair in chosen]


if __name__ == "__main__":
    main()
