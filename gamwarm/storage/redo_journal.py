"""The redo journal ``<name>-journal``: committed page images until the file holds them durably.

A frame is one transaction: head, table of page numbers, pages; it starts on a page boundary, so
appending one never rewrites a sector that holds an acknowledged one. A frame counts only if its
digest is right and its sequence number follows the frame before, so what an interrupted truncation
or a shorter rewrite left behind is never taken for one.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from blake3 import blake3

from gamwarm.errors import StoreDamaged
from gamwarm.formats import JOURNAL, JOURNAL_MAGIC
from gamwarm.storage import vfs
from gamwarm.storage.header import PAGE, USER_BLOCK, UUID_BYTES

__all__ = ["Replay", "build_frame", "frames_end_at", "made_for", "scan", "window"]

DIGEST_BYTES: Final = 32
SECTOR: Final = 512
"""What the media write atomically; it holds a frame's magic and uuid together."""
# magic, sequence (even), size of the file after this transaction, uuid, number of pages, page bytes
_MAGIC: Final = re.compile(rb"GWJRNL([0-9])\n")
_FIELDS: Final = struct.Struct(f"<8sQQ{UUID_BYTES}sII")
HEAD_BYTES: Final = _FIELDS.size + DIGEST_BYTES
_UUID_OFFSET: Final = struct.calcsize("<8sQQ")
_NUMBER_BYTES: Final = struct.calcsize("<Q")
# Of HDF5's superblock, versions 2 and 3: the version, and the end of the file, after addresses of
# base and extension.
_SUPERBLOCK_VERSION: Final = USER_BLOCK + 8
_END_OF_FILE: Final = struct.Struct("<Q")
_END_OF_FILE_OFFSET: Final = USER_BLOCK + 28
_SUPERBLOCK_END: Final = USER_BLOCK + 48
_SLACK: Final = 1 << 20
"""Bytes that HDF5 may reserve at the end and leave unwritten, amply."""
_MOST_PAGES: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class Replay:
    """All complete frames of a journal, merged into one: the newest image of each page."""

    first: int
    last: int
    size: int
    pages: dict[int, memoryview]
    length: int
    """Bytes of the journal that the frames take."""
    in_order: bool = True
    """Whether the pages of each frame ascend."""

    def follows(self, sequence: int) -> bool:
        """Whether these frames continue a file at `sequence`.

        Frames hold full pages, so any state from just before the first frame to the last one can
        serve as a base. Any other state is of another history (a restored backup, say), which the
        frames would destroy.
        """
        applying = sequence % 2
        return self.first - 2 + 2 * applying <= sequence + applying <= self.last


def build_frame(sequence: int, size: int, uuid: bytes, pages: Mapping[int, bytes | bytearray | memoryview]) -> bytes:
    """One transaction as journal bytes, padded to full pages."""
    numbers = sorted(pages)
    fields = _FIELDS.pack(JOURNAL_MAGIC, sequence, size, uuid, len(numbers), PAGE)
    body = b"".join([struct.pack(f"<{len(numbers)}Q", *numbers), *[pages[number] for number in numbers]])
    length = HEAD_BYTES + len(body)
    return b"".join([fields, _digest(fields, body), body, bytes(_padded(length) - length)])


def made_for(fd: int, path: Path) -> bytes | None:
    """The uuid of the file whose journal this is; empty if unclear; None if no journal.

    A frame that was being written when the power went may lack its first sector, which then reads
    as zeros.
    """
    start = vfs.DISK.pread(fd, SECTOR, 0)
    _check_version(start, path)
    if start.startswith(JOURNAL_MAGIC):
        return start[_UUID_OFFSET : _UUID_OFFSET + UUID_BYTES] if len(start) >= _FIELDS.size else b""
    return b"" if JOURNAL_MAGIC.startswith(start) or not any(start) else None


def _check_version(start: bytes, path: Path) -> None:
    marked = _MAGIC.match(start)
    if marked is not None:
        JOURNAL.check(int(marked[1]), path)


def scan(fd: int, uuid: bytes, main: int, path: Path) -> Replay | None:
    """Read the journal and fold the frames of `uuid` up to the first incomplete one, or None.

    Parameters
    ----------
    fd : int
        Of the journal.
    uuid : bytes
    main : int
        Descriptor of the file that the journal is of. It is only read.
    path : path
        Of that file, for messages.

    Raises
    ------
    NewerFormat, OlderFormat
        It is a journal of another version.
    StoreDamaged
        Whole frames say what no commit writes: they are forged.
    OSError
        ENOMEM: they are larger than the memory.
    """
    try:
        replay = _fold(fd, uuid)
    except (MemoryError, OverflowError) as error:
        raise OSError(errno.ENOMEM, f"no memory for the frames of {path.name}-journal") from error
    if replay is None:
        _check_version(vfs.DISK.pread(fd, SECTOR, 0), path.with_name(f"{path.name}-journal"))
    if replay is not None and not _could_be_committed(replay, main):
        raise StoreDamaged(
            f"{path}: {path.name}-journal holds a transaction that gamwarm never writes (it would make the file "
            f"{replay.size} bytes long). Nothing was changed; if you do not expect a journal there, move it away.",
            path=str(path),
        )
    if replay is not None:
        for number in [number for number in replay.pages if number * PAGE >= replay.size]:
            del replay.pages[number]
    return replay


def _could_be_committed(replay: Replay, main: int) -> bool:
    """Whether the size is that in HDF5's superblock, and within pages and file."""
    first = replay.pages.get(0) or vfs.DISK.pread(main, PAGE, 0)
    if len(first) < _SUPERBLOCK_END or first[_SUPERBLOCK_VERSION] not in (2, 3):
        return False
    (end,) = _END_OF_FILE.unpack_from(first, _END_OF_FILE_OFFSET)
    reach = max(vfs.DISK.fstat(main).st_size, (max(replay.pages, default=0) + 1) * PAGE)
    return replay.in_order and _SUPERBLOCK_END <= replay.size == end <= reach + _SLACK


def _fold(fd: int, uuid: bytes) -> Replay | None:
    first = last = offset = size = 0
    in_order = True
    pages: dict[int, memoryview] = {}
    end = vfs.DISK.fstat(fd).st_size
    while True:
        head = _head(fd, offset, end, uuid)
        if head is None or (last and head.sequence != last + 2):
            break
        body = vfs.DISK.pread(fd, head.body_bytes, offset + HEAD_BYTES)
        if len(body) != head.body_bytes or _digest(head.fields, body) != head.digest:
            break
        view = memoryview(body)
        start = head.count * _NUMBER_BYTES
        numbers = struct.unpack_from(f"<{head.count}Q", body)
        in_order &= all(a < b for a, b in pairwise(numbers)) and all(number < _MOST_PAGES for number in numbers[-1:])
        for index, number in enumerate(numbers):
            pages[number] = view[start + index * PAGE : start + (index + 1) * PAGE]
        first, last, size = first or head.sequence, head.sequence, head.size
        offset += _padded(HEAD_BYTES + head.body_bytes)
    if not last:
        return None
    return Replay(first, last, size, pages, offset, in_order)


def frames_end_at(fd: int, uuid: bytes, sequence: int, length: int, known: tuple[int, int] = (0, 0)) -> bool:
    """Whether `length` bytes are frames of `uuid` ending with this `sequence` (heads only).

    ``known`` are bytes for which this was so before, and their last sequence. If the journal was
    truncated since then, it now holds a later sequence, and the answer is no.
    """
    offset, last = known
    end = vfs.DISK.fstat(fd).st_size
    while offset < length:
        head = _head(fd, offset, end, uuid)
        if head is None or (last and head.sequence != last + 2):
            return False
        last = head.sequence
        offset += _padded(HEAD_BYTES + head.body_bytes)
    return offset == length and (length == 0 or last == sequence)


def window(pages: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring page numbers as (first, count), for as few writes as possible."""
    runs: list[tuple[int, int]] = []
    for number in sorted(pages):
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


@dataclass(frozen=True, slots=True)
class _Head:
    fields: bytes
    digest: bytes
    sequence: int
    size: int
    count: int
    body_bytes: int


def _head(fd: int, offset: int, end: int, uuid: bytes) -> _Head | None:
    raw = vfs.DISK.pread(fd, HEAD_BYTES, offset)
    if len(raw) < HEAD_BYTES:
        return None
    fields, digest = raw[: _FIELDS.size], raw[_FIELDS.size :]
    magic, sequence, size, of, count, page = _FIELDS.unpack(fields)
    body_bytes = count * (_NUMBER_BYTES + PAGE)
    if magic != JOURNAL_MAGIC or of != uuid or page != PAGE or sequence % 2 or sequence == 0:
        return None
    if offset + HEAD_BYTES + body_bytes > end:
        return None
    return _Head(fields, digest, sequence, size, count, body_bytes)


def _digest(fields: bytes, body: bytes) -> bytes:
    return blake3(fields).update(body).digest()


def _padded(count: int) -> int:
    return -(-count // PAGE) * PAGE
