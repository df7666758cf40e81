"""The 64-byte header in the HDF5 user block (all numbers little-endian; see docs/file-format.md).

HDF5 never touches the first `USER_BLOCK` bytes. The header says which transaction the file holds,
whether one is being applied right now, and which machine boot wrote it. It is in one sector and has
its own CRC, so a reader can distinguish a torn header from an old one.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from gamwarm.errors import NotAStore, StoreDamaged
from gamwarm.formats import FILE, FILE_MAGIC

__all__ = ["HDF5_SIGNATURE", "HEADER_BYTES", "PAGE", "USER_BLOCK", "Header", "TornHeader", "parse"]

PAGE: Final = 4096

_MAGIC_AND_VERSION: Final = struct.Struct("<8sH")
# magic, format version, header bytes, sequence, uuid, boot identity, journal length, page bytes,
# size of the file
_BODY: Final = struct.Struct("<8sHHQ16s8sQII")
_CRC: Final = struct.Struct("<I")
CRC_OFFSET: Final = _BODY.size
HEADER_BYTES: Final = CRC_OFFSET + _CRC.size
UUID_OFFSET: Final = struct.calcsize("<8sHHQ")
UUID_BYTES: Final = 16
MOST_SEQUENCE: Final = 1 << 62
SIZE_MODULUS: Final = 1 << 32

USER_BLOCK: Final = 512
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
SIGNATURE_OFFSET: Final = USER_BLOCK
BODY_OFFSET: Final = SIGNATURE_OFFSET + len(HDF5_SIGNATURE)
"""Where the bytes of page 0 begin that are neither header nor signature."""

assert HEADER_BYTES == 64
assert HEADER_BYTES <= USER_BLOCK < PAGE


class TornHeader(Exception):
    """The header carries our magic but its CRC is wrong: a write was cut in the middle of it.

    ``uuid`` is what is found at the place of the uuid. Two headers of one file agree on it, so a
    cut between them leaves it.
    """

    def __init__(self, uuid: bytes) -> None:
        super().__init__("torn header")
        self.uuid = uuid


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says.

    Attributes
    ----------
    sequence : int
        Twice the number of committed transactions; odd while the next one is being applied to the
        file.
    uuid : bytes
        Given at creation; ties a journal to its file.
    boot : bytes
        Identity of the machine boot under which the file was last written.
    journal_length : int
        Bytes of the journal whose frames are applied to the file, though perhaps not yet on the
        media.
    size : int
        Bytes of the file, modulo `SIZE_MODULUS`; 0 where the writer did not say.
    """

    sequence: int
    uuid: bytes
    boot: bytes
    journal_length: int
    size: int = 0

    @property
    def applying(self) -> bool:
        return self.sequence % 2 == 1

    @property
    def generation(self) -> int:
        return self.sequence // 2

    def lacks(self, size: int) -> int:
        """How many bytes a file of this size lacks by the header; 0 where none."""
        short = (self.size - size) % SIZE_MODULUS
        return short if self.size and short < SIZE_MODULUS // 2 else 0

    def pack(self, *, applying: bool = False) -> bytes:
        """Return the bytes; ``applying``: of the state before, while this one is applied."""
        body = _BODY.pack(
            FILE_MAGIC,
            FILE.current,
            HEADER_BYTES,
            self.sequence - applying,
            self.uuid,
            self.boot,
            self.journal_length,
            PAGE,
            self.size % SIZE_MODULUS,
        )
        return body + _CRC.pack(checksum(body))


def checksum(body: bytes) -> int:
    return zlib.crc32(body)


def parse(block: bytes, name: str) -> Header:
    """Read a header.

    Parameters
    ----------
    block : bytes
        The first bytes of the file, at least `HEADER_BYTES` where the file has them.
    name : str
        Path, for messages.

    Raises
    ------
    NotAStore, NewerFormat, OlderFormat
        The bytes are not a readable header.
    TornHeader
        Our magic with a wrong CRC.
    StoreDamaged
        A right CRC over what no writer writes.
    """
    if len(block) < _MAGIC_AND_VERSION.size or not block.startswith(FILE_MAGIC):
        raise NotAStore(
            f"{name}: not a gamwarm file ({_describe(block)}). It was not changed; choose another path.", path=name
        )
    # In every version the same: magic, version, the place of the CRC, not what it covers.
    FILE.check(_MAGIC_AND_VERSION.unpack_from(block)[1], name)
    if len(block) < HEADER_BYTES or _CRC.unpack_from(block, CRC_OFFSET)[0] != checksum(block[:CRC_OFFSET]):
        raise TornHeader(block[UUID_OFFSET : UUID_OFFSET + UUID_BYTES])
    _, _, header_bytes, sequence, uuid, boot, journal_length, page, size = _BODY.unpack_from(block)
    if header_bytes != HEADER_BYTES or page != PAGE or sequence >= MOST_SEQUENCE:
        raise StoreDamaged(
            f"{name}: its header has values that gamwarm never writes (sequence {sequence}, pages of {page} bytes). "
            "It was not changed; recover the readable entries with gamwarm.salvage(path, into).",
            path=name,
        )
    return Header(sequence, uuid, boot, journal_length, size)


def _describe(block: bytes) -> str:
    if not block:
        return "an empty file; remove it, and mode='a' creates a new one"
    if block.startswith(HDF5_SIGNATURE):
        return "HDF5 written by another program"
    if block[SIGNATURE_OFFSET:BODY_OFFSET] == HDF5_SIGNATURE:
        return "HDF5 with another program's user block"
    return "not HDF5"
