"""Whether two clients of a directory see each other's writes, found by alternating.

A client is a host, or one of two mounts of the folder on one host. It tests what a store relies on:
locks that keep the other client out, and files that are read as they were when the lock was
released, through a descriptor that was opened under the lock (close-to-open is all that NFS
promises) and through one that was kept from the previous round.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from operator import methodcaller
from pathlib import Path
from typing import Any, Final

if sys.platform != "win32":
    import fcntl

from gamwarm.errors import InvalidInput, StoreUnavailable
from gamwarm.interrupts import wait
from gamwarm.storage.vfs import DISK, Disk

__all__ = ["PEER_PATIENCE", "PROBE_PREFIX", "Coherence", "Safety", "meet_peer", "try_two"]

PROBE_PREFIX: Final = ".gamwarm-probe-"
"""Prefix of all test files."""

TURNS: Final = 12
STILL_TURNS: Final = 4
"""Turns after those in which the file does not grow: a cache may notice a new size only."""
PAGE: Final = 4096
RECORD: Final = 64
PEER_PATIENCE: Final = 60.0
"""Seconds to wait for the other host; longer than any cache of names is kept."""
PEER_PAUSE: Final = 0.1
_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


class Safety(StrEnum):
    """What several hosts may do with one file."""

    SAFE = "safe"
    REOPEN = "safe with reopening"
    ONE_WRITER = "not safe for several writers"


@dataclass(frozen=True, slots=True)
class Coherence:
    """What two clients found.

    Attributes
    ----------
    flock, links : bool
        A flock, a hard link of one client keeps the other out.
    kept, fresh : bool
        Every round of the other was seen through a descriptor kept from before, through one opened
        under the lock.
    lost : int
        Records that were synced in one round and missing at the end.
    """

    flock: bool
    links: bool
    kept: bool
    fresh: bool
    lost: int

    @property
    def safety(self) -> Safety:
        if not (self.flock or self.links) or not self.fresh or self.lost:
            return Safety.ONE_WRITER
        return Safety.SAFE if self.kept else Safety.REOPEN


class _Client:
    """One side of the test: every step returns what it found, by name.

    Files are small stores in miniature: a first page that is overwritten in every round and holds
    the number of rounds, and a record appended in each of the first `TURNS` rounds.
    """

    def __init__(self, place: Path, disk: Disk) -> None:
        self._disk = disk
        self._place, self._data, self._lock = place, place / "data", place / "lock"
        self._kept = self._held = -1

    def make(self) -> dict[str, bool]:
        for path, size in ((self._data, PAGE), (self._lock, 1)):
            fd = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            self._disk.pwrite(fd, bytes(size), 0)
            self._disk.fdatasync(fd)
            self._disk.close(fd)
        return {}

    def hold(self, number: int) -> dict[str, bool]:
        self._take_lock()
        with contextlib.suppress(OSError):
            os.link(self._lock, self._claim(number))
        return {}

    def intrude(self, number: int) -> dict[str, bool]:
        fd = self._disk.open(self._lock, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            flock = False
        except OSError as error:
            flock = error.errno in _BUSY
        finally:
            self._disk.close(fd)
        try:
            os.link(self._lock, self._claim(number))
            links = False
        except OSError as error:
            links = error.errno == errno.EEXIST
        return {"flock": flock, "links": links}

    def let_go(self) -> dict[str, bool]:
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_UN)  # Closing alone may take effect later: FUSE does not wait for it.
        self._disk.close(self._held)
        return {}

    def play_round(self, turn: int) -> dict[str, bool]:
        self._take_lock()
        try:
            found = {} if self._kept < 0 else {"kept": self._shows(self._kept, turn)}
            fd = self._disk.open(self._data, os.O_RDWR)
            try:
                self._disk.forget(fd)
                found["fresh"] = self._shows(fd, turn)
                if turn < TURNS:
                    self._disk.pwrite(fd, _record(turn), self._disk.fstat(fd).st_size)
                self._disk.pwrite(fd, _page(turn + 1), 0)
                self._disk.fdatasync(fd)
            finally:
                self._disk.close(fd)
            if self._kept < 0:
                self._kept = self._disk.open(self._data, os.O_RDWR)
            self._shows(self._kept, turn + 1)  # now its pages are in the cache
            return found
        finally:
            self.let_go()

    def count_lost(self) -> dict[str, int]:
        fd = self._disk.open(self._data, os.O_RDONLY)
        try:
            self._disk.forget(fd)
            there = self._disk.pread(fd, PAGE + 2 * TURNS * RECORD, 0)
        finally:
            self._disk.close(fd)
        return {"lost": sum(_record(turn) not in there for turn in range(TURNS))}

    def close(self) -> dict[str, bool]:
        if self._kept >= 0:
            self._disk.close(self._kept)
        self._kept = -1
        return {}

    def _claim(self, number: int) -> Path:
        """A fresh name for each test: a client may remember the old state of a used one."""
        return self._place / f"claim-{number}"

    def _take_lock(self) -> None:
        self._held = self._disk.open(self._lock, os.O_RDWR)
        with contextlib.suppress(OSError):  # If it cannot be locked, it does not keep the other side out either.
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _shows(self, fd: int, turns: int) -> bool:
        there = min(turns, TURNS)
        size = PAGE + there * RECORD
        expected = b"".join([_page(turns), *(_record(turn) for turn in range(there))])
        return self._disk.fstat(fd).st_size == size and self._disk.pread(fd, size, 0) == expected


def _page(turns: int) -> bytes:
    return turns.to_bytes(8, "little") * (PAGE // 8)


def _record(turn: int) -> bytes:
    return (b"turn %06d;" % turn).ljust(RECORD, b".")


_Step = tuple[int, Callable[[_Client], dict[str, Any]]]


def _steps() -> Iterator[_Step]:
    """Who does what, in this order: side 0 or 1, and what it does."""
    yield 0, _Client.make
    for side in (0, 1):
        yield side, methodcaller("hold", side)
        yield 1 - side, methodcaller("intrude", side)
        yield side, _Client.let_go
    for turn in range(TURNS + STILL_TURNS):
        yield turn % 2, methodcaller("play_round", turn)
    for act in (_Client.count_lost, _Client.close):
        yield 0, act
        yield 1, act


def _judge(findings: list[dict[str, Any]]) -> Coherence:
    every = {name: all(found.get(name, True) for found in findings) for name in ("flock", "links", "kept", "fresh")}
    return Coherence(**every, lost=max(found.get("lost", 0) for found in findings))


def try_two(one: Path, other: Path, disks: tuple[Disk, Disk] = (DISK, DISK)) -> Coherence:
    """Alternate between two mounts of one folder. They may be the same.

    Raises
    ------
    StoreUnavailable
        What one makes is not seen in the other.
    OSError
        A file cannot be made, written, synced or removed.
    """
    name = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    os.mkdir(one / name, 0o700)
    clients = [_Client(place / name, disk) for place, disk in zip((one, other), disks, strict=True)]
    try:
        if not (other / name).is_dir():
            raise StoreUnavailable(f"{other}: not another mount of {one}: a folder created there is not visible here")
        return _judge([act(clients[side]) for side, act in _steps()])
    finally:
        for client in clients:
            client.close()
        shutil.rmtree(one / name, ignore_errors=True)


def meet_peer(place: Path, side: int, word: str, disk: Disk = DISK, patience: float = PEER_PATIENCE) -> Coherence:
    """Alternate with the same call on another host, by files here. Both return the same.

    Parameters
    ----------
    side : {0, 1}
        0 on one host, 1 on the other.
    word : str
        Equal on both; keeps trials apart.

    Raises
    ------
    StoreUnavailable
        The other did not come, or left; or its files are not visible here.
    InvalidInput
        The other is not another client: it is on this host and has the same mount.
    """
    meet = _announce if side == 0 else _answer
    session = meet(place, f"{PROBE_PREFIX}{word}-", patience)
    client = _Client(session, disk)
    findings = []
    try:
        for number, (whose, act) in enumerate(_steps()):
            if whose == side:
                findings.append(act(client))
                _say(session / f"step-{number}", json.dumps(findings[-1]))
            else:
                findings.append(json.loads(_hear(session / f"step-{number}", patience)))
        if side == 1:
            _say(session / "seen", "all")
        else:
            _hear(session / "seen", patience)
    finally:
        client.close()
        if side == 0:
            shutil.rmtree(session, ignore_errors=True)
    return _judge(findings)


def _announce(place: Path, prefix: str, patience: float) -> Path:
    session = place / f"{prefix}{secrets.token_hex(8)}"
    os.mkdir(session, 0o700)
    try:
        for name in _names(session, patience):
            if name.startswith("hello-"):
                _say(session / name.replace("hello", "welcome"), _client_name(place))
                if (session / name).read_text() == _client_name(place):
                    _hear(session / "seen", patience)
                    raise _one_client(place)
                return session
        raise _alone(place, patience)
    except BaseException:
        shutil.rmtree(session, ignore_errors=True)
        raise


def _answer(place: Path, prefix: str, patience: float) -> Path:
    """Answer another client's announcement of a test: one that was killed does not answer."""
    mine = secrets.token_hex(8)
    greeted = set()
    for name in _names(place, patience):
        session = place / name
        if not name.startswith(prefix):
            continue
        with contextlib.suppress(FileNotFoundError):
            if session not in greeted:
                greeted.add(session)
                _say(session / f"hello-{mine}", _client_name(place))
            if f"welcome-{mine}" in _asked(session):
                if (session / f"welcome-{mine}").read_text() == _client_name(place):
                    _say(session / "seen", "all")
                    raise _one_client(place)
                return session
    raise _alone(place, patience)


def _client_name(place: Path) -> str:
    return f"{os.stat(place).st_dev} {socket.gethostname()}"


def _one_client(place: Path) -> InvalidInput:
    host = _client_name(place).partition(" ")[2]
    return InvalidInput(
        f"{place}: both sides are on {host} and use the same mount, so they share its cache. Start them on two hosts "
        "(srun -N2 --ntasks-per-node=1), or give them two mounts"
    )


def _names(place: Path, patience: float) -> Iterator[str]:
    """Yield the contents of a directory repeatedly until the time-out."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        yield from _asked(place)
        wait(PEER_PAUSE)


def _asked(place: Path) -> list[str]:
    """List a directory as the server has it: a client's own cache may not show a change."""
    own = place / f"{PROBE_PREFIX}look-{secrets.token_hex(8)}"
    os.close(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        return os.listdir(place)
    finally:
        os.unlink(own)


def _say(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(scratch, path)


def _hear(path: Path, patience: float) -> str:
    for name in _names(path.parent, patience):
        if name == path.name:
            return path.read_text()
    raise _alone(path.parent.parent, patience)


def _alone(place: Path, patience: float) -> StoreUnavailable:
    return StoreUnavailable(
        f"{place}: the other side did not answer in {patience:g} s. Start gamwarm doctor on both hosts at the same "
        "time (--peer 0 on one, --peer 1 on the other, or srun -N2); or files created on one host are not visible "
        "on the other",
        path=str(place),
    )
