"""The overlay under HDF5: it reads what was written, and its dirty pages are what changed."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from gamwarm.storage.header import PAGE
from gamwarm.storage.overlay import Overlay

EDGES = [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 5 * PAGE + 7]
WHAT = st.sampled_from(["the same", "as in the file", "the last byte", "other"])
WRITES = st.tuples(st.sampled_from([0, *EDGES]), st.sampled_from(EDGES), WHAT)
STEPS = st.lists(WRITES | st.none(), max_size=12)  # None: a commit


def apply(overlay, fd):
    """What a commit does with the pages."""
    for number, page in overlay.dirty.items():
        os.pwrite(fd, page[: max(0, overlay.size - number * PAGE)], number * PAGE)
    os.ftruncate(fd, overlay.size)
    overlay.rebase()


def image_of(overlay):
    overlay.seek(0)
    return overlay.read(overlay.size)


@given(st.sampled_from([0, 1, PAGE, 4 * PAGE, 6 * PAGE + 5]), STEPS)
def test_an_overlay_is_its_file_with_all_that_was_written(size, steps):
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        model = bytearray(os.urandom(size))
        os.pwrite(fd, model, 0)
        overlay = Overlay(fd, size)
        for step in steps:
            if step is None:
                apply(overlay, fd)
                assert os.pread(fd, len(model) + 1, 0) == model
                continue
            offset, count, what = step
            data = bytearray(model[offset : offset + count].ljust(count, b"\0"))
            if what == "other":
                data[:] = os.urandom(count)
            elif what == "as in the file":
                data[:] = os.pread(fd, count, offset).ljust(count, b"\0")
            elif what == "the last byte":
                data[-1] ^= 1
            overlay.seek(offset)
            overlay.write(memoryview(data))
            model = model.ljust(offset, b"\0")
            model[offset : offset + count] = data
            assert overlay.error is None
            assert image_of(overlay) == model
        apply(overlay, fd)

        assert os.pread(fd, len(model) + 1, 0) == model


def test_of_a_block_that_is_written_again_only_the_pages_that_differ_are_dirty():
    with tempfile.TemporaryFile() as file:
        image = bytearray(os.urandom(24 * PAGE))
        os.pwrite(file.fileno(), image, 0)
        overlay = Overlay(file.fileno(), len(image))
        image[9 * PAGE + 5] ^= 1
        overlay.seek(2 * PAGE - 24)
        overlay.write(memoryview(image)[2 * PAGE - 24 : 18 * PAGE - 24])

        assert sorted(overlay.dirty) == [1, 9, 17]  # the first and the last are not written whole
        assert image_of(overlay) == image


def test_what_was_cut_off_is_written_again():
    with tempfile.TemporaryFile() as file:
        image = os.urandom(4 * PAGE)
        os.pwrite(file.fileno(), image, 0)
        overlay = Overlay(file.fileno(), len(image))
        overlay.truncate(PAGE)
        overlay.seek(PAGE)
        overlay.write(memoryview(image)[PAGE : 3 * PAGE])

        assert sorted(overlay.dirty) == [1, 2]
        assert image_of(overlay) == image[: 3 * PAGE]
