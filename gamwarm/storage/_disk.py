"""The one seam between gamwarm and the operating system.

Every call that can change the file, its journal or their directory goes through `DISK`, so that a test can record, cut,
tear or fail the calls of the shipped code. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

from gamwarm.errors import StoreError, StoreNotFound, StoreReadOnly, StoreUnavailable

__all__ = ["DISK", "Disk", "boot_identity", "explain"]

BOOT_IDENTITY_BYTES: Final = 8
UNKNOWN_BOOT: Final = bytes(BOOT_IDENTITY_BYTES)

# A file system that cannot reserve space is used without: ENOSPC may then also strike after the commit point, which
# costs a replay and loses nothing.
_CANNOT_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
_NO_PERMISSION: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Disk:
    """Thin, complete (no short reads or writes) wrappers around the calls that the protocol consists of."""

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
            # Some network file systems refuse to sync a directory; their metadata operations are synchronous.
            if exc.errno not in _CANNOT_RESERVE:
                raise
        finally:
            os.close(fd)


DISK: Disk = Disk()


@lru_cache(maxsize=1)
def boot_identity() -> bytes:
    """Eight bytes that change when this machine boots; zeros where that cannot be known.

    Writes that reached the page cache survive the death of a process but not of the machine. Zeros never compare equal
    to anything (see `_files.FilePair`), which costs a replay and is always safe.
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


def explain(exc: OSError, path: Path, doing: str) -> StoreError:
    """Turn an operating system error into ours, with the path and the next step."""
    if isinstance(exc, StoreError):
        return exc
    what = f"{path}: could not {doing}: {exc.strerror or exc}"
    if exc.errno in _NO_PERMISSION:
        return StoreReadOnly(
            f"{what}. Open it with mode='r', or give this account write permission to the file and its directory.",
            path=str(path),
            errno=exc.errno,
        )
    if exc.errno == errno.ENOENT:
        step = "Check the path; mode='a' creates a missing file."
        return StoreNotFound(f"{what}. {step}", path=str(path), errno=exc.errno)
    if exc.errno in _FULL:
        step = "Nothing acknowledged is lost; free some space (or raise the quota) and put again."
    elif exc.errno == errno.EISDIR:
        step = "Give the path of a file."
    elif exc.errno in {errno.EMFILE, errno.ENFILE}:
        step = "Close some files or raise the limit on open files."
    else:
        step = "Nothing acknowledged is lost; look at the disk or the mount, then open the store again."
    return StoreUnavailable(f"{what}. {step}", path=str(path), errno=exc.errno)
