"""What every kind of writer lock shares: time limits, and messages of refusals."""

from __future__ import annotations

import contextlib
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

from gamwarm.errors import LockTimeout, StoreError, StoreUnavailable
from gamwarm.interrupts import wait
from gamwarm.storage.directory_probe import DirectoryProbe
from gamwarm.storage.vfs import explain, open_auxiliary

__all__ = [
    "FIRST_COURTESY",
    "LOCK_CHOICES",
    "LockChoice",
    "LockKind",
    "OtherHost",
    "OtherLock",
    "WriterLock",
    "lock_path",
    "read_start",
]

LockKind = Literal["flock", "soft"]
"""A subclass of `WriterLock`, by its name."""
LockChoice = Literal["auto", LockKind]
"""What a caller may ask for."""
LOCK_CHOICES: Final[tuple[str, ...]] = get_args(LockChoice)

FIRST_PAUSE: Final = 0.0005
PACE: Final = 1 / 6, 0.25
"""The next pause as a fraction of the time waited so far, and its limit in seconds."""
SHARED_PACE: Final = 1 / 2, 0.75
"""Where every attempt is a request to a server, or half a dozen of them."""
LONG_WAIT: Final = 1.0
"""From here on a waiter touches the lock file, and the holder pauses after the release."""
FIRST_COURTESY: Final = 0.01


class OtherLock(Exception):
    """The lock file bears the mark of the other kind of lock."""


class OtherHost(Exception):
    """Another host claims a file that only one host may write."""


@dataclass
class _Courtesy:
    """How long this process pauses before it takes one lock again, because another one waits."""

    pause: float = 0.0
    waiter_seen_at: float = 0.0
    until: float = 0.0


# Of the process, by the lock file: a process that opens the file anew for every write must give way
# like one that keeps it open. An entry ends when no one waits any more.
_courtesies: Final[dict[Path, _Courtesy]] = {}


class WriterLock(ABC):
    """The lock ``<name>.lock`` of one file. Not reentrant; its owner serialises threads.

    The lock file is left in place: removing a flocked file splits waiters over two inodes and lets
    two of them in.

    Waiting is polling, with pauses that grow with the time waited and have jitter. A poll succeeds
    only while the lock is free, so a process that takes the lock again at once would starve a
    waiter. Therefore a process that has waited for `LONG_WAIT` touches the lock file at each poll,
    and a holder that sees a new modification time when it releases the lock pauses before its
    process takes the lock again, through whatever handle: briefly at first, and twice as long each
    time while others are still waiting, up to the longest pause.

    Parameters
    ----------
    path : Path
        The file that is written under the lock.
    timeout : float
        Seconds to wait, unless `acquire` says otherwise.
    shared : bool
        Other hosts may see the file: what was read before the lock was taken must not be trusted
        under it.
    single_host : bool
        Not even that is enough: the file belongs to the host that has it open for writing.
    """

    kind: ClassVar[LockKind]
    other: ClassVar[LockKind]
    broken: ClassVar[str]
    """What a directory lacks where this lock does not work."""
    claims_host: ClassVar[bool]
    """Whether it can keep a file to the host that has it open for writing."""

    def __init__(self, path: Path, timeout: float, *, shared: bool, single_host: bool = False) -> None:
        self.path = lock_path(path)
        self.timeout = timeout
        self.shared = shared
        self.single_host = single_host
        self._file = path
        self._like: os.stat_result | None = None
        self._pace, self._longest_pause = SHARED_PACE if shared else PACE
        self._touched_at = 0

    @staticmethod
    @abstractmethod
    def works(found: DirectoryProbe) -> bool:
        """Whether a directory supports this kind."""

    @abstractmethod
    def _try(self, waited: float) -> bool:
        """Take the lock if it is free now; `OtherLock` if the file is kept by the other kind."""

    @abstractmethod
    def _free(self) -> None: ...

    @abstractmethod
    def _touch(self) -> None:
        """Change the lock file's modification time."""

    @abstractmethod
    def _last_touched(self) -> int: ...

    @abstractmethod
    def holder(self) -> str:
        """The current or last holder of the lock, if known."""

    @property
    @abstractmethod
    def is_held(self) -> bool: ...

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock.

        Raises
        ------
        LockTimeout
            Naming the holder where it is known.
        StoreError
            The lock file cannot be written, or is of another kind of lock.
        """
        limit = self.timeout if timeout is None else timeout
        started, waited = time.monotonic(), 0.0
        try:
            courtesy = _courtesies.get(self.path)
            if courtesy is not None:
                wait(max(0.0, min(limit, courtesy.until - started)))
            while not self._try(waited):
                waited = time.monotonic() - started
                if waited >= limit:
                    raise self._timed_out(limit)
                if waited >= LONG_WAIT:
                    with contextlib.suppress(OSError):
                        self._touch()
                longest = min(max(FIRST_PAUSE, waited * self._pace), self._longest_pause)
                wait(min(longest * random.uniform(0.5, 1.0), limit - waited))
            self._touched_at = self._last_touched()
        except BaseException as exc:
            self._free()
            if isinstance(exc, OtherLock):
                self.tidy()
                raise StoreUnavailable(
                    f"{self._file}: {self.path.name} does not belong to the lock {self.kind!r} ({exc}), and the two "
                    f"kinds of lock do not exclude each other. Open it with lock={self.other!r}; or, when no "
                    "process anywhere uses "
                    f"the file, remove {self.path.name} and {self.path.name}.filelock.",
                    path=str(self._file),
                ) from exc
            if isinstance(exc, OtherHost):
                raise StoreUnavailable(
                    f"{self._file}: {exc} has it open for writing (or was stopped while writing), and gamwarm doctor "
                    f"found that several hosts cannot write safely here. Write on {exc} alone; or give each host "
                    "its own file and `gamwarm merge` them; or start one MPI job (comm=), whose rank 0 writes. If "
                    f"nothing on {exc} uses the file any more, remove {self.path.name}.",
                    path=str(self._file),
                ) from None
            if isinstance(exc, OSError) and not isinstance(exc, StoreError):
                raise explain(exc, self.path, "take the writer lock") from exc
            raise

    def release(self) -> None:
        """Let the next one have the lock. Idempotent."""
        try:
            if self.is_held:
                self._be_courteous(time.monotonic(), touched=self._last_touched() != self._touched_at)
        except OSError:
            pass
        finally:
            self._free()

    def _be_courteous(self, now: float, *, touched: bool) -> None:
        courtesy = _courtesies.setdefault(self.path, _Courtesy()) if touched else _courtesies.get(self.path)
        if courtesy is None:
            return
        if touched:
            courtesy.waiter_seen_at = now
            courtesy.pause = min(max(FIRST_COURTESY, 2 * courtesy.pause), self._longest_pause)
        elif now - courtesy.waiter_seen_at > 2 * self._longest_pause:  # a waiter would have touched the file again
            _courtesies.pop(self.path, None)
            return
        courtesy.until = now + courtesy.pause

    @contextlib.contextmanager
    def held(self, timeout: float | None = None) -> Iterator[None]:
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()

    def claim(self) -> None:
        """Where one host alone may write, make it this one until `tidy`."""
        if self.single_host:
            with self.held():
                pass

    @abstractmethod
    def tidy(self) -> None:
        """Remove files that the lock needs only while stores are open."""

    def _look_at_file(self) -> None:
        """Whoever may write the file may lock it, whatever the first writer's umask."""
        with contextlib.suppress(OSError):
            self._like = os.stat(self._file)

    def _timed_out(self, limit: float) -> LockTimeout:
        holder = self.holder()
        return LockTimeout(
            f"{self._file}: waited {limit:g} s for the writer lock, held by {holder or 'another process'}. Wait for it "
            f"to end, or stop it{self._by_hand}; then open the file again.",
            path=str(self._file),
            holder=holder,
        )

    @property
    def _by_hand(self) -> str:
        return ""


def lock_path(path: Path) -> Path:
    """Return the lock file of a file."""
    return path.with_name(path.name + ".lock")


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a lock file, through a descriptor of its own."""
    fd = open_auxiliary(path, os.O_RDONLY)
    try:
        return os.pread(fd, count, 0)
    finally:
        os.close(fd)
