"""Read handles, one per state of the file, and the header check that tells states apart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py

from gamwarm.storage import redo_journal, vfs
from gamwarm.storage.header import (
    BODY_OFFSET,
    HDF5_SIGNATURE,
    HEADER_BYTES,
    PAGE,
    SIGNATURE_OFFSET,
    Header,
    TornHeader,
    parse,
)
from gamwarm.storage.late_close import restoration, undone
from gamwarm.storage.neighbours import journal_path
from gamwarm.storage.overlay import Overlay
from gamwarm.storage.pager import cut_off, cut_short, leading_bytes, trusted

__all__ = ["Peek", "ReadHandle", "Reader", "RetryRead", "Snapshot", "Unsettled", "close_quietly", "has_header"]

READ_CACHE_BYTES: Final = 32 * 1024 * 1024
READ_CACHE_LIMIT: Final = 2 * READ_CACHE_BYTES

SURVIVES_CHANGES: Final = h5py.version.hdf5_version_tuple >= (2, 0, 0)
"""Whether HDF5 reports metadata that turns to zeros under it; before 2.0 it corrupts memory."""
COPY_BYTES: Final = 8 * 1024 * 1024

Peek = Callable[[int, int], bytes]
"""``peek(count, address)``: up to `count` bytes of the HDF5 image; fewer only at its end."""


class Unsettled(Exception):
    """No handle on the file can be trusted now.

    ``moved`` says that it changed while it was read; otherwise the file is half-applied, by a
    running writer or one that died.
    """

    def __init__(self, *, moved: bool = False) -> None:
        super().__init__("moved" if moved else "half-applied")
        self.moved = moved


class RetryRead(Exception):
    """What was read may be a cache of another state; only where `Container.may_retry`."""


class Snapshot(NamedTuple):
    """Everything that changes when the file does."""

    block: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int


class ReadHandle(h5py.File):  # type: ignore[misc]
    """A handle that also gives the bytes under it, in the state that HDF5 sees.

    Attributes
    ----------
    peek : callable
        See `Peek`.
    changes : bool
        Whether it outlives commits: what was opened through it may be gone by the next read.
    """

    def __init__(self, fid: h5py.h5f.FileID, peek: Peek, *, changes: bool = False) -> None:
        super().__init__(fid)
        self.peek = peek
        self.changes = changes


class Reader:
    """Read handles on one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shared = False
        self._name = os.fspath(path)
        self._fd = -1
        self._identity = (-1, -1)
        self._at: Snapshot | None = None
        self._h5: h5py.File | None = None
        self._overlay: Overlay | None = None
        self._copy = -1

    @property
    def copies(self) -> bool:
        """Whether handles are on a copy in memory, not on the file."""
        return not SURVIVES_CHANGES

    def look(self) -> Snapshot:
        """Header and file status now, following the path if the file was replaced."""
        if self.shared:
            return self._check_afresh()
        status = vfs.DISK.stat(self._name)
        if (status.st_dev, status.st_ino) != self._identity:
            self.close()
            self._fd = vfs.DISK.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # never waits for a FIFO's writer
            status = vfs.DISK.fstat(self._fd)
            self._identity = (status.st_dev, status.st_ino)
        block = os.pread(self._fd, HEADER_BYTES, 0)
        return Snapshot(block, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _check_afresh(self) -> Snapshot:
        """Look by a new descriptor where other hosts may write; an unchanged file keeps the old."""
        fd = vfs.open_afresh(self.path, os.O_RDONLY, count=PAGE)
        status = vfs.DISK.fstat(fd)
        block = os.pread(fd, HEADER_BYTES, 0)
        snapshot = Snapshot(block, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._fd >= 0 and snapshot == self._at:
            vfs.DISK.close(fd)
        else:
            self.close()
            vfs.DISK.forget(fd)
            self._fd, self._identity = fd, (status.st_dev, status.st_ino)
        return snapshot

    def still_current(self, snapshot: Snapshot) -> bool:
        """Whether the inspected file is unchanged, whatever has its name by now."""
        if self.shared:
            vfs.DISK.forget(self._fd, PAGE)
        status = vfs.DISK.fstat(self._fd)
        return (
            status.st_mtime_ns == snapshot.mtime_ns
            and status.st_size == snapshot.size
            and os.pread(self._fd, HEADER_BYTES, 0) == snapshot.block
        )

    def header(self, snapshot: Snapshot) -> Header:
        """The header, or the error that says why there is none."""
        try:
            return parse(snapshot.block, str(self.path))
        except TornHeader:
            raise
        except Exception:
            # Describe the file; that takes more than the header.
            return parse(leading_bytes(self._fd), str(self.path))

    def peek_header(self) -> bytes | None:
        """The header's bytes by one read; None if that cannot tell."""
        if self.shared:
            return None
        try:
            return os.pread(self._fd, HEADER_BYTES, 0) if os.fstat(self._fd).st_nlink else None
        except OSError:
            return None  # another thread is following a replaced file just now

    def handle(self, snapshot: Snapshot) -> h5py.File:
        """A handle on the current state of the file.

        Raises
        ------
        Unsettled
            The file alone does not hold the last committed state (or not yet).
        """
        if self._h5 is not None and self._at == snapshot:
            return self._h5
        self.drop()
        try:
            header = self.header(snapshot)
        except TornHeader as torn:
            raise Unsettled() from torn
        if header.applying or not (trusted(header, shared=self.shared) or self._journal_is_empty()):
            raise Unsettled()
        if undone(self._fd, header, snapshot.size):
            raise Unsettled()
        return self._keep(snapshot, Overlay(self._fd, snapshot.size))

    def handle_over_journal(self, snapshot: Snapshot) -> h5py.File:
        """A handle on the committed state that a writer has not (or not yet) brought into the file.

        The journal's pages lie over the file in memory. They hold every page that the writer may be
        changing, so this is also safe during a live write, as long as the header is unchanged.
        """
        if self._h5 is not None and self._at == snapshot:
            return self._h5
        self.drop()
        header: Header | None = None
        try:
            header = self.header(snapshot)
            uuid = header.uuid
        except TornHeader as torn:
            uuid = torn.uuid
        replay = self._scan(uuid)
        # The journal restores what a power loss kept from the file; another program
        # need not have shortened it.
        settled = header is not None and not header.applying
        if header is not None and settled and (replay is None or trusted(header, shared=self.shared)):
            shortened = undone(self._fd, header, snapshot.size)
        else:
            shortened = False
        if shortened and header is not None:
            replay = restoration(self._fd, header, snapshot.size, replay)
            if replay is None:
                raise cut_off(self.path, snapshot.size)
        if replay is None or (header is not None and not replay.follows(header.sequence)):
            if header is not None and not header.applying:
                return self._keep(snapshot, Overlay(self._fd, snapshot.size))
            raise cut_short(self.path)
        pages: dict[int, bytes | memoryview] = dict(replay.pages)
        first = bytearray(pages[0] if 0 in pages else vfs.DISK.pread(self._fd, PAGE, 0).ljust(PAGE, b"\0"))
        first[SIGNATURE_OFFSET:BODY_OFFSET] = HDF5_SIGNATURE
        pages[0] = bytes(first)
        return self._keep(snapshot, Overlay(self._fd, min(snapshot.size, replay.size), pages, replay.size))

    def _scan(self, uuid: bytes) -> redo_journal.Replay | None:
        try:
            fd = vfs.open_auxiliary(journal_path(self.path), os.O_RDONLY)
            if self.shared:
                vfs.DISK.forget(fd)
        except FileNotFoundError:
            return None
        try:
            return redo_journal.scan(fd, uuid, self._fd, self.path)
        finally:
            vfs.DISK.close(fd)

    def _journal_is_empty(self) -> bool:
        try:
            return os.lstat(journal_path(self.path)).st_size == 0
        except FileNotFoundError:
            return True

    def _keep(self, snapshot: Snapshot, overlay: Overlay) -> h5py.File:
        overlay.dead = True
        # A writer marks the header first: bytes read while it is valid are of that state.
        still_current = partial(has_header, self._fd, snapshot.block, forget=self.shared)
        if self.copies:
            overlay.fd = self._copied(snapshot.size)
            if not still_current():
                raise Unsettled(moved=True)
        else:
            overlay.still_current = still_current
        self._overlay = overlay
        self._h5 = _open(overlay)
        self._at = snapshot
        return self._h5

    def _copied(self, size: int) -> int:
        """A descriptor of the file's bytes in memory, which no writer changes."""
        self._copy = os.memfd_create("gamwarm", os.MFD_CLOEXEC)
        for start in range(0, size, COPY_BYTES):
            os.write(self._copy, vfs.DISK.pread(self._fd, min(COPY_BYTES, size - start), start))
        return self._copy

    @property
    def latched(self) -> BaseException | None:
        """The first error of the disk under the handle."""
        return self._overlay.error if self._overlay is not None else None

    def drop(self) -> None:
        """Close the handle: what it has cached is of another state."""
        h5 = self._h5
        if self._overlay is not None:
            self._overlay.still_current = None  # what closing reads is not used, but must not fail
        self._h5 = self._at = self._overlay = None
        if h5 is not None:
            close_quietly(h5)
        if self._copy >= 0:
            os.close(self._copy)
            self._copy = -1

    def close(self) -> None:
        self.drop()
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                vfs.DISK.close(self._fd)
        self._fd, self._identity = -1, (-1, -1)


def has_header(fd: int, block: bytes, *, forget: bool = False) -> bool:
    """Whether a file has this header now."""
    if forget:
        vfs.DISK.forget(fd, PAGE)
    return os.pread(fd, HEADER_BYTES, 0) == block


def close_quietly(h5: h5py.File) -> None:
    """Close a handle that must not fail; what it could not write is discarded with its overlay."""
    with contextlib.suppress(Exception):
        h5.close()


@lru_cache(maxsize=1)
def _access() -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    cache = access.get_mdc_config()
    cache.set_initial_size = True
    cache.initial_size = cache.min_size = READ_CACHE_BYTES
    cache.max_size = READ_CACHE_LIMIT
    access.set_mdc_config(cache)
    return access


def _open(overlay: Overlay) -> h5py.File:
    # Not HDF5's native driver: it gives a second open of one inode in one process the first one's
    # cache, however old, and refuses a user's plain h5py.File of the same file. It would save a
    # quarter of a cold look-up.
    access = _access().copy()
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, overlay)
    return ReadHandle(h5py.h5f.open(repr(overlay).encode(), h5py.h5f.ACC_RDONLY, fapl=access), overlay.peek)
