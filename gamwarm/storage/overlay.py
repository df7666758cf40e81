"""The file-like object under h5py's ``fileobj`` driver: the file, with dirty pages over it.

HDF5 appears to write; the file changes only when a commit applies the pages.

Not a subclass of `io.RawIOBase`: its finalizer closes the object at interpreter exit, HDF5's own
shutdown then calls into the closed object, and the process dies of a segmentation fault. For the
same reason no callback that HDF5 calls to *write* ever raises: HDF5 would be left with a file that
cannot be closed. The first error is latched instead, and the owner checks `error` before it
commits.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Final

from gamwarm.storage import vfs
from gamwarm.storage.free_space import HEADER_SIGNATURE, belongs_together
from gamwarm.storage.header import PAGE, USER_BLOCK

__all__ = ["Overlay"]

KEPT_PAGES: Final = 256


class Overlay:
    """Pages over a base file.

    Parameters
    ----------
    fd : int
        Base file, or -1 for none. Not owned.
    size : int
        Bytes of the base file that count.
    pages : mapping, optional
        Pages (by number, `PAGE` bytes each) that lie over the base from the start.
    logical_size : int, optional
        Size of the result where `pages` change it.

    Attributes
    ----------
    dirty : dict
        Pages written since the last `rebase`.
    error : BaseException or None
        First error of a callback, whether HDF5 was told or not.
    dead : bool
        Writes are swallowed: set for handles to read from, and before a handle is closed whose
        changes are dropped.
    quiet : bool
        Reads do not raise either; set while HDF5 flushes or closes.
    still_current : callable or None
        Asked after each read of the base: False gives zeros instead of what was read. HDF5 sizes
        buffers by one part of the file and fills them from another without looking again: bytes of
        two states corrupt the process's memory, so a concurrent reader must never see any.
    vets : bool
        What HDF5 would crash on when it writes is withheld (see `free_space`).
    """

    def __init__(
        self,
        fd: int,
        size: int,
        pages: Mapping[int, bytes | bytearray | memoryview] | None = None,
        logical_size: int | None = None,
    ) -> None:
        self.fd = fd
        self.size = size if logical_size is None else logical_size
        self.dirty: dict[int, bytearray] = {number: bytearray(page) for number, page in (pages or {}).items()}
        self.error: BaseException | None = None
        self.dead = False
        self.quiet = False
        self.still_current: Callable[[], bool] | None = None
        self.vets = False
        self._base = size
        self._position = 0
        self._applied: dict[int, bytearray] = {}

    def __repr__(self) -> str:
        return f"gamwarm-overlay-{id(self):x}"

    def rebase(self) -> None:
        """The dirty pages are in the base file now: they are dirty no more.

        They stay cached while they are few, since the next transaction usually changes the same
        ones.
        """
        if len(self._applied) + len(self.dirty) > KEPT_PAGES:
            self._applied = {}
        if len(self.dirty) <= KEPT_PAGES:
            self._applied.update(self.dirty)
        self.dirty = {}
        self._base = self.size

    def peek(self, count: int, address: int) -> bytes:
        """Up to `count` bytes of the HDF5 image, by HDF5's addresses (no user block)."""
        offset = address + USER_BLOCK
        if self.dirty or self.fd < 0:
            buffer = bytearray(max(0, min(count, self.size - offset)))
            self._fill(memoryview(buffer), offset)
            return bytes(buffer)
        return vfs.DISK.pread(self.fd, count, offset)

    def _latch(self, exc: BaseException) -> None:
        # A copy, which has no frames: one of what is raised here holds the property list that HDF5
        # opens the file with, and that holds this object. HDF5 would free such a list when the
        # process ends, behind Python's own end.
        if self.error is None:
            self.error = copy.copy(exc)

    def _page(self, number: int) -> bytearray:
        settled = self._applied.pop(number, None)
        if settled is not None:
            return settled
        start = number * PAGE
        data = b""
        if self.fd >= 0 and start < self._base:
            data = vfs.DISK.pread(self.fd, min(PAGE, self._base - start), start)
        return bytearray(data.ljust(PAGE, b"\0"))

    # The callbacks of h5py's fileobj driver.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += self.size
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        # h5py ignores the returned count, so every byte must be set: zeros past the end. Before
        # 3.11 it hands over Cython's own view, which cannot be filled from bytes.
        buffer = memoryview(buffer)
        offset, count = self._position, len(buffer)
        self._position += count
        try:
            if self.dirty or offset + count > self._base or self.fd < 0:
                self._fill(buffer, offset)
            elif vfs.DISK.readinto(self.fd, buffer, offset) < count:
                buffer[:] = vfs.DISK.pread(self.fd, count, offset).ljust(count, b"\0")
            if self.still_current is not None and not self.still_current():
                # Not by raising: h5py does not survive that while HDF5 opens a file. HDF5 refuses
                # metadata of zeros.
                buffer[:] = bytes(count)
            if (
                self.vets
                and bytes(buffer[: len(HEADER_SIGNATURE)]) == HEADER_SIGNATURE
                and not self._is_of_one_state(buffer, offset)
            ):
                buffer[:] = bytes(count)
        except BaseException as exc:
            buffer[:] = bytes(count)
            self._latch(exc)
            if not self.quiet:
                raise
        return count

    def _is_of_one_state(self, header: memoryview, offset: int) -> bool:
        if offset // PAGE in self.dirty:  # HDF5 writes header and list one after the other
            return True
        return belongs_together(bytes(header), offset - USER_BLOCK, self.peek)

    def _fill(self, view: memoryview, offset: int) -> None:
        count = len(view)
        from_base = max(0, min(offset + count, self._base) - offset) if self.fd >= 0 else 0
        data = vfs.DISK.pread(self.fd, from_base, offset) if from_base else b""
        view[: len(data)] = data
        if len(data) < count:
            view[len(data) :] = bytes(count - len(data))
        if not self.dirty:
            return
        for number in range(offset // PAGE, (offset + count - 1) // PAGE + 1):
            page = self.dirty.get(number)
            if page is not None:
                start = max(offset, number * PAGE)
                stop = min(offset + count, (number + 1) * PAGE)
                view[start - offset : stop - offset] = page[start - number * PAGE : stop - number * PAGE]

    def read(self, count: int) -> bytes:
        buffer = bytearray(count)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, data: memoryview) -> int:
        data = memoryview(data)
        count = len(data)
        offset = self._position
        self._position += count
        if self.dead:
            return count
        try:
            number, start = divmod(offset, PAGE)
            page = self.dirty.get(number)
            if page is not None and start + count <= PAGE:
                page[start : start + count] = data
                if offset + count > self.size:
                    self.size = offset + count
                return count
            same = self._unchanged(data, offset) if count >= PAGE else ()
            done = 0
            while done < count:
                number, start = divmod(offset + done, PAGE)
                part = min(PAGE - start, count - done)
                page = self.dirty.get(number)
                if page is None and number in same:
                    done += part
                    continue
                if page is None:
                    page = self.dirty[number] = self._page(number) if part < PAGE else bytearray(PAGE)
                page[start : start + part] = data[done : done + part]
                done += part
            self.size = max(self.size, offset + count)
        except BaseException as exc:
            self._latch(exc)
        return count

    def _unchanged(self, data: memoryview, offset: int) -> set[int]:
        """Return the full pages of a write that the base holds already.

        HDF5 writes a heap block of up to 64 KiB because of one new name in it.
        """
        first, stop = -(-offset // PAGE), min(offset + len(data), self._base) // PAGE
        if self.fd < 0 or stop <= first:
            return set()
        base = vfs.DISK.pread(self.fd, (stop - first) * PAGE, first * PAGE)
        new = bytes(data[first * PAGE - offset : stop * PAGE - offset])  # views would be compared byte by byte
        starts = range(0, len(base) - PAGE + 1, PAGE)
        return {first + at // PAGE for at in starts if base[at : at + PAGE] == new[at : at + PAGE]}

    def truncate(self, size: int) -> int:
        if self.dead:
            return size
        try:
            if size < self.size:
                self._applied = {}
                # What lay beyond must read as zeros should the file grow again.
                for number in [number for number in self.dirty if number * PAGE >= size]:
                    del self.dirty[number]
                number, start = divmod(size, PAGE)
                if start and (number in self.dirty or size < self._base):
                    page = self.dirty.setdefault(number, self._page(number))
                    page[start:] = bytes(PAGE - start)
                self._base = min(self._base, size)
            self.size = size
        except BaseException as exc:
            self._latch(exc)
        return size

    def flush(self) -> None:
        """HDF5 flushes often; bytes reach the file only by a commit."""
