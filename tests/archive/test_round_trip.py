"""The same content gives the same bytes: exported again, imported and exported, in another process,
from any order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm.archive import Selection, export_archive, import_archive, verify_archive
from gamwarm.errors import InvalidInput, InvalidKey, NoSuchKey, StoreError, StoreNotFound, StoreReadOnly
from tests.support.stores import artifact_of, carrier_fit, plain_fit, record_of, result_of

SAID: dict[str, Any] = {"title": "Flights", "creators": ["Ada Lovelace"], "license": "CC-BY-4.0"}


def export(store: Path, out: Path, select: Selection | None = None, **said: Any) -> bytes:
    export_archive(store, out, select, **SAID | said)
    return out.read_bytes()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as opened:
        opened.put_record(record_of(1, 1.0))
        opened.put_record(record_of(1, 2.0, kind="checkpoint"))
        opened.put_record(record_of(2, 3.0, block_dims=[9000, 2], block_beta=[[0.5] * 9000, [1.0, 2.0]]))
        for problem in (plain_fit(1), carrier_fit(), carrier_fit(range(36))):
            with opened.fit(problem) as fit:
                fit.keep(result_of(problem))
    return path


puts = st.lists(
    st.one_of(
        st.builds(record_of, st.integers(1, 4), st.floats(-1e6, 1e6), kind=st.sampled_from(["final", "checkpoint"])),
        st.builds(artifact_of, st.sampled_from(["s(x)", "s(ü)", "f"]), st.floats(-1e6, 1e6), width=st.integers(1, 3)),
    ),
    min_size=1,
    max_size=12,
)


def put_all(path: Path, entries: list[Any], keep_last: int) -> None:
    with gamwarm.open(path, keep_last=keep_last, engine="tests", engine_version="1") as opened:
        for entry in entries:
            put = opened.put_record if isinstance(entry, gamwarm.BlockRecord) else opened.put_artifact
            put(entry)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=puts, keep_last=st.integers(1, 3))
def test_export_import_export_gives_identical_bytes(tmp_path_factory, entries, keep_last):
    folder = tmp_path_factory.mktemp("round")
    put_all(folder / "a.h5", entries, keep_last)

    first = export(folder / "a.h5", folder / "first.h5")
    imported = import_archive(folder / "first.h5", folder / "b.h5")
    again = export(folder / "b.h5", folder / "again.h5")

    with gamwarm.open(folder / "a.h5", "r") as a, gamwarm.open(folder / "b.h5", "r") as b:
        assert len(imported.added) == len(a) == len(b)
        assert b.verify().verdict == "sound"
    assert again == first


def test_another_process_with_another_hash_seed_and_clock_gives_the_same_bytes(store, tmp_path):
    here = export(store, tmp_path / "here.h5")
    for seed in ("1", "2"):
        out = tmp_path / f"there-{seed}.h5"
        program = f"from gamwarm.archive import *; export_archive({str(store)!r}, {str(out)!r}, **{SAID!r})"
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": "Asia/Kathmandu"}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)

        assert out.read_bytes() == here


def test_the_history_of_a_file_does_not_show(store, tmp_path):
    """Evicted entries, compaction, pins and the order of merges leave no trace."""
    here = export(store, tmp_path / "here.h5")
    other = tmp_path / "other.h5"
    with gamwarm.open(other) as opened:
        opened.put_record(record_of(9, 9.0))
        opened.evict(0)
        opened.pin(opened.merge(store).added[0])
        opened.compact()

    assert export(other, tmp_path / "there.h5") == here


def ids_of(path: Path) -> set[str]:
    with gamwarm.open(path, "r") as opened:
        return opened._file.entry_ids()


def test_an_archive_is_a_store_that_can_be_read_but_not_written(store, tmp_path):
    export(store, tmp_path / "a.h5")
    problem = carrier_fit()

    with gamwarm.open(tmp_path / "a.h5", "r") as opened:
        assert opened.start_for(problem).source == "exact"
        assert opened.verify().ok
    with pytest.raises(StoreReadOnly, match="import it into a store"):
        gamwarm.open(tmp_path / "a.h5", on_error="raise")
    assert verify_archive(tmp_path / "a.h5").ok


def test_an_archive_can_be_exported_from_an_archive(store, tmp_path):
    first = export(store, tmp_path / "a.h5")

    assert export(tmp_path / "a.h5", tmp_path / "b.h5") == first


def test_an_import_unites_and_keeps_times(store, tmp_path):
    export(store, tmp_path / "a.h5")
    target = tmp_path / "other.h5"
    with gamwarm.open(target) as opened:
        opened.put_record(record_of(7, 7.0))
    before = ids_of(target)

    import_archive(tmp_path / "a.h5", target)
    again = import_archive(tmp_path / "a.h5", target)

    assert ids_of(target) == before | ids_of(store)
    assert again.added == ()
    with gamwarm.open(store, "r") as a, gamwarm.open(target, "r") as b:
        assert a.get_record(record_of(2).key).created == b.get_record(record_of(2).key).created


def test_an_export_ends_next_to_a_writer_that_commits_all_the_time(store, tmp_path):
    before = ids_of(store)
    with gamwarm.open(store) as writer:
        report = export_archive(
            store, tmp_path / "out.h5", progress=lambda done, _: writer.put_record(record_of(100 + done)), **SAID
        )

    assert report.problems == ()
    assert ids_of(tmp_path / "out.h5") == before
    assert verify_archive(tmp_path / "out.h5").ok


def test_what_a_writer_removes_while_the_export_runs_is_left_out_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("gamwarm.entries.scan.BATCH_SIZE", 1)
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as writer:
        for n in range(3):
            writer.put_record(record_of(n, float(n)))
        gone = record_of(2).key

        def replace(done: int, _: int) -> None:
            if done == 1:
                writer.put_record(record_of(2, 99.0))

        report = export_archive(path, tmp_path / "out.h5", progress=replace, **SAID)

    assert [(p.place, p.reason) for p in report.problems] == [
        (f"/block_records/{gone}", "it was replaced or removed during the export")
    ]
    assert report.entries == 2
    assert verify_archive(tmp_path / "out.h5").ok


def test_entries_that_were_left_out_do_not_show_in_the_bytes(store, tmp_path):
    with h5py.File(store, "r+") as h5:
        h5["block_records"][record_of(2).key].attrs.modify("rho", [9.0, 9.0])
    first = export(store, tmp_path / "a.h5")
    import_archive(tmp_path / "a.h5", tmp_path / "b.h5")

    assert export(tmp_path / "b.h5", tmp_path / "c.h5") == first


# -- what is selected ------------------------------------------------------------------------------


def selected(store: Path, tmp_path: Path, **criteria: Any) -> set[str]:
    out = tmp_path / "selected.h5"
    export_archive(store, out, Selection(**criteria), overwrite=True, **SAID)
    assert verify_archive(out).ok
    return ids_of(out)


def heads(path: Path) -> list[Any]:
    with gamwarm.open(path, "r") as opened:
        return gamwarm.entries.list_entries(opened._file)[0]


@pytest.mark.parametrize(
    ("criteria", "wanted"),
    [
        ({"kinds": ["checkpoint"]}, lambda h: h.kind == "checkpoint"),
        ({"kinds": ["artifact"]}, lambda h: h.kind == "artifact"),
        ({"keys": [record_of(2).key]}, lambda h: h.key == record_of(2).key),
        ({"blocks": ["mean carrier"], "kinds": ["final"]}, lambda h: "mean carrier" in h.blocks and h.kind == "final"),
        ({"producers": ["tests 1"]}, lambda h: h.producer.engine == "tests"),
        ({"families": ["tests.plain"]}, lambda h: h.family == "tests.plain" or h.blocks == ("mean",)),
    ],
    ids=["checkpoints", "artifacts", "key", "block and kind", "producer", "family with its records"],
)
def test_a_selection_takes_what_meets_every_criterion(store, tmp_path, criteria, wanted):
    found = selected(store, tmp_path, lineage=False, **criteria)

    assert found == {head.entry_id for head in heads(store) if wanted(head)}
    assert found


def test_a_short_entry_id_is_enough(store, tmp_path):
    entry_id = min(ids_of(store))

    assert selected(store, tmp_path, keys=[entry_id[:10]], lineage=False) == {entry_id}


def test_lineage_brings_what_the_chosen_fits_started_from(store, tmp_path):
    key = carrier_fit(range(36)).key
    fold = next(head for head in heads(store) if head.key == key)
    assert fold.source == "transfer"

    assert selected(store, tmp_path, keys=[key], lineage=False) == {fold.entry_id}
    assert selected(store, tmp_path, keys=[key]) == {fold.entry_id, fold.parent}


def test_a_parent_that_is_gone_is_reported(tmp_path):
    lineage = gamwarm.Lineage("transfer", "ab" * 16)
    with gamwarm.open(tmp_path / "a.h5") as opened:
        opened.put_record(record_of(1, lineage=lineage))

    report = export_archive(tmp_path / "a.h5", tmp_path / "out.h5", **SAID)

    assert report.absent_parents == ("ab" * 16,)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"title": " "}, InvalidInput, "title"),
        ({"license": ""}, InvalidInput, "license"),
        ({"creators": []}, InvalidInput, "creator"),
        ({"creators": ["Ada <0000>"]}, InvalidInput, "ORCID"),
        ({"select": Selection(keys=["ffffffffffff"])}, NoSuchKey, "no entry of this file has a key"),
        ({"select": Selection(keys=["cf-"])}, InvalidKey, "at least 4 hex digits"),
        ({"select": Selection(families=["nobody's"])}, InvalidInput, "no entry matches the selection"),
        ({"select": {"kinds": ["final"]}}, gamwarm.InvalidType, "Selection"),
        ({"progress": lambda done, total: False}, StoreError, "stopped by its progress"),
    ],
)
def test_a_bad_wish_names_itself_and_leaves_nothing(store, tmp_path, changes, error, says):
    before = set(tmp_path.iterdir())

    with pytest.raises(error, match=says):
        export_archive(store, tmp_path / "out.h5", **SAID | changes)

    assert set(tmp_path.iterdir()) == before


def test_an_archive_never_replaces_a_file_unasked(store, tmp_path):
    out = tmp_path / "out.h5"
    out.write_bytes(b"mine")

    with pytest.raises(StoreError, match="exists already"):
        export(store, out)
    assert out.read_bytes() == b"mine"

    export_archive(store, out, overwrite=True, **SAID)
    assert verify_archive(out).ok


def test_a_missing_store_or_folder_is_named(store, tmp_path):
    with pytest.raises(StoreNotFound, match=r"missing\.h5"):
        export(tmp_path / "missing.h5", tmp_path / "out.h5")
    with pytest.raises(StoreError, match="create it first"):
        export(store, tmp_path / "nowhere" / "out.h5")


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="use one of final"):
        Selection(kinds=["finals"])
    with pytest.raises(InvalidInput, match="give a list"):
        Selection(keys="cf-1")
