"""Clients of one shared folder, each behind its own mount: strict alternation, and a
storm with kills.

Run as ``python -m tests.support.shared_mounts turns|write|read PATH …`` this module is one client.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import gamwarm
from tests.support.stores import exact_key_of
from tests.support.torture_worker import is_whole, key_number, paired_record

__all__ = ["alternate", "bindfs_mounts", "fresh", "probe_mounts", "storm", "wait_for", "why_not"]

ROOT = Path(__file__).resolve().parents[2]
NAME = "fits.h5"
COUNTER = 999
"""Who owns the record that every transaction of the storm reads and writes anew, one higher."""
PATIENCE = 120
PATIENCE_FOR_NAMES = 70.0
"""NFS keeps the absence of a name for up to a minute."""


def why_not() -> str:
    """Why bindfs cannot be tried here, in a word; empty if it can."""
    if shutil.which("bindfs") is None:
        return "bindfs is not installed"
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    return "only root may mount" if os.geteuid() else ""


@contextlib.contextmanager
def bindfs_mounts(folder: Path, *options: str) -> Iterator[list[Path]]:
    """Yield two mounts of one folder whose locks exclude each other and whose caches know nothing
    of each other.
    """
    places = [folder / name for name in ("disk", "node1", "node2")]
    mounted: list[Path] = []
    try:
        for place in places:
            place.mkdir()
        for place in places[1:]:
            command = ["bindfs", "--multithreaded", "--enable-lock-forwarding", *options]
            subprocess.run([*command, str(places[0]), str(place)], check=True, capture_output=True, text=True)
            mounted.append(place)
        yield mounted
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def probe_mounts(mounts: Sequence[Path]) -> None:
    """Raise unless the mounts are of one folder."""
    with tempfile.TemporaryDirectory(dir=mounts[0], prefix=".gamwarm-same-") as made:
        wait_for([mount / Path(made).name for mount in mounts])


def wait_for(folders: Sequence[Path]) -> None:
    """Wait until all of them are there; a client may believe for a while that a name does not
    exist.
    """
    deadline = time.monotonic() + PATIENCE_FOR_NAMES
    while missing := [folder for folder in folders if not folder.exists()]:
        if time.monotonic() > deadline:
            raise ValueError(f"not mounts of one folder: {missing[0]} does not appear")
        time.sleep(0.2)


# -- one client ------------------------------------------------------------------------------------


def _forget_the_road(store: Any) -> None:
    """For negative controls: keep descriptors, sizes and pages from one turn to the next, as on a
    local disk.
    """
    container = store._file.container
    container._writer.pair.shared = container._reader.shared = False


def take_turns(path: Path, who: int, lock: Any, road: str) -> None:
    """Put one record for every line read; say what came of it."""
    store = gamwarm.open(path, on_error="raise", lock=lock)
    if road == "local":
        _forget_the_road(store)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            outcome = store.put_record(paired_record(who, int(line)))
            print("written" if outcome.written else f"not written: {outcome.reason}", flush=True)
        except gamwarm.GamwarmError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    store.close()


def write(path: Path, who: int, start: int, lock: Any) -> None:
    """Until killed: read the counter, write it one higher and a record of one's own; say both after
    the commit.
    """
    rng = random.Random(who * 1000 + start)
    with gamwarm.open(path, on_error="raise", lock=lock) as store:
        print("ready", flush=True)
        index = start
        while not sys.stdin.closed:
            with store.transaction():
                counter = store.get_record(exact_key_of(key_number(COUNTER, 0)))
                value = 1 if counter is None else int(counter.attributes["note"]) + 1
                store.put_record(_counter(value))
                store.put_record(paired_record(who, index))
            print(json.dumps([index, value]), flush=True)
            index += 1
            time.sleep(rng.random() * 0.02)


def _counter(value: int) -> gamwarm.BlockRecord:
    return gamwarm.BlockRecord(
        key=exact_key_of(key_number(COUNTER, 0)),
        n_rows=1,
        block_names=["x"],
        block_dims=[1],
        rho=[0.0],
        block_beta=[[float(value)]],
        objective=-float(value),
        attributes={"note": value},
    )


def read(path: Path, seed: int, writers: int, stop: Path) -> None:
    """Until `stop` exists: what is found is whole, and what was found is never gone nor called
    damaged.
    """
    logging.getLogger("gamwarm").addHandler(_Loud())
    rng = random.Random(seed)
    seen: set[tuple[int, int]] = set()
    newest = [0] * writers
    reads = 0
    with gamwarm.open(path, "r", on_error="raise") as store:
        print("ready", flush=True)
        while not stop.exists():
            who = rng.randrange(writers)
            index = max(0, newest[who] + 1 - int(rng.expovariate(0.3)))
            record = store.get_record(exact_key_of(key_number(who, index)))
            reads += 1
            if record is None:
                assert (who, index) not in seen, f"{who}, {index} was there and is gone"
                newest[who] = max(0, newest[who] - (rng.random() < 0.1))
            else:
                assert is_whole(record, who, index), f"{who}, {index} is torn"
                newest[who] = max(newest[who], index)
                seen.add((who, index))
            time.sleep(0.005)
    print(json.dumps([reads, len(seen)]), flush=True)


class _Loud(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            raise AssertionError(record.getMessage())


# -- all of them -----------------------------------------------------------------------------------


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.shared_mounts", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _say(child: subprocess.Popen[str], line: str = "") -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    if line:
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
        except BrokenPipeError:  # it hung, and was killed
            return ""
    return child.stdout.readline().strip()


def alternate(mounts: Sequence[Path], rounds: int, *, lock: str = "auto", road: str = "shared") -> Counter[str]:
    """One long-lived store per mount, puts in strict turns: no kill, nothing at once. Says what
    became of them.
    """
    for path in (mount / NAME for mount in mounts):
        assert not path.exists(), f"{path} is in the way"
    counts: Counter[str] = Counter()
    clients = [_start("turns", mount / NAME, who, lock, road) for who, mount in enumerate(mounts)]
    acknowledged: list[tuple[int, int]] = []
    alarm = threading.Timer(PATIENCE / 2 + rounds, _kill, [clients])
    alarm.start()
    try:
        for client in clients:
            if _say(client) != "ready":
                raise AssertionError(client.communicate(timeout=PATIENCE)[1])
        for index in range(rounds):
            for who, client in enumerate(clients):
                answer = _say(client, str(index))
                if answer == "written":
                    acknowledged.append((who, index))
                else:
                    counts[answer or "no answer"] += 1
        for client in clients:
            client.communicate(timeout=PATIENCE)
    finally:
        alarm.cancel()
        for client in clients:
            client.kill()
            with contextlib.suppress(OSError, ValueError):
                client.communicate()
    if road == "local":  # HDF5 may hang or crash on what such clients leave
        return counts + (Counter(damaged=1) if counts else _judge_apart(mounts[0] / NAME, acknowledged))
    return counts + _judge(mounts[0] / NAME, acknowledged)


def _kill(clients: Sequence[subprocess.Popen[str]]) -> None:
    for client in clients:
        client.kill()


def _judge_apart(path: Path, acknowledged: Sequence[tuple[int, int]]) -> Counter[str]:
    code = (
        "import json, pathlib, sys; from tests.support import shared_mounts as clients; "
        "print(json.dumps(clients._judge(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, str(path), json.dumps(acknowledged)]
    try:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    except subprocess.SubprocessError:
        return Counter(acknowledged=len(acknowledged), damaged=1)
    return Counter(json.loads(said.splitlines()[-1]))


def _judge(path: Path, acknowledged: Sequence[tuple[int, int]]) -> Counter[str]:
    counts = Counter(acknowledged=len(acknowledged))
    try:
        with gamwarm.open(path, "r", on_error="raise") as store:
            for who, index in acknowledged:
                record = store.get_record(exact_key_of(key_number(who, index)))
                counts["lost"] += record is None or not is_whole(record, who, index)
            counts["damaged"] += not store.verify().ok
    except gamwarm.GamwarmError:
        counts["damaged"] += 1
    return +counts


class _Writer:
    """One writer of the storm, started again each time it was killed."""

    def __init__(self, path: Path, who: int, lock: str) -> None:
        self.path, self.who, self.lock = path, who, lock
        self.next = 0
        self.said: list[tuple[int, int]] = []
        self.words = ""
        self._begin()

    def _begin(self) -> None:
        self.child = _start("write", self.path, self.who, self.next, self.lock)
        assert self.child.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self.child.stdout,))
        self._listener.start()

    def _listen(self, pipe: IO[str]) -> None:
        for line in pipe:
            if line != "ready\n" and line.endswith("\n"):
                index, value = json.loads(line)
                self.said.append((index, value))

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self._listener.join()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert pipe is not None
            if pipe is self.child.stderr:
                self.words += pipe.read()
            pipe.close()
        self.next = (self.said[-1][0] if self.said else self.next) + 2  # the one in flight may be there or not

    def again(self) -> None:
        self._begin()


def storm(
    mounts: Sequence[Path], *, seconds: float, seed: int, lock: str = "auto", writers: int = 4, readers: int = 2
) -> Counter[str]:
    """Writers on all mounts at once, killed at random and started again, beside readers; raise if
    anything is wrong.

    Every transaction reads a counter and writes it one higher, so a decision on stale data shows as
    a number that two of them have written.
    """
    rng = random.Random(seed)
    paths = [mount / NAME for mount in mounts]
    gamwarm.open(paths[0], lock=lock, on_error="raise").close()  # type: ignore[arg-type]
    stop = mounts[0] / "stop"
    reading = [
        _start("read", paths[n % len(paths)], seed + n, writers, paths[n % len(paths)].with_name("stop"))
        for n in range(readers)
    ]
    crews = [_Writer(paths[n % len(paths)], n, lock) for n in range(writers)]
    kills = 0
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(crew.said for crew in crews) and time.monotonic() < deadline:
            time.sleep(0.1)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            time.sleep(rng.uniform(0.3, 2.0) * 4 / writers)
            crew = rng.choice(crews)
            if crew.said and crew.said[-1][0] >= crew.next:  # it has done something since it was started
                crew.kill()
                crew.again()
                kills += 1
    finally:
        for crew in crews:
            crew.kill()
        stop.touch()
        words = [child.communicate(timeout=PATIENCE) for child in reading]
    for crew in crews:
        assert "Error" not in crew.words, crew.words
    values = Counter(value for crew in crews for _, value in crew.said)
    counts = _judge(paths[0], [(crew.who, index) for crew in crews for index, _ in crew.said])
    counts["stale decisions"] = sum(count - 1 for count in values.values())
    counts["kills"] = kills + writers
    with gamwarm.open(paths[0], "r", on_error="raise") as store:
        counter = store.get_record(exact_key_of(key_number(COUNTER, 0)))
        assert counter is not None
        note = counter.attributes["note"]
        assert isinstance(note, int)
        assert max(values) <= note <= counts["acknowledged"] + counts["kills"]
    for wrong in ("lost", "damaged", "stale decisions"):
        assert not counts[wrong], dict(counts)
    for child, (said, trouble) in zip(reading, words, strict=True):
        assert child.returncode == 0, f"{dict(counts)}, but a reader: {trouble}"
        counts["look-ups"] += json.loads(said.splitlines()[-1])[0]
    return +counts


if __name__ == "__main__":
    role, where = sys.argv[1], Path(sys.argv[2])
    if role == "turns":
        take_turns(where, int(sys.argv[3]), sys.argv[4], sys.argv[5])
    elif role == "write":
        write(where, int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        read(where, int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
