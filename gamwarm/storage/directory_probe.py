"""What a directory supports, found by trying; file-system names only tell whether it is shared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

from gamwarm.interrupts import wait
from gamwarm.storage.coherence import PROBE_PREFIX, Coherence, Safety, try_two
from gamwarm.storage.vfs import explain, open_auxiliary, replace_text

__all__ = ["DirectoryProbe", "may_be_shared", "probe", "recall", "remember", "remove_debris"]

NOTE: Final = ".gamwarm-doctor.json"
"""The result of `gamwarm doctor` for a directory with two clients, if it restricts stores there.
"""
NOTE_BYTES: Final = 4096
_NOTE_SAYS: Final = (
    "gamwarm doctor tested this directory with two clients (hosts or mounts). Stores here obey the result. Run it "
    "again if the mounts change, or remove this file."
)
DEBRIS_SECONDS: Final = 3600.0
"""A test file older than this was left by a killed probe."""

# On these the kernel itself keeps the lock table and the only cache, so two descriptors of one
# process stand for two processes and the probe needs no child. It is still tried, because a mount
# may be odd.
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "zfs", "f2fs", "overlay", "bcachefs", "apfs"),
        *("jfs", "reiserfs", "nilfs2", "vfat", "exfat", "ntfs3"),
    }
)
# Options under which flock succeeds but stays on this node.
_NODE_ONLY_OPTIONS: Final = frozenset({"nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl"})

_MOUNT_TABLE = Path("/proc/self/mountinfo")

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
CHILD_SECONDS: Final = 30.0
CHILD_PAUSE: Final = 0.005


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
        Files and the directory can be synced; None where that was not tried (local, and no child
        was asked for).
    coherence : Coherence or None
        What two descriptors on this host see of each other; None as for `fsync`. Two hosts may see
        less.
    """

    directory: str
    file_system: str
    shared: bool
    flock: bool
    by_child: bool
    hard_links: bool
    rename: bool
    fsync: bool | None
    coherence: Coherence | None


def probe(directory: str | os.PathLike[str], *, child: bool | None = None) -> DirectoryProbe:
    """Test what the store needs in `directory`, with temporary files.

    Parameters
    ----------
    directory : path
        An existing, writable directory.
    child : bool, optional
        Test flock against another process. Default: only where the file system is not known to be
        local.

    Raises
    ------
    StoreError
        The directory does not exist or cannot be written to.
    """
    place = Path(directory)
    file_system, options = _mount_of(place)
    shared = _is_shared(file_system)
    by_child = shared if child is None else child
    # A fresh name: a network file system may answer from memory of an old one.
    stem = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    first, second, third = (place / f"{stem}-{letter}" for letter in "abc")
    try:
        fd = os.open(first, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise explain(exc, place, "create a file in this directory") from exc
    try:
        remove_debris(place, os.fstat(fd).st_mtime)
        flock = not (_NODE_ONLY_OPTIONS & options) and _flock_excludes(fd, first, by_child)
        sync = _works(lambda: os.fsync(fd)) and _works(lambda: _sync_directory(place)) if by_child else None
        links = _links_refuse(first, second)
        rename = _rename_replaces(first, third)
    finally:
        os.close(fd)
        for path in (first, second, third):
            with contextlib.suppress(OSError):
                path.unlink()
    coherence = _take_turns(place) if by_child else None
    return DirectoryProbe(str(place), file_system, shared, flock, by_child, links, rename, sync, coherence)


def _take_turns(place: Path) -> Coherence | None:
    try:
        return try_two(place, place)
    except OSError:
        return None  # A folder cannot be made, or a file not synced: identified by the rest of the test.


def remember(directory: Path, coherence: Coherence) -> bool:
    """Leave a note for stores if two clients found less than one host alone can see.

    A note that is out of date is removed. Returns whether there is one now.
    """
    path = directory / NOTE
    if coherence.safety is not Safety.ONE_WRITER and coherence.flock and coherence.links:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return False
    # It applies to everyone who can enter the directory, whatever the tester's umask.
    mode = 0o600 | (os.stat(directory).st_mode & 0o011) << 2
    replace_text(path, json.dumps({"what": _NOTE_SAYS, **asdict(coherence)}, indent=1) + "\n", mode)
    return True


def recall(directory: Path) -> Coherence | None:
    """Return what `remember` noted, or None."""
    try:
        fd = open_auxiliary(directory / NOTE, os.O_RDONLY)
    except OSError:
        return None
    try:
        noted = json.loads(os.pread(fd, NOTE_BYTES, 0))
        return Coherence(**{field.name: noted[field.name] for field in fields(Coherence)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(fd)


def may_be_shared(directory: Path) -> bool:
    """Whether other hosts may see a directory (not known to be local); remembered per device."""
    try:
        device = os.stat(directory).st_dev
    except OSError:
        return False
    if device not in _SHARED:
        _SHARED[device] = _is_shared(_mount_of(directory)[0])
    return _SHARED[device]


_SHARED: Final[dict[int, bool]] = {}


def _is_shared(file_system: str) -> bool:
    return file_system not in _LOCAL_FILE_SYSTEMS and sys.platform != "darwin"


def remove_debris(place: Path, now: float) -> None:
    """Remove what killed probes have left in a directory.

    Parameters
    ----------
    now : float
        By the clock that stamps files there: the modification time of a file just made.
    """
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(PROBE_PREFIX):
                with contextlib.suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime <= DEBRIS_SECONDS:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        os.unlink(entry)


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
        if by_child and _run([sys.executable, "-I", "-S", "-c", _CHILD, str(path)]) != _CHILD_EXCLUDED:
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _run(command: list[str]) -> int | None:
    """Return a child's exit code; None if it does not end in time."""
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + CHILD_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            wait(CHILD_PAUSE)
        return child.returncode
    finally:
        child.kill()
        child.wait()


def _links_refuse(source: Path, target: Path) -> bool:
    """Whether a hard link is made, and refused over an existing name. Leaves `target`."""
    try:
        os.link(source, target)
        # Not by the number of links: a client may remember that of an old name.
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if status.st_nlink != 2 and not os.path.samestat(status, os.stat(source)):
            return False
        os.link(source, target)
    except FileExistsError:
        return target.exists()
    except (OSError, NotImplementedError):
        pass
    return False


def _rename_replaces(source: Path, target: Path) -> bool:
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        inode = os.stat(source).st_ino
        os.replace(source, target)
        return os.stat(target).st_ino == inode and not source.exists()
    except OSError:
        return False


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
    """Type and options of the file system of `place`: the last mount on its longest prefix.

    Not by device number: btrfs and overlay report others than the mount table has.
    """
    try:
        path = os.path.realpath(place)
        table = _MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return "", frozenset()
    longest, found = -1, ("", frozenset[str]())
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if len(point) >= longest and (path == point or path.startswith(point.rstrip("/") + "/")):
            longest = len(point)
            found = rest[0], frozenset(fields[5].split(",")) | frozenset(rest[2].split(","))
    return found
