"""Records read from the bytes of their object header are what HDF5 reads; whatever is unusual is
left to HDF5.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm.encoding.codec import DamagedEntry
from gamwarm.entries import object_header
from gamwarm.entries.layout import RECORDS, FileView
from gamwarm.storage.container import Container
from gamwarm.storage.overlay import Overlay
from gamwarm.storage.reader import ReadHandle
from tests.support.stores import exact_key_of, record_of

KEY = exact_key_of(1)


def by_hdf5(h5):
    """Return a view that is not given the bytes under the handle."""
    return FileView(SimpleNamespace(id=h5.id), keeps_groups=True)


def both_ways(path, key=KEY):
    """Return what the header's bytes and what HDF5 give of the key's own group."""

    def look(h5):
        return FileView(h5, keeps_groups=True).read_lone_record(key), by_hdf5(h5).read(RECORDS, key)

    with Container.open(path, mode="r") as container:
        return container.read(look)


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in other.arrays.items():
        assert one.arrays[name].dtype == array.dtype
        assert one.arrays[name].tobytes() == array.tobytes()
        assert not one.arrays[name].flags.writeable
    return (one.section, one.key, one.meta) == (other.section, other.key, other.meta)


records = st.builds(
    lambda width, rho, active, note, objective: record_of(
        1,
        block_names=["x"],
        block_dims=[width],
        block_beta=[np.arange(width) / 3],
        rho=np.full(rho, 0.5),
        active_sets=[active],
        attributes={"note": note},
        objective=objective,
    ),
    st.integers(0, 900),
    st.integers(0, 6),
    st.none() | st.sets(st.integers(0, 99), max_size=5).map(sorted),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(records, min_size=1, max_size=4))
def test_any_record_that_was_overwritten_any_number_of_times_is_read_alike_both_ways(tmp_path_factory, versions):
    path = tmp_path_factory.mktemp("headers") / "fits.h5"
    with gamwarm.open(path) as store:
        for step, version in enumerate(versions):
            store.put_record(replace(version, attributes={**version.attributes, "step": step}))
            store.put_record(record_of(2 + step, float(step)))
    quick, slow = both_ways(path)
    assert quick is not None
    assert same(quick, slow)


def test_a_header_continued_elsewhere_in_the_file_is_read_through(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        with store.transaction():
            for key in range(16):
                store.put_record(record_of(key, 1.0, attributes={"note": "x" * 17 * key}))
        for key in range(16):
            store.put_record(record_of(key, 2.0, attributes={"note": "x" * 13 * (16 - key)}))
    with h5py.File(path) as plain:
        chunks = [h5py.h5o.get_info(plain[f"{RECORDS}/{exact_key_of(key)}"].id).hdr.nchunks for key in range(16)]
    assert max(chunks) > 1
    for key in range(16):
        assert same(*both_ways(path, exact_key_of(key)))


@pytest.mark.parametrize(("width", "lone"), [(7000, True), (9000, False)], ids=["attributes", "a dataset"])
def test_a_value_in_a_dataset_is_left_to_hdf5(tmp_path, width, lone):
    path = tmp_path / "fits.h5"
    big = record_of(1, block_names=["x"], block_dims=[width], block_beta=[np.arange(float(width))])
    with gamwarm.open(path) as store:
        store.put_record(big)
        assert np.array_equal(store.get_record(KEY).block_beta[0], big.block_beta[0])
    assert (both_ways(path)[0] is not None) == lone


def test_a_key_with_several_entries_and_a_missing_one_are_left_to_hdf5(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(1, 1.0))
        store.put_record(record_of(1, 2.0, kind="checkpoint", converged=False))
        assert store.get_record(KEY).kind == "final"
        assert store.get_record(exact_key_of(2)) is None
    with Container.open(path, mode="r") as container:
        for key in (KEY, exact_key_of(2)):
            assert container.read(lambda h5, key=key: FileView(h5).read_lone_record(key)) is None


@pytest.mark.parametrize("name", ["meta", "seal"])
def test_numbers_whose_bytes_are_the_text_that_was_sealed_are_no_text(tmp_path, name):
    """The seal covers bytes, not types: that they are a text is for the reader to check."""
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        for padding in range(8):  # one of these texts is as long as some integers
            store.put_record(record_of(padding, attributes={"note": "x" * padding}))
    with h5py.File(path, "r+", libver=("v108", "v108")) as plain:  # encoded as our own writer does
        keys = [exact_key_of(number) for number in range(8)]
        key = next(key for key in keys if plain[RECORDS][key].attrs.get_id("meta").get_storage_size() % 8 == 0)
        attributes = plain[RECORDS][key].attrs
        numbers = np.frombuffer(bytes(attributes[name]), "<i8")
        del attributes[name]
        attributes[name] = numbers
    with Container.open(path, mode="r") as container:
        assert container.read(lambda h5: FileView(h5).read_lone_record(key)) is None
        with pytest.raises(DamagedEntry):
            container.read(lambda h5: FileView(h5).read(RECORDS, key))
    with gamwarm.open(path) as store:
        assert store.get_record(key) is None
        assert [problem.place for problem in store.verify().problems] == [f"/{RECORDS}/{key}"]


def test_bytes_that_a_journal_lays_over_the_file_are_what_is_read(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    image = path.read_bytes()
    pages = {number: image[4096 * number :][:4096].ljust(4096, b"\0") for number in range(-(-len(image) // 4096))}
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(len(image)))
    with blank.open("rb") as base:
        overlay = Overlay(base.fileno(), len(image), pages, len(image))
        overlay.dead = True
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, overlay)
        with ReadHandle(h5py.h5f.open(b"over", h5py.h5f.ACC_RDONLY, fapl=access), overlay.peek) as h5:
            assert same(FileView(h5).read_lone_record(KEY), by_hdf5(h5).read(RECORDS, KEY))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_header_of_any_bytes_gives_attributes_or_none(data):
    """Nothing that stands where a header should makes the reader raise, loop or read beyond the
    image.
    """
    with h5py.File("x", "w", driver="core", backing_store=False, libver=("v108", "v108")) as h5:
        group = h5.create_group("g")
        for name in ("meta", "seal", "rho"):
            group.attrs[name] = np.arange(3.0)
        h5.flush()
        image = bytearray(h5.id.get_file_image())
        address = h5.id.links.get_info(b"g").u
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(address, min(len(image), address + 300) - 1))] = data.draw(st.integers(0, 255))

    def peek(count, at):
        assert 0 <= count <= 1 << 20
        assert 0 <= at <= 1 << 60
        return bytes(image[at : at + count])

    found = object_header.attributes(peek, address)
    assert found is None or all(type(name) is bytes and type(value) is bytes for name, (_, value) in found.items())


def test_a_seal_is_recognised_in_the_header_that_has_it_and_in_no_other(path):
    with Container.open(path, create=lambda h5: h5.create_group("g")) as container, container.write() as h5:
        for number, name in enumerate(("one", "two", "long")):
            group = h5["g"].create_group(name)
            text = b"%032d" % number
            group.attrs.create("meta", np.array(b"x" * (20_000 if name == "long" else 50)))
            group.attrs.create("other", np.array(b"y" * 32))
            group.attrs.create("seal", np.array(text))
            group.create_group("below")
    with Container.open(path, mode="r") as container:

        def look(h5):
            address = {name: h5py.h5o.get_info(h5["g"][name].id).addr for name in h5["g"]}
            return {
                (name, number)
                for name in address
                for number in range(3)
                if object_header.has_text(h5.peek, address[name], b"seal", b"%032d" % number)
            }

        assert container.read(look) == {("one", 0), ("two", 1), ("long", 2)}
