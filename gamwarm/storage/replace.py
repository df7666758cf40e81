"""Atomically replace a file by a rewritten one (docs/file-format.md, "Rewriting")."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

import h5py

from gamwarm.storage import vfs
from gamwarm.storage.header import USER_BLOCK, Header
from gamwarm.storage.neighbours import make_scratch, scratch_path
from gamwarm.storage.pager import FilePair
from gamwarm.storage.reader import close_quietly

__all__ = ["fill_through", "rewrite"]

T = TypeVar("T")


class _Through:
    """The file-like object under h5py's ``fileobj`` driver that writes straight to a descriptor.

    As in `overlay`, no callback that writes ever raises: the first error is kept for the owner to
    check.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = 0
        self.error: BaseException | None = None
        self._position = 0

    def __repr__(self) -> str:
        return f"gamwarm-rewrite-{id(self):x}"

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = self.size if whence == os.SEEK_END else self._position if whence == os.SEEK_CUR else 0
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        buffer = memoryview(buffer)
        count = len(buffer)
        try:
            buffer[:] = vfs.DISK.pread(self.fd, count, self._position).ljust(count, b"\0")
        except BaseException as exc:
            buffer[:] = bytes(count)
            self._latch(exc)
        self._position += count
        return count

    def read(self, count: int) -> bytes:
        """h5py takes for a file what has this method."""
        buffer = bytearray(count)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, data: memoryview) -> int:
        if self.error is None:
            try:
                vfs.DISK.pwrite(self.fd, bytes(data), self._position)
            except BaseException as exc:
                self._latch(exc)
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def truncate(self, size: int) -> int:
        if self.error is None:
            try:
                vfs.DISK.ftruncate(self.fd, size)
            except BaseException as exc:
                self._latch(exc)
        self.size = size
        return size

    def flush(self) -> None:
        """Nothing counts before the rename."""

    def _latch(self, exc: BaseException) -> None:
        if self.error is None:
            self.error = exc


def rewrite(pair: FilePair, fill: Callable[[h5py.File], T]) -> tuple[T, int, int]:
    """Let ``fill`` write a new file, and rename it over ``pair``'s. Under the lock, after `load`.

    The uuid stays, the generation is one more. An exception, ``fill``'s included, leaves the file
    as it was. Returns what ``fill`` returned, and the bytes of the old and the new file.

    Notes
    -----
    The journal is emptied and removed before the rename. If a power loss restores it next to the
    new file, its last frame is older than the new header, so it does not continue it and is
    discarded.
    """
    disk, scratch = vfs.DISK, scratch_path(pair.path)
    status = disk.fstat(pair.main)
    fd = make_scratch(pair.path, status)
    try:
        result = fill_through(fd, fill)
        sizes = status.st_size, disk.fstat(fd).st_size
        header = Header(pair.header.sequence + 2, pair.header.uuid, pair.boot(), 0, sizes[1])
        disk.pwrite(fd, header.pack().ljust(USER_BLOCK, b"\0"), 0)
        disk.fdatasync(fd)
        pair.remove_journal()
        disk.rename(scratch, pair.path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(scratch)
        raise
    finally:
        disk.close(fd)
        pair.close()
    pair.sync_directory()
    return result, *sizes


def fill_through(fd: int, fill: Callable[[h5py.File], T], fcpl: Any = None) -> T:
    """Let ``fill`` lay out a new HDF5 file in the empty file ``fd``; disk errors pass unchanged."""
    through = _Through(fd)
    h5 = _create(through, h5py.h5p.create(h5py.h5p.FILE_CREATE) if fcpl is None else fcpl)
    try:
        result = fill(h5)
        h5.close()
    except BaseException as exc:
        if through.error is None:
            through.error = exc
        raise through.error from None
    finally:
        close_quietly(h5)
    if through.error is not None:
        raise through.error
    if vfs.DISK.fstat(fd).st_size != through.size:
        vfs.DISK.ftruncate(fd, through.size)
    return result


def _create(through: _Through, fcpl: Any) -> h5py.File:
    fcpl.set_userblock(USER_BLOCK)
    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    fapl.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    fapl.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    fapl.set_fileobj_driver(h5py.h5fd.fileobj_driver, through)
    return h5py.File(h5py.h5f.create(repr(through).encode(), h5py.h5f.ACC_TRUNC, fcpl=fcpl, fapl=fapl))
