"""A journal with a valid digest and contents that no commit writes is refused before the file is
touched.
"""

from __future__ import annotations

import struct
import zlib

import pytest
from blake3 import blake3

import gamwarm
from gamwarm import StoreDamaged
from gamwarm.storage.header import PAGE, Header, parse
from gamwarm.storage.redo_journal import build_frame
from tests.support.stores import exact_key_of, record_of

END_OF_FILE = 512 + 28
OTHER_BOOT = b"\1" * 8


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    return path


def crafted(path, size, *, numbers=None, end=None, odd=False):
    """Put a journal beside a file of another boot: its one frame leads on, and gives the file this
    size.
    """
    image = bytearray(path.read_bytes())
    header = parse(bytes(image), "x")
    changed = Header(header.sequence + odd, header.uuid, OTHER_BOOT, 0)
    image[:64] = changed.pack()
    path.write_bytes(image)
    first = bytearray(image[:PAGE].ljust(PAGE, b"\0"))
    if end is not None:
        struct.pack_into("<Q", first, END_OF_FILE, end)
    second = bytes(image[PAGE : 2 * PAGE]).ljust(PAGE, b"\0")
    frame = build_frame(header.sequence + 2, size % 2**64, header.uuid, {0: bytes(first), 1: second})
    if numbers is not None:
        frame = with_numbers(frame, numbers)
    path.with_name(path.name + "-journal").write_bytes(frame)
    return bytes(image)


def with_numbers(frame, numbers):
    """Give the pages of a frame other numbers, under a right digest."""
    body = bytearray(frame[80 : 80 + 2 * (8 + PAGE)])
    struct.pack_into("<2Q", body, 0, *numbers)
    digest = blake3(frame[:48]).update(bytes(body)).digest()
    return (frame[:48] + digest + bytes(body)).ljust(len(frame), b"\0")


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("size", [0, 100, 520, 2**30, 2**40, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("consistent", [False, True])
def test_a_frame_of_an_absurd_size_is_refused(path, mode, odd, size, consistent):
    before = crafted(path, size, end=size if consistent else None, odd=odd)

    with pytest.raises(StoreDamaged):
        gamwarm.open(path, mode, on_error="raise")

    assert path.read_bytes() == before


@pytest.mark.parametrize("numbers", [(1, 0), (1, 1), (0, 2**63), (0, 2**64 - 1)])
def test_a_frame_of_absurd_pages_is_refused(path, numbers):
    before = crafted(path, path.stat().st_size, numbers=numbers)

    with pytest.raises(StoreDamaged):
        gamwarm.open(path, "a", on_error="raise")

    assert path.read_bytes() == before


def test_a_frame_that_a_commit_could_have_written_is_replayed(path):
    """Control: the same forgery with the right size."""
    crafted(path, path.stat().st_size)

    with gamwarm.open(path, on_error="raise") as store:
        assert store.get_record(exact_key_of(1)) is not None
    assert parse(path.read_bytes(), "x").boot != OTHER_BOOT


@pytest.mark.parametrize(
    ("at", "kind", "value"), [(12, "<Q", 2**64 - 2), (12, "<Q", 2**62), (52, "<I", 512), (10, "<H", 9)]
)
@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_header_under_a_right_checksum_that_no_writer_writes_is_refused(path, at, kind, value, mode):
    image = bytearray(path.read_bytes())
    struct.pack_into(kind, image, at, value)
    struct.pack_into("<I", image, 60, zlib.crc32(bytes(image[:60])))
    path.write_bytes(image)

    with pytest.raises(StoreDamaged):
        gamwarm.open(path, mode, on_error="raise")

    assert path.read_bytes() == image
