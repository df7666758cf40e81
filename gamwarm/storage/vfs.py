"""The one seam between gamwarm and the operating system.

Every call that can change the file, its journal or their directory goes through `DISK`, so that a
test can record, cut, tear or fail the calls of the shipped code. Nothing here interprets the bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

if sys.platform != "win32":
    import fcntl

from gamwarm.errors import StoreError, StoreNotFound, StoreReadOnly, StoreUnavailable
from gamwarm.interrupts import wait

__all__ = [
    "DISK",
    "Disk",
    "boot_identity",
    "create_auxiliary",
    "explain",
    "in_the_way",
    "not_of_the_file",
    "open_afresh",
    "open_auxiliary",
    "open_or_create_auxiliary",
    "out_of_memory",
    "replace_text",
    "require_directory",
    "share",
    "share_if_ours",
    "status_of",
    "typed",
]

BOOT_IDENTITY_BYTES: Final = 8
UNKNOWN_BOOT: Final = bytes(BOOT_IDENTITY_BYTES)

# A file system that cannot reserve space is used without: ENOSPC may then also strike after the
# commit point, which costs a replay and loses nothing.
_CANNOT_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
_STALE: Final = frozenset({errno.ENOENT, errno.ESTALE})
CACHE_PATIENCE: Final = 2.0
"""Seconds after which no cache is to blame; FUSE and NFS keep names for about one."""
CACHE_PAUSE: Final = 0.05
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_FORCE_SYNC: Final = 0x2000
_STATX_BASIC_STATS: Final = 0x7FF
_NO_PERMISSION: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_A_FILE: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENODEV})
"""Errors of an open without following or waiting, for a link, directory, socket or device."""


class Disk:
    """Thin wrappers, complete (no short reads or writes), around the protocol's system calls."""

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def stat(self, path: Path | str) -> os.stat_result:
        return os.stat(path)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """Read up to `count` bytes; shorter only at the end of the file."""
        data = os.pread(fd, count, offset)
        while data and len(data) < count:
            more = os.pread(fd, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def readinto(self, fd: int, buffer: memoryview, offset: int) -> int:
        """One read straight into `buffer`; may be short."""
        return os.preadv(fd, [buffer], offset)

    def pwrite(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(fd, view, offset)
            view = view[done:]
            offset += done

    def forget(self, fd: int, count: int = 0) -> None:
        """Drop this host's cache of an open file: attributes, first `count` bytes (0: all).

        Close-to-open consistency is as good as the mount options; this also gets past those that
        keep caches at open.
        """
        _ask_for_status(fd)
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(fd, 0, count, os.POSIX_FADV_DONTNEED)

    def fdatasync(self, fd: int) -> None:
        if sys.platform == "darwin":
            # On macOS fsync stops at the drive's cache; only F_FULLFSYNC reaches the media.
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fallocate(self, fd: int, offset: int, count: int) -> None:
        """Reserve space (and extend the file), where the file system can."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(fd, offset, count)
        except OSError as exc:
            if exc.errno not in _CANNOT_RESERVE:
                raise

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def fsync_dir(self, path: Path) -> None:
        """Make creations, renames and removals in the directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as exc:
            # Some network file systems refuse to sync a directory: there metadata are synchronous.
            if exc.errno not in _CANNOT_RESERVE:
                raise
        finally:
            os.close(fd)


DISK: Disk = Disk()


@lru_cache(maxsize=1)
def boot_identity() -> bytes:
    """Eight bytes that change when this machine boots; zeros if unknown.

    Writes that reached the page cache survive the death of a process but not of the machine. Zeros
    never compare equal to anything (see `pager.FilePair`), which costs a replay and is always safe.
    """
    text = ""
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        else:
            text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return UNKNOWN_BOOT
    return hashlib.sha256(text.strip().encode()).digest()[:BOOT_IDENTITY_BYTES] if text.strip() else UNKNOWN_BOOT


# -- auxiliary files -------------------------------------------------------------------------------


def open_auxiliary(path: Path, flags: int) -> int:
    """Open an auxiliary file of a store (journal, new file, lock).

    The directory may be shared, so the name may lead anywhere: no link is followed, no FIFO waited
    for, and what the file holds is still for the caller to judge before a byte of it is changed.

    Raises
    ------
    FileNotFoundError
        Nothing has that name.
    StoreError
        It is not a regular file, or cannot be opened; the message names it.
    """
    try:
        fd = DISK.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as exc:
        if exc.errno in _NOT_A_FILE:
            raise in_the_way(path) from exc
        raise explain(exc, path, "open it") from exc
    if not stat.S_ISREG(DISK.fstat(fd).st_mode):
        DISK.close(fd)
        raise in_the_way(path)
    return fd


def create_auxiliary(path: Path, like: os.stat_result | None, mode: int | None = None) -> int:
    """Make such a file, which must not exist, with ``like``'s permissions (None: the umask's)."""
    try:
        fd = DISK.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666 if like is None else 0o600)
    except FileExistsError as exc:
        raise in_the_way(path) from exc
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise explain(exc, path, "create it") from exc
    if like is not None:
        share(fd, like, mode)
    return fd


def refuse_existing(path: Path) -> None:
    """Refuse to write where something is.

    Raises
    ------
    StoreError
    """
    if os.path.isdir(path):  # of a name that cannot be, `replace_text` says so
        raise StoreError(f"{path}: a directory; give the path of a file", path=str(path))
    if os.path.lexists(path):
        raise StoreError(f"{path}: exists already; give another path, or overwrite=True", path=str(path))


def replace_text(path: Path, text: str, mode: int | None = None) -> None:
    """Put a text file in the place of another or of none, atomically, following no link.

    Its permissions are `mode`, or by the umask.
    """
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    require_directory(path)
    with typed(path, "write it"):
        try:
            with open(scratch, "x", encoding="utf-8") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(text)
            DISK.rename(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                DISK.unlink(scratch)
            raise


def share(fd: int, like: os.stat_result, mode: int | None = None) -> None:
    """Give an auxiliary file the same access as the store, whatever the umask."""
    if mode is None:
        mode = like.st_mode & 0o666 | 0o600
    now = os.fstat(fd)
    given = (now.st_uid, now.st_gid) == (like.st_uid, like.st_gid)
    for owner in (like.st_uid, -1):  # to give a file away takes privileges, to give it to one's group does not
        if not given:
            with contextlib.suppress(OSError):
                os.fchown(fd, owner, like.st_gid)
                given = True
    if not given and now.st_gid != like.st_gid:
        # What the store grants its group is not for this file's.
        mode = mode & ~0o070 | (mode & 0o007) << 3
    if mode != stat.S_IMODE(now.st_mode):
        with contextlib.suppress(OSError):
            os.fchmod(fd, mode)


def share_if_ours(fd: int, like: os.stat_result, mode: int | None = None) -> None:
    """`share` an existing file: the store may have been opened to a group since."""
    if os.fstat(fd).st_uid == os.geteuid():
        share(fd, like, mode)


def in_the_way(path: Path, what: str = "") -> StoreError:
    """Return the error for a foreign file under one of gamwarm's names."""
    if not what:
        kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a directory"}
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
        except OSError:
            kind = 0
        what = kinds.get(kind, "a file" if kind == stat.S_IFREG else "not a regular file")
    return StoreUnavailable(
        f"{path}: {what} that gamwarm did not create is in the place of one of its own files. It was neither "
        "followed nor changed; move it away, then open the store again.",
        path=str(path),
    )


# -- errors ----------------------------------------------------------------------------------------


def status_of(path: Path) -> os.stat_result | None:
    """Return what a path is, links followed; None where nothing is. Any other error is typed."""
    try:
        return DISK.stat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise explain(exc, path, "inspect it") from exc


def require_directory(path: Path) -> None:
    """Refuse a file whose directory is missing."""
    if status_of(path.parent) is None:
        raise StoreNotFound(
            f"{path}: there is no directory {path.parent}; create it first", path=str(path), errno=errno.ENOENT
        )


@contextlib.contextmanager
def typed(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's errors in the block into ours."""
    try:
        yield
    except StoreError:
        raise
    except OSError as exc:
        raise explain(exc, path, doing) from exc


# -- where other hosts may write -------------------------------------------------------------------


def open_afresh(path: Path, flags: int, *, count: int = 0) -> int:
    """Open a file that another host may have changed a moment ago, believing no cache.

    Of its bytes the first `count` (0: all) are read from the server.
    """
    return _retrying(lambda: DISK.open(path, flags), count)


def open_or_create_auxiliary(path: Path, like: os.stat_result) -> int:
    """The same for an auxiliary file, which is created if missing.

    A host may cache for long that a name does not exist; the server says so when it is
    asked to make it.
    """

    def open_or_make() -> int:
        try:
            return open_auxiliary(path, os.O_RDWR)
        except FileNotFoundError:
            try:
                return create_auxiliary(path, like)
            except StoreError as exc:
                if isinstance(exc.__cause__, FileExistsError):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from exc
                raise

    return _retrying(open_or_make, 0)


def _retrying(opened: Callable[[], int], count: int) -> int:
    """Open, again while a cached name leads nowhere or to a file without a name."""
    deadline = time.monotonic() + CACHE_PATIENCE
    while True:
        late = time.monotonic() >= deadline
        try:
            fd = opened()
        except OSError as exc:
            if late or exc.errno not in _STALE:
                raise
        else:
            try:
                DISK.forget(fd, count)
                if late or DISK.fstat(fd).st_nlink:
                    return fd
            except BaseException:
                DISK.close(fd)
                raise
            DISK.close(fd)
        wait(CACHE_PAUSE)


@lru_cache(maxsize=1)
def _statx() -> Any:
    try:
        return ctypes.CDLL(None).statx
    except (OSError, AttributeError):
        return None


def _ask_for_status(fd: int) -> None:
    """Ask the server for size and times of an open file; `os.fstat` answers from a cache."""
    call = _statx()
    if call is not None:
        call(fd, b"", _AT_EMPTY_PATH | _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, ctypes.create_string_buffer(512))


def out_of_memory(error: MemoryError) -> OSError:
    """Return the error that the system would have raised."""
    return OSError(errno.ENOMEM, str(error) or os.strerror(errno.ENOMEM))


def not_of_the_file(*errors: BaseException | None) -> Exception | None:
    """Return the first of ``errors`` that comes from disk or process: no byte need be wrong.

    A system error unchanged, lack of memory as one (ENOMEM), and a `RecursionError`; None if there
    is none.
    """
    for error in errors:
        if isinstance(error, MemoryError):
            return out_of_memory(error)
        if isinstance(error, RecursionError) or (isinstance(error, OSError) and error.errno is not None):
            return error
    return None


def explain(exc: OSError, path: Path, doing: str) -> StoreError:
    """Turn an operating system error into ours, with the path and the next step."""
    if isinstance(exc, StoreError):
        return exc
    what = f"{path}: could not {doing}: {exc.strerror or exc}"
    if exc.errno in _NO_PERMISSION:
        looks = doing in ("inspect it", "read it")
        step = (
            "Give this account permission to read it and to enter its directory."
            if looks
            else "Open it with mode='r', or give this account write permission to the file and its directory."
        )
        return StoreReadOnly(
            f"{what}. {step}",
            path=str(path),
            errno=exc.errno,
        )
    if exc.errno == errno.ENOENT:
        step = "Check the path; mode='a' creates a missing file."
        return StoreNotFound(f"{what}. {step}", path=str(path), errno=exc.errno)
    if exc.errno in _FULL:
        step = "Nothing acknowledged is lost; free some space (or raise the quota) and put again."
    elif exc.errno == errno.ENOMEM:
        step = "Nothing acknowledged is lost; free some memory, then open the store again."
    elif exc.errno == errno.EISDIR:
        step = "Give the path of a file."
    elif exc.errno in {errno.EMFILE, errno.ENFILE}:
        step = "Close some files or raise the limit on open files."
    elif exc.errno in {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}:
        step = "Check the path."
    else:
        step = "Nothing acknowledged is lost; check the disk or the mount, then open the store again."
    return StoreUnavailable(f"{what}. {step}", path=str(path), errno=exc.errno)
