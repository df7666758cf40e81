"""What a plain HDF5 handle undoes by closing after an unknown commit, and the way back.

Closing a file that is open for writing, HDF5 writes the end of the file that the handle knew into
the superblock, and may cut the file there. The header says how long the file was after the last
commit; if HDF5 reaches less, another program has shortened the file. That is an edit like any other
as long as every object is still there.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from functools import partial
from typing import Final

import h5py

from gamwarm.storage import vfs
from gamwarm.storage.header import HDF5_SIGNATURE, PAGE, USER_BLOCK, Header
from gamwarm.storage.overlay import Overlay
from gamwarm.storage.redo_journal import Replay

__all__ = ["restoration", "undone"]

# Superblock version 2 or 3: signature, version, sizes of offsets and lengths, flags; addresses of
# base, extension, end of file and root group; checksum.
_SUPERBLOCK: Final = struct.Struct("<8s4B4QI")
Fields = tuple[bytes, int, int, int, int, int, int, int, int, int]
_CHECKSUM_BYTES: Final = 4
_END_OF_FILE: Final = 7
_MASK: Final = 0xFFFFFFFF


def undone(fd: int, header: Header, size: int) -> bool:
    """Whether a file is shorter than its header says, and HDF5 misses objects by that."""
    fields = _superblock(vfs.DISK.pread(fd, _SUPERBLOCK.size, USER_BLOCK))
    reach = size if fields is None else min(size, fields[_END_OF_FILE])
    return header.lacks(reach) > 0 and not _intact(fd, size)


def restoration(fd: int, header: Header, size: int, journal: Replay | None) -> Replay | None:
    """Pages that undo the closing: the journal's, or the superblock with the right end.

    None if even with them objects are missing.
    """
    if (
        journal is not None
        and journal.last == header.sequence
        and _intact(fd, min(size, journal.size), journal.pages, journal.size)
    ):
        return journal
    page = bytearray(vfs.DISK.pread(fd, PAGE, 0))
    fields = _superblock(bytes(page[USER_BLOCK : USER_BLOCK + _SUPERBLOCK.size]))
    if fields is None:
        return None
    whole = fields[_END_OF_FILE] + header.lacks(fields[_END_OF_FILE])
    if whole > size:
        return None
    page[USER_BLOCK : USER_BLOCK + _SUPERBLOCK.size] = _with_end(fields, whole)
    pages = {0: memoryview(page)}
    return Replay(header.sequence, header.sequence, whole, pages, 0) if _intact(fd, whole, pages) else None


def _intact(
    fd: int, size: int, pages: Mapping[int, bytes | bytearray | memoryview] | None = None, whole: int | None = None
) -> bool:
    """Whether HDF5 finds all objects and datasets in the file with these pages over it."""
    overlay = Overlay(fd, size, pages, whole)
    overlay.dead = True
    try:
        with contextlib.closing(h5py.File(overlay, "r", driver="fileobj")) as h5:
            h5py.h5o.visit(h5.id, partial(_check_extent, h5, overlay.size))
    except Exception:
        return False
    return overlay.error is None


def _check_extent(h5: h5py.File, size: int, name: bytes) -> None:
    item = h5py.h5o.open(h5.id, name)
    if isinstance(item, h5py.h5d.DatasetID):
        start = item.get_offset()
        if start is not None and start + item.get_storage_size() > size:
            raise ValueError(name)


def _superblock(raw: bytes) -> Fields | None:
    if len(raw) < _SUPERBLOCK.size:
        return None
    fields: Fields = _SUPERBLOCK.unpack(raw)
    return fields if fields[0] == HDF5_SIGNATURE and fields[1] in (2, 3) else None


def _with_end(fields: Fields, end: int) -> bytes:
    body = _SUPERBLOCK.pack(*fields[:_END_OF_FILE], end, fields[_END_OF_FILE + 1], 0)[:-_CHECKSUM_BYTES]
    return body + struct.pack("<I", _lookup3(body))


def _lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of this name, HDF5's checksum of metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    whole = max(0, (len(data) - 1) // 12 * 12)
    for start in range(0, whole, 12):
        x, y, z = struct.unpack_from("<3I", data, start)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    if whole == len(data):
        return c
    x, y, z = struct.unpack("<3I", data[whole:].ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    for shift_c, shift_a, shift_b in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _rotate(b, shift_c)) & _MASK
        a = ((a ^ c) - _rotate(c, shift_a)) & _MASK
        b = ((b ^ a) - _rotate(a, shift_b)) & _MASK
    checksum: int = ((c ^ b) - _rotate(b, 24)) & _MASK
    return checksum


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for shift in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _rotate(c, shift)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK
