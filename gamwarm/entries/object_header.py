"""Attributes of one small HDF5 object, taken from the bytes of its header in one read.

Opening a group and reading four attributes through HDF5 is some thirty calls. Here is the common
case alone: a version 2 object header (what ``libver="v108"`` writes), compact attributes of the
three types that entries have, nothing linked below. Whatever differs by a byte gives None and is
for HDF5 to read, so nothing here has to be complete; and what is found is accepted only if the
entry's seal confirms it, so HDF5's own checksum is not computed.

Source: HDF5 File Format Specification 3.0, IV.A.1.b (object header version 2) and IV.A.2
(messages).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from h5py import h5t

from gamwarm.storage import Peek

__all__ = ["FLOATS", "INTEGERS", "TEXT", "Attribute", "attributes", "has_text", "string_type"]

Attribute = tuple[int, bytes]
"""Kind of the elements (`FLOATS`, `INTEGERS`, `TEXT`), and the bytes."""

FLOATS: Final = 0
INTEGERS: Final = 1
TEXT: Final = 2

_FIRST_READ: Final = 6144
_MOST_BYTES: Final = 1 << 20
_MOST_BLOCKS: Final = 16
_MOST_ADDRESS: Final = 1 << 60
_CHECKSUM_BYTES: Final = 4

_MESSAGE: Final = Struct("<BHB")  # type, bytes, flags
_ATTRIBUTE, _CONTINUATION = 12, 16
# Messages of a group with no links and no outside attributes, whole: (type, flags): bytes.
_PLAIN: Final = {
    (2, 0): b"\x00\x00" + b"\xff" * 16,  # link info
    (10, 1): b"\x00\x00",  # group info
    (21, 4): b"\x00\x00" + b"\xff" * 16,  # attribute info
}
_ATTRIBUTE_HEAD: Final = Struct("<BBHHHB")  # version, flags, bytes of name, type and space, character set
_NAME: Final = _ATTRIBUTE_HEAD.size
_PLACE: Final = Struct("<QQ")
_SCALAR_SPACE: Final = b"\x02\x00\x00\x00"
_VECTOR_SPACE: Final = Struct("<4sQQ")

# An encoded type is its message after two bytes of H5Tencode's own.
_NUMBER_TYPES: Final = {h5t.IEEE_F64LE.encode()[2:]: FLOATS, h5t.STD_I64LE.encode()[2:]: INTEGERS}
_STRING_SIZE: Final = Struct("<4xI")


def attributes(peek: Peek, address: int) -> dict[bytes, Attribute] | None:
    """Return the attributes of the object whose header is at `address`; None: ask HDF5.

    Parameters
    ----------
    peek : callable
    address : int
        Of the object header: bytes from the start of the HDF5 image, as its links have it and
        `peek` counts.
    """
    first = _first_block(peek, address)
    if first is None:
        return None
    block, at, end = first
    found: dict[bytes, Attribute] = {}
    more: list[tuple[int, int]] = []
    if not _messages(block, at, end, found, more):
        return None
    for at, count in more:  # grows while it is walked
        if at > _MOST_ADDRESS or not _CHECKSUM_BYTES < count <= _MOST_BYTES or len(more) > _MOST_BLOCKS:
            return None
        block = peek(count, at)
        if block[:4] != b"OCHK" or not _messages(block, 4, count - _CHECKSUM_BYTES, found, more):
            return None
    return found


def has_text(peek: Peek, address: int, name: bytes, text: bytes) -> bool:
    """Whether the object whose header is at `address` has this attribute; False says nothing.

    Linked objects and whatever else it has do not matter.
    """
    block, at, end = _first_block(peek, address) or (b"", 0, 0)
    while at + 4 + _NAME <= min(end, len(block)):
        kind, count, flags = _MESSAGE.unpack_from(block, at)
        at += 4
        if kind == _ATTRIBUTE and not flags:
            version, _, name_bytes, type_bytes, space_bytes, _ = _ATTRIBUTE_HEAD.unpack_from(block, at)
            data = at + _NAME + name_bytes + type_bytes + space_bytes
            if version == 3 and block[at + _NAME : at + _NAME + name_bytes - 1] == name:
                return block[data : at + count] == text
        at += count
    return False


def _first_block(peek: Peek, address: int) -> tuple[bytes, int, int] | None:
    """Return the first block of a header, and where its messages begin and end."""
    if address > _MOST_ADDRESS:
        return None
    block = peek(_FIRST_READ, address)
    if block[:5] != b"OHDR\x02" or len(block) < 64:
        return None
    flags = block[5]
    if flags & 0xCC:  # creation order of attributes is tracked (messages are longer), or a flag of later versions
        return None
    start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    end = start + width + int.from_bytes(block[start : start + width], "little")
    if end > len(block):
        if end > _MOST_BYTES:
            return None
        block = peek(end, address)
    return block, start + width, end


def _messages(block: bytes, at: int, end: int, found: dict[bytes, Attribute], more: list[tuple[int, int]]) -> bool:
    """Collect the attributes and continuations of one block; False: not the common case."""
    if end > len(block):
        return False
    while at + 4 <= end:
        kind, count, flags = _MESSAGE.unpack_from(block, at)
        at += 4
        stop = at + count
        if stop > end:
            return False
        if kind == _ATTRIBUTE:
            if flags or count < _NAME:
                return False
            _, _, name, type_, space, _ = _ATTRIBUTE_HEAD.unpack_from(block, at)
            data = at + _NAME + name + type_ + space
            known = _read_head(block[at:data])
            if known is None or data + known[2] != stop:
                return False
            found[known[0]] = known[1], block[data:stop]
        elif kind == _CONTINUATION and count == _PLACE.size:
            more.append(_PLACE.unpack_from(block, at))
        elif kind and block[at:stop] != _PLAIN.get((kind, flags)):
            return False
        at = stop
    return True


@lru_cache(maxsize=4096)
def _read_head(head: bytes) -> tuple[bytes, int, int] | None:
    """Name, kind and bytes of an attribute from what precedes its data; None if unusual."""
    version, flags, name_bytes, type_bytes, _, characters = _ATTRIBUTE_HEAD.unpack_from(head)
    if version != 3 or flags or characters or name_bytes < 2:
        return None
    name, rest = head[_NAME : _NAME + name_bytes], head[_NAME + name_bytes :]
    if b"\0" in name[:-1] or name[-1]:
        return None
    type_, space = rest[:type_bytes], rest[type_bytes:]
    if len(type_) == _STRING_SIZE.size and space == _SCALAR_SPACE:
        (size,) = _STRING_SIZE.unpack(type_)
        return (name[:-1], TEXT, size) if 0 < size <= _MOST_BYTES and type_ == _encoded_string_type(size) else None
    kind = _NUMBER_TYPES.get(type_)
    if kind is None or len(space) != _VECTOR_SPACE.size:
        return None
    head_of_space, length, limit = _VECTOR_SPACE.unpack(space)
    if head_of_space != b"\x02\x01\x01\x01" or length != limit or length > _MOST_BYTES:
        return None
    return name[:-1], kind, 8 * length


def string_type(length: int) -> h5t.TypeStringID:
    """UTF-8 of so many bytes, padded with NUL."""
    tid = h5t.C_S1.copy()
    tid.set_size(max(length, 1))
    tid.set_cset(h5t.CSET_UTF8)
    tid.set_strpad(h5t.STR_NULLPAD)
    return tid


def _encoded_string_type(length: int) -> bytes:
    return bytes(string_type(length).encode()[2:])
