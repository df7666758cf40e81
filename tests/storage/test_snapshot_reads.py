"""A read during a write sees one state of the file, down to the bytes that HDF5 asks for.

HDF5 once listed a group whose header was read before a commit and whose index after it: it sized a
table by the one, filled it from the other, and two readers beside four writers died of "double free
or corruption".
"""

from __future__ import annotations

import os

import h5py
import pytest

from gamwarm.storage import reader
from gamwarm.storage import writer as writer_module
from gamwarm.storage.container import Container
from tests.support.containers import add

pytestmark = pytest.mark.timeout(60)


def value_of(h5: h5py.File, name: str) -> float:
    return float(h5[f"records/{name}"].attrs["values"][0])


@pytest.fixture
def written(path):
    with Container.open(path, create=lambda h5: h5.create_group("records")) as writer:
        for number in range(40):
            add(writer, f"r{number:02}", number)
        yield writer


def read_beside_a_commit(container, writer):
    """Read an entry, let the writer commit in mid-read, read another; return what each try of the
    second one gave.
    """
    tries = []

    def look(h5):
        first = value_of(h5, "r01")
        if not tries:
            add(writer, "r39b", 7.0)
            add(writer, "r00b", 7.0)
        try:
            tries.append(value_of(h5, "r38"))
        except BaseException as error:
            tries.append(error)
            raise
        return first, sorted(h5["records"])

    return container.read(look), tries


@pytest.fixture(params=["a reader", "a writer after a commit of its own"])
def container(request, written, path):
    if request.param == "a reader":
        with Container.open(path, mode="r") as it:
            yield it
    else:
        with Container.open(path) as it:
            add(it, "r39a", 7.0)
            yield it


def test_bytes_of_a_later_state_are_refused_and_the_read_begins_again(container, written):
    (first, names), tries = read_beside_a_commit(container, written)

    assert isinstance(tries[0], Exception), "HDF5 was shown bytes of another state than the one it began with"
    assert tries[1:] == [38.0]
    assert first == 1.0
    assert len(names) in (42, 43)
    assert {"r39b", "r00b"} <= set(names)


def test_an_hdf5_that_a_change_would_crash_reads_a_copy_in_memory(container, written, monkeypatch):
    monkeypatch.setattr(reader, "SURVIVES_CHANGES", False)
    container.drop_handles()
    open_before = len(os.listdir("/proc/self/fd"))

    (first, names), tries = read_beside_a_commit(container, written)

    assert tries == [38.0, 38.0], "the first try saw its own state to the end"
    assert first == 1.0
    assert {"r39b", "r00b"} <= set(names), "and was then found to be an older one"
    container.drop_handles()
    assert len(os.listdir("/proc/self/fd")) <= open_before + 1


def test_without_the_check_hdf5_would_be_shown_them(container, written, monkeypatch):
    """The control of the test above."""
    monkeypatch.setattr(reader, "has_header", lambda fd, block, *, forget=False: True)
    monkeypatch.setattr(writer_module, "has_header", lambda fd, block: True)
    container._reader.drop()

    _, tries = read_beside_a_commit(container, written)

    assert tries == [38.0, 38.0]


def test_a_handle_whose_file_moved_can_still_be_closed(written, path):
    with Container.open(path, mode="r") as reader:
        kept = []
        reader.read(lambda h5: kept.append(h5["records"]))
        add(written, "later", 3.0)
        assert reader.read(lambda h5: value_of(h5, "later")) == 3.0
        assert not kept[0]


# -- after a commit of one's own -------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """How often a handle to read from was opened."""
    calls = []
    actual = reader._open
    monkeypatch.setattr(reader, "_open", lambda overlay: calls.append(1) or actual(overlay))
    return calls


def test_a_read_after_ones_own_commit_opens_no_handle(written, opened):
    for number in range(3):
        add(written, "r00", number)
        assert written.read(lambda h5: value_of(h5, "r00")) == number

    assert not opened


def test_after_another_writers_commit_a_read_opens_one(written, path, opened):
    with Container.open(path) as other:
        add(other, "r00", 5.0)
    opened.clear()

    assert written.read(lambda h5: value_of(h5, "r00")) == 5.0
    assert opened


def test_nothing_is_written_through_a_handle_that_a_read_failed_on(written, opened):
    add(written, "r00", 5.0)
    handles = []

    def look(h5):
        handles.append(h5)
        if len(handles) == 1:
            raise OSError("HDF5 could not read it")
        return value_of(h5, "r00")

    assert written.read(look) == 5.0
    assert opened
    assert not handles[0], "the handle is still open"
    add(written, "r01", 6.0)
    assert written.read(lambda h5: value_of(h5, "r01")) == 6.0


def test_handles_that_are_closed_are_opened_from_the_file(written, opened):
    add(written, "r00", 5.0)
    written.drop_handles()

    assert written.read(lambda h5: value_of(h5, "r00")) == 5.0
    assert opened
