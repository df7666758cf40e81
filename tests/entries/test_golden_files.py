"""Files of every released format stay readable: each number, name and digest, and reading changes
nothing.

`tests/data/make_golden.py` wrote them and what is in them. A failure here means that the format has
changed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm.entries import EntryStore
from gamwarm.maintenance import evict, verify
from gamwarm.records import Producer
from tests.data import make_golden
from tests.support.stores import exact_key_of, leftovers, record_of

DATA = Path(__file__).resolve().parents[1] / "data"
FILES = ["store-format-2"]
ENGINE = {"engine": "golden", "engine_version": "1.0"}


@pytest.fixture(params=FILES)
def golden(request, tmp_path):
    """A copy of the file, and what is in it."""
    path = tmp_path / "golden.h5"
    shutil.copy(DATA / f"{request.param}.h5", path)
    expected = json.loads((DATA / f"{request.param}.json").read_text(encoding="utf-8"))
    return path, expected


def everything(store: EntryStore, expected):
    """Every entry by its name, as JSON would hold it."""
    found = {}
    checkpoint_of = {}
    for name, entry in expected.items():
        content = entry["content"]
        if "kind" not in content:
            got = store.find_artifact(entry["entry_id"])
            found[name] = {"entry_id": got.entry_id, "content": make_golden.plain(got.artifact)}
        elif content["kind"] == "final":
            got = store.find_record(content["key"], None)
            found[name] = {"entry_id": got.entry_id, "content": make_golden.plain(got.record)}
        else:
            checkpoint_of[name] = entry["entry_id"]
    return found, checkpoint_of


def test_every_number_name_and_digest_is_read_back(golden):
    path, expected = golden
    with contextlib.closing(EntryStore(path, mode="r")) as store:
        found, checkpoints = everything(store, expected)
        assert store.entry_ids() == {entry["entry_id"] for entry in expected.values()}
        assert len(store) == len(expected)
        report = verify(store)
    assert report.ok, report.problems
    assert report.entries == len(expected)
    assert set(found) | set(checkpoints) == set(expected)
    for name, entry in found.items():
        assert entry == expected[name], name


def test_the_checkpoint_next_to_the_final_is_there_for_another_build(golden, tmp_path):
    """Of two foreign entries the lower objective wins; without the final the checkpoint would be
    served.
    """
    path, expected = golden
    content = expected["checkpoint"]["content"]
    kept = shutil.copy(path, tmp_path / "kept.h5")
    with contextlib.closing(EntryStore(path)) as store:
        assert store.find_record(content["key"], Producer("other", "2")).entry_id == expected["full"]["entry_id"]
        assert evict(store, size_budget=0).entry_ids[0] == expected["full"]["entry_id"], "the oldest goes first"
        assert store.entry_ids() == {expected["unbounded"]["entry_id"]}, "what is pinned stays"
    shutil.copy(kept, path)
    with contextlib.closing(EntryStore(path)) as store:
        live = evict(store, dry_run=True).bytes_before
        assert evict(store, size_budget=live - 1).entry_ids == (expected["full"]["entry_id"],)
        got = store.find_record(content["key"], None)
    assert {"entry_id": got.entry_id, "content": make_golden.plain(got.record)} == expected["checkpoint"]


def test_reading_never_changes_the_file(golden):
    path, expected = golden
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.chmod(0o444)
    with gamwarm.open(path, "r", **ENGINE, on_error="raise") as store:
        for key in store.keys():  # noqa: SIM118 - a store is no dict
            assert store.get_record(key) is not None
        store.verify()
        store.entry_ids()
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp
    assert not leftovers(path)
    path.chmod(0o644)
    with gamwarm.open(path, **ENGINE, on_error="raise") as store:
        assert len(store.keys()) == 3
        assert store.verify().verdict == "sound"
    assert path.read_bytes() == before
    assert expected


def test_the_file_takes_new_entries_and_keeps_the_old(golden):
    path, expected = golden
    with gamwarm.open(path, **ENGINE, on_error="raise") as store:
        assert store.put_record(record_of(5)).written
    with contextlib.closing(EntryStore(path, mode="r")) as store:
        found, _ = everything(store, expected)
        assert store.find_record(exact_key_of(5), None) is not None
        assert verify(store).ok
    for name, entry in found.items():
        assert entry == expected[name], name


def test_plain_h5py_sees_the_layout_of_format_2(tmp_path):
    """Literals: whoever changes these changes the format."""
    path = shutil.copy(DATA / "store-format-2.h5", tmp_path / "golden.h5")
    head = Path(path).read_bytes()[:64]
    assert head[:12] == b"GAMWARM\n\x01\x00\x40\x00"
    assert head[20:36] == bytes(range(16))
    with h5py.File(path, "r") as h5:
        assert sorted(h5) == ["block_records", "fit_artifacts"]
        assert int(h5.attrs["format_version"]) == 2
        assert int(h5.attrs["n_entries"]) == 7
        assert int(h5.attrs["last_created"]) == make_golden.FIRST + 6
        full = h5["block_records/cf-" + "1" * 64]
        assert full.attrs["beta"].tolist() == [1.0, -1 / 3, 5e-324, 1.7976931348623157e308]
        assert full.attrs["rho"].tolist() == [0.1, -2.5, 9.75]
        assert full.attrs["active"].tolist() == [0, 2, 7]
        assert len(list(full)) == 1, "the checkpoint is a child"
        meta = json.loads(bytes(full.attrs["meta"]).decode("utf-8"))
        assert meta["blocks"] == ["µ: s(température)", "log σ", "机场"]
        assert meta["widths"] == [3, 1, 0]
        assert json.loads(bytes(h5["block_records/cf-" + "2" * 64].attrs["meta"]))["rho_bound"] is None
        big = h5["block_records/cf-" + "3" * 64]["beta"]
        assert isinstance(big, h5py.Dataset)
        assert big[()].tobytes() == (np.arange(8000) / 7.0).tobytes()
        (seeded,) = h5["fit_artifacts/" + make_golden.artifacts()["seeded"].descriptor.key].values()
        assert json.loads(bytes(seeded.attrs["meta"]))["seeds"]["has_hessian"] is True
        assert seeded.attrs["seeds"].tolist() == [
            *(0.25, -0.5, 0.0, 1.0, -1.0, 0.5, 2.0, 0.25, 1.0),  # north: rho, beta, lower triangle
            *(0.0, 1 / 3, 0.125, 0.0, 0.0, -2.0, 1.5, -1 / 3, 0.75),
        ]


def test_the_generator_gives_the_same_entries_again(tmp_path):
    """So the kept file says what today's code would write; if this alone fails, look before you
    generate anew.
    """
    make_golden.make(tmp_path)
    for name in FILES[-1:]:
        assert (tmp_path / f"{name}.json").read_text("utf-8") == (DATA / f"{name}.json").read_text("utf-8")
        with h5py.File(tmp_path / f"{name}.h5", "r") as new, h5py.File(DATA / f"{name}.h5", "r") as old:
            assert _all(new) == _all(old)


def test_the_files_are_small():
    assert all((DATA / f"{name}.h5").stat().st_size < 200_000 for name in FILES)


def _all(h5):
    seen = {}

    def visit(name, thing):
        seen[name] = {label: np.asarray(value).tobytes() for label, value in thing.attrs.items() if label != "README"}
        if isinstance(thing, h5py.Dataset):
            seen[f"{name}:data"] = np.asarray(thing[()]).tobytes()

    visit("/", h5)
    h5.visititems(visit)
    return seen
