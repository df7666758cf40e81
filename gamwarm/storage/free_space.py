"""Free-space lists of HDF5's heaps, checked before HDF5 uses them.

A heap's list of free sections has a header with the place and the totals of the list. In a file
that mixes two states (a copy made during a write) the two need not match. HDF5 notices at its first
use of the list, but keeps the header, and overruns its own buffer when it writes the list again as
the handle is closed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

__all__ = ["HEADER_SIGNATURE", "belongs_together"]

HEADER_SIGNATURE: Final = b"FSHD"
# version, client; total space, sections, those stored, those not; classes, shrink, expand, address
# bits; largest section, address of the list, bytes used, bytes allocated; checksum
_HEADER: Final = struct.Struct("<4sBB4Q4H4QI")
_LIST: Final = struct.Struct("<4sBQ")
_LIST_SIGNATURE: Final = b"FSSE"
_CHECKSUM_BYTES: Final = 4
_UNDEFINED: Final = (1 << 64) - 1
_HEAP: Final = 0
_SINGLE: Final = 0
_TYPE_BYTES: Final = 1


def belongs_together(header: bytes, address: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether a list and its header, at `address`, are of one state."""
    if len(header) < _HEADER.size:
        return True
    fields = _HEADER.unpack_from(header)
    client, total, stored, unstored = fields[2], fields[3], fields[5], fields[6]
    address_bits, largest, place, used, allocated = fields[10:15]
    if client != _HEAP or place == _UNDEFINED:
        return True
    if used > allocated or used < _LIST.size + _CHECKSUM_BYTES:
        return False
    raw = read(used, place)
    if len(raw) < used or _LIST.unpack_from(raw) != (_LIST_SIGNATURE, 0, address):
        return False
    sections = _sections(raw[_LIST.size : used - _CHECKSUM_BYTES], stored, largest, address_bits)
    return sections is None or (sections[0] == stored and (unstored > 0 or sections[1] == total))


def _sections(body: bytes, stored: int, largest: int, address_bits: int) -> tuple[int, int] | None:
    """Number and bytes of the sections in a list; None if some have data of their own."""
    count_bytes, size_bytes, offset_bytes = _width(stored), _width(largest), -(-address_bits // 8)
    number = space = position = 0
    while position < len(body):
        count = int.from_bytes(body[position : position + count_bytes], "little")
        size = int.from_bytes(body[position + count_bytes :][:size_bytes], "little")
        position += count_bytes + size_bytes
        stride = offset_bytes + _TYPE_BYTES
        types = body[position : position + count * stride][offset_bytes::stride]
        if any(kind != _SINGLE for kind in types):
            return None
        position += count * stride
        number, space = number + count, space + count * size
    return number, space


def _width(value: int) -> int:
    """Bytes that HDF5 gives a number that is at most `value`."""
    return (max(value, 1).bit_length() - 1) // 8 + 1
