"""Other programs that have the file open with plain HDF5, which locks it by ``flock``.

HDF5 holds an exclusive lock as long as a file is open for writing, a shared one as long as it is
open for reading. When a handle for writing is closed, HDF5 sets the end of the file to what that
handle knew: whatever was committed meanwhile is cut off. So a transaction holds a shared lock from
before its first read until its pages are in the file: a writer of others cannot open the file in
that time, and one that has it open is met before anything is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

from gamwarm.errors import LockTimeout

__all__ = ["OpenElsewhere", "Presence"]

READER_PATIENCE: Final = 0.25
"""Seconds to wait for plain readers before changing the file."""
_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


class OpenElsewhere(Exception):
    """Another program, or a plain handle of this one, has the file open for writing.

    Attributes
    ----------
    holder : str
        Who that is, as far as is known.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder

    def timeout(self, path: Path, waited: float) -> LockTimeout:
        return LockTimeout(
            f"{path}: waited {waited:.3g} s for {self.holder}, which has it open for writing with plain HDF5. Nothing "
            "was written: closing that handle could have undone it. Close it (or open it with mode 'r'), then put "
            "again.",
            path=str(path),
            holder=self.holder,
        )


class Presence:
    """Our own lock on the file while we work on it; nothing where ``flock`` does not work.

    Attributes
    ----------
    held : bool
    """

    def __init__(self) -> None:
        self.held = False

    def show(self, fd: int) -> None:
        """Hold a shared lock, or raise `OpenElsewhere`."""
        if self.held:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno in _BUSY:
                raise OpenElsewhere(_holder(fd)) from None
        else:
            self.held = True

    def exclude_readers(self, fd: int, patience: float) -> bool:
        """Exchange the shared lock for an exclusive one; False if readers stay too long.

        The exchange is not atomic: the caller must see for itself whether the file was changed in
        between. Raises `OpenElsewhere` if a writer came in between and is still there.
        """
        if not self.held:
            return True
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.held = False  # a failed exchange drops the shared lock
                self.show(fd)
            else:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)

    def leave(self, fd: int) -> None:
        """Give the lock up."""
        if self.held:
            self.held = False
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)


def _holder(fd: int) -> str:
    """Who holds an exclusive lock on an open file, by the kernel's table where there is one."""
    try:
        inode = os.fstat(fd).st_ino
        table = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "another program"
    for line in table.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5].endswith(f":{inode}"):
            pid = int(words[4]) if words[4].isdigit() else 0
            if pid == os.getpid():
                return f"this process (pid {pid})"
            return f"pid {pid}{_name(pid)}" if pid else "another program"
    return "another program"


def _name(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return f" ({name})" if name and name.isprintable() else ""
