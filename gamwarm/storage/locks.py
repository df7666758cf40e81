"""One writer at a time: which lock a directory supports, found by trying, and the lock itself.

``flock`` is used where it excludes; elsewhere filelock's strict soft lock (hard-linked claims). The choice is never
downgraded silently: a directory where neither works is refused.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

if sys.platform != "win32":
    import fcntl

from filelock import SoftFileLockProtocolError, StrictSoftFileLock, Timeout

from gamwarm.errors import InvalidInput, LockTimeout, StoreUnavailable
from gamwarm.storage._disk import explain, open_beside, share_if_ours
from gamwarm.storage._flock import Flock, FlockTimeout

try:  # Not public, hence guarded: without it a claim of a dead process waits for a person.
    from filelock._identity import owner_is_stale
except ImportError:  # pragma: no cover
    owner_is_stale = None  # type: ignore[assignment]

__all__ = ["DirectoryProbe", "LockChoice", "LockKind", "WriterLock", "choose", "may_be_shared", "probe"]

LockKind = Literal["auto", "flock", "soft"]

POLL_SECONDS: Final = 0.002
"""Of the soft lock; filelock's default of 50 ms lets one process hog the file and starves the others."""
RECLAIM_SECONDS: Final = 0.5
"""How long a soft lock is waited for before its claims are searched for dead owners."""
HOLDER_BYTES: Final = 160
HOLDER_PREFIX: Final = b"pid "
UNSET_MODE: Final = -1
"""filelock's value for "by the umask"."""

# On these the kernel itself keeps the lock table, so two descriptors of one process stand for two processes and the
# probe needs no child. It is still tried, because a mount may be odd.
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "zfs", "f2fs", "overlay", "bcachefs", "apfs", "jfs"}
)
# Options under which flock succeeds but stays on this node.
_NODE_ONLY_OPTIONS: Final = frozenset({"nolock", "local_lock=all", "local_lock=flock", "localflock"})

_CHILD: Final = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(11)
sys.exit(12)
"""
_CHILD_EXCLUDED: Final = 11


@dataclass(frozen=True, slots=True)
class DirectoryProbe:
    """What a directory was found to support.

    Attributes
    ----------
    file_system : str
        Type by the mount table, ``""`` where there is none.
    shared : bool
        Other nodes may see the directory (anything not known to be local).
    flock : bool
        An exclusive flock keeps others out; tried in a child process where ``by_child``.
    hard_links, rename : bool
        Links refuse an existing name, renames replace one.
    fsync : bool or None
        Files and the directory can be synced; None where that was not tried (local, and no child was asked for).
    """

    directory: str
    file_system: str
    shared: bool
    flock: bool
    by_child: bool
    hard_links: bool
    rename: bool
    fsync: bool | None


@dataclass(frozen=True, slots=True)
class LockChoice:
    """The lock for one file; `shared` asks for a checkpoint before every release."""

    kind: Literal["flock", "soft"]
    shared: bool


def probe(directory: str | os.PathLike[str], *, child: bool | None = None) -> DirectoryProbe:
    """Try what the store needs in `directory`, with files that are removed again.

    Parameters
    ----------
    directory : path
        An existing, writable directory.
    child : bool, optional
        Test flock against another process. Default: only where the file system is not known to be local.

    Raises
    ------
    StoreError
        The directory does not exist or cannot be written to.
    """
    place = Path(directory)
    file_system, options = _mount_of(place)
    shared = file_system not in _LOCAL_FILE_SYSTEMS and sys.platform != "darwin"
    by_child = shared if child is None else child
    stem = place / f".gamwarm-probe-{secrets.token_hex(8)}"
    first, second = stem.with_name(stem.name + "-a"), stem.with_name(stem.name + "-b")
    try:
        fd = os.open(first, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise explain(exc, place, "create a file in this directory") from exc
    try:
        flock = not (_NODE_ONLY_OPTIONS & options) and _flock_excludes(fd, first, by_child)
        sync = _works(lambda: os.fsync(fd)) and _works(lambda: _sync_directory(place)) if by_child else None
        links = _links_refuse(first, second)
        rename = _works(lambda: os.replace(first, second)) and not first.exists() and second.exists()
    finally:
        os.close(fd)
        for path in (first, second):
            with contextlib.suppress(OSError):
                path.unlink()
    return DirectoryProbe(str(place), file_system, shared, flock, by_child, links, rename, sync)


def choose(directory: Path, lock: LockKind, name: str = "") -> LockChoice:
    """Pick the lock for the file `name` in `directory`; the probe is remembered per device for this process.

    Where others have kept to the soft lock (its mark stands in the lock file), ``"auto"`` does too: the two locks do
    not exclude each other. Asking for one against the other's mark is refused when the lock is taken.

    Raises
    ------
    StoreUnavailable
        The lock asked for (or, for ``"auto"``, any lock) does not work there.
    """
    if lock not in ("auto", "flock", "soft"):
        raise InvalidInput(f"lock={lock!r}: expected 'auto', 'flock' or 'soft'.")
    try:
        device = os.stat(directory).st_dev
    except OSError as exc:
        raise explain(exc, directory, "look at this directory") from exc
    found = _PROBES.get(device)
    if found is None:
        found = _PROBES[device] = probe(directory)
    if lock != "soft" and found.flock and not (lock == "auto" and name and _soft_mark(lock_path(directory / name))):
        return LockChoice("flock", found.shared)
    if lock != "flock" and found.hard_links:
        return LockChoice("soft", True)
    what = {"flock": "flock does not exclude", "soft": "hard links do not work"}.get(
        lock, "neither flock nor hard links work"
    )
    raise StoreUnavailable(
        f"{directory}: {what} on this file system ({found.file_system or 'unknown type'}), so two writers could not be "
        "kept apart. Put the file on another file system"
        + (", or open it with lock='auto'." if lock != "auto" else "."),
        path=str(directory),
    )


_PROBES: Final[dict[int, DirectoryProbe]] = {}


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _start_of(path: Path, count: int) -> bytes:
    fd = open_beside(path, os.O_RDONLY)
    try:
        return os.pread(fd, count, 0)
    finally:
        os.close(fd)


def _soft_mark(path: Path) -> bool:
    try:
        return _is_soft_mark(_start_of(path, len(HOLDER_PREFIX)))
    except OSError:
        return False


def _is_soft_mark(start: bytes) -> bool:
    return bool(start) and not start.startswith(HOLDER_PREFIX)


def _share_if_ours(path: Path, like: os.stat_result, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            share_if_ours(fd, like, mode)
        finally:
            os.close(fd)


class _OtherLock(Exception):
    """The lock file bears the mark of the other kind of lock."""


class WriterLock:
    """The lock ``<name>.lock`` of one file. Not reentrant; its owner serialises threads.

    The lock file is left in place: removing a flocked file splits waiters over two inodes and lets two of them in.
    """

    def __init__(self, path: Path, choice: LockChoice, timeout: float) -> None:
        self.path = lock_path(path)
        self.kind = choice.kind
        self.timeout = timeout
        self._file = path
        self._lock: Flock | StrictSoftFileLock | None = None
        self._like: os.stat_result | None = None

    def _make(self) -> Flock | StrictSoftFileLock:
        try:
            # Whoever may write the file must be able to lock it, whatever the umask of the first writer.
            like: os.stat_result | None = os.stat(self._file)
        except OSError:
            like = None
        if self.kind == "flock":
            return Flock(self.path, like, _sign)
        self._like = like
        mode = UNSET_MODE if like is None else like.st_mode & 0o666 | 0o600
        return StrictSoftFileLock(str(self.path), poll_interval=POLL_SECONDS, mode=mode)

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock.

        Raises
        ------
        LockTimeout
            Naming the holder where it is known.
        StoreError
            The lock file cannot be written.
        """
        if self._lock is None:
            self._lock = self._make()
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                self._refuse_flocked()
                self._share_claims()
                self._lock.acquire(timeout=left if self.kind == "flock" else min(left, RECLAIM_SECONDS))
            except (FlockTimeout, Timeout) as exc:
                if self.kind == "soft" and (self._break_dead_claims() or time.monotonic() < deadline):
                    continue
                holder = self.holder()
                raise LockTimeout(
                    f"{self._file}: waited {limit:g} s for the writer lock, held by {holder or 'another process'}. "
                    f"Wait for it to end, or stop it{self._by_hand()}; then open the file again.",
                    path=str(self._file),
                    holder=holder,
                ) from exc
            except FileNotFoundError as exc:
                # Another process tidied the claim directory away between two steps of ours.
                if self.kind == "soft" and self.path.parent.exists() and time.monotonic() < deadline:
                    continue
                raise explain(exc, self.path, "take the writer lock") from exc
            except (SoftFileLockProtocolError, _OtherLock) as exc:
                if self._break_dead_claims() and time.monotonic() < deadline:
                    continue
                self.tidy()
                other = "soft" if self.kind == "flock" else "flock"
                raise StoreUnavailable(
                    f"{self._file}: {self.path.name} is not of the lock {self.kind!r} ({exc}), and two kinds of lock "
                    f"do not keep each other out. Open it with lock={other!r}; or, when no process anywhere uses the "
                    f"file, remove {self.path.name} and {self.path.name}.filelock.",
                    path=str(self._file),
                ) from exc
            except OSError as exc:
                raise explain(exc, self.path, "take the writer lock") from exc
            else:
                self._share_claims(claimed=True)
                return

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def held(self, timeout: float | None = None) -> Iterator[None]:
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()

    def holder(self) -> str:
        """Who holds (or held last) the lock, as far as is known."""
        if isinstance(self._lock, StrictSoftFileLock):
            with contextlib.suppress(OSError):
                claims = sorted(self._lock.claims, key=lambda claim: claim.state != "held")
                return f"pid {claims[0].pid} on {claims[0].hostname}" if claims else ""
            return ""
        try:
            return _start_of(self.path, HOLDER_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def tidy(self) -> None:
        """Remove the soft lock's empty claim directories; a directory in use does not let itself be removed."""
        if self.kind == "soft":
            directory, claims = self._claim_directories()
            with contextlib.suppress(OSError):
                os.rmdir(claims)
                os.rmdir(directory)

    def _claim_directories(self) -> tuple[Path, Path]:
        directory = Path(f"{os.path.realpath(self.path)}.filelock")
        return directory, directory / "claims"

    def _share_claims(self, *, claimed: bool = False) -> None:
        """Let whoever may write the store claim its lock, and remove what a killed writer has left of its claim.

        filelock makes its directories by the umask and sticky; of those that are ours this is put right before and
        after every claim.
        """
        like = self._like
        if self.kind != "soft" or like is None:
            return
        mode = like.st_mode & 0o666 | 0o600
        directories = self._claim_directories()
        with contextlib.suppress(OSError):
            for place in directories:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place, 0o700)
                _share_if_ours(place, like, mode | (mode & 0o444) >> 2)
            if claimed:
                for path in (self.path, *directories[1].iterdir()):
                    _share_if_ours(path, like, mode)

    def _refuse_flocked(self) -> None:
        if self.kind == "soft":
            with contextlib.suppress(FileNotFoundError):
                if _start_of(self.path, len(HOLDER_PREFIX)) == HOLDER_PREFIX:
                    raise _OtherLock("it bears the name of a flock's holder")

    def _break_dead_claims(self) -> bool:
        """Remove claims whose owner, on this host, is proved dead. Names are unique, so no live one can be hit."""
        broken = False
        if isinstance(self._lock, StrictSoftFileLock) and owner_is_stale is not None:
            with contextlib.suppress(OSError):
                for claim in self._lock.claims:
                    if owner_is_stale(claim.pid, claim.hostname, claim.start):
                        with contextlib.suppress(FileNotFoundError):
                            self._lock.force_break(claim.name)
                            broken = True
        return broken

    def _by_hand(self) -> str:
        if self.kind == "flock":
            return ""
        return f"; if it no longer exists (another node that died), remove {self.path.name}.filelock"


def _sign(fd: int) -> None:
    if _is_soft_mark(os.pread(fd, len(HOLDER_PREFIX), 0)):
        raise _OtherLock("it bears the mark of the soft lock")
    if os.fstat(fd).st_nlink > 1:
        return  # its other name may be somebody's
    line = _signature(os.getpid(), int(time.time()))
    # The name is for people; without space for it the lock still holds.
    with contextlib.suppress(OSError):
        if os.pread(fd, HOLDER_BYTES, 0) != line:
            os.pwrite(fd, line, 0)


@lru_cache(maxsize=1)
def _signature(pid: int, second: int) -> bytes:
    line = f"pid {pid} on {_host()} since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(second))}"
    return line.encode()[: HOLDER_BYTES - 1].ljust(HOLDER_BYTES - 1) + b"\n"


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


def _flock_excludes(fd: int, path: Path, by_child: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
        else:
            return False
        finally:
            os.close(other)
        if by_child:
            child = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _CHILD, str(path)], timeout=30, check=False, capture_output=True
            )
            if child.returncode != _CHILD_EXCLUDED:
                return False
        fcntl.flock(fd, fcntl.LOCK_UN)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _links_refuse(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
        if os.stat(source).st_nlink != 2:
            return False
        try:
            os.link(source, target)
        except FileExistsError:
            target.unlink()
            return True
    except (OSError, NotImplementedError):
        pass
    return False


def may_be_shared(directory: Path) -> bool:
    """Whether other hosts may see a directory (it is not known to be local). Only looks; remembered per device."""
    try:
        device = os.stat(directory).st_dev
    except OSError:
        return False
    if device not in _SHARED:
        _SHARED[device] = _mount_of(directory)[0] not in _LOCAL_FILE_SYSTEMS and sys.platform != "darwin"
    return _SHARED[device]


_SHARED: Final[dict[int, bool]] = {}


def _sync_directory(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _works(call: Callable[[], None]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _mount_of(place: Path) -> tuple[str, frozenset[str]]:
    """Type and options of the file system that holds `place`, by its device number."""
    try:
        status = os.stat(place)
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", frozenset()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    for line in reversed(lines):
        left, _, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        if len(fields) > 5 and len(rest) > 2 and fields[2] == device:
            return rest[0], frozenset(fields[5].split(",")) | frozenset(rest[2].split(","))
    return "", frozenset()
