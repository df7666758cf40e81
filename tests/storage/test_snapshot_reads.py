"""A read during a write sees one state of the file, down to the bytes that HDF5 asks for.

HDF5 once listed a group whose header was read before a commit and whose index after it: it sized a
table by the one, filled it from the other, and two readers beside four writers died of "double free
or corruption".
"""

from __future__ import annotations

import h5py
import pytest

from gamwarm.storage import reader
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


def read_beside_a_commit(path, writer):
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

    with Container.open(path, mode="r") as reader:
        return reader.read(look), tries


def test_bytes_of_a_later_state_are_refused_and_the_read_begins_again(written, path):
    (first, names), tries = read_beside_a_commit(path, written)

    assert isinstance(tries[0], Exception), "HDF5 was shown bytes of another state than the one it began with"
    assert tries[1:] == [38.0]
    assert first == 1.0
    assert len(names) == 42
    assert {"r39b", "r00b"} <= set(names)


def test_without_the_check_hdf5_would_be_shown_them(written, path, monkeypatch):
    """The control of the test above."""
    monkeypatch.setattr(reader, "_has_header", lambda fd, block, *, forget: True)

    _, tries = read_beside_a_commit(path, written)

    assert tries == [38.0, 38.0]


def test_a_handle_whose_file_moved_can_still_be_closed(written, path):
    with Container.open(path, mode="r") as reader:
        kept = []
        reader.read(lambda h5: kept.append(h5["records"]))
        add(written, "later", 3.0)
        assert reader.read(lambda h5: value_of(h5, "later")) == 3.0
        assert not kept[0]
