"""The entry layer: sizes and forms of entries, retention, indexes and totals, by one local
process.
"""

from __future__ import annotations

import contextlib

import h5py
import numpy as np
import pytest

from gamwarm import BlockRecord, InnerMode, InvalidKey, Producer
from gamwarm.entries import EntryEditor, EntryStore, Wanted, stored_values
from gamwarm.entries import store as entries_module
from gamwarm.maintenance import verify
from tests.support.stores import artifact_of, exact_key_of, record_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


@pytest.fixture
def entries(path):
    store = EntryStore(path)
    yield store
    store.close()


def found(entries, key):
    stored = entries.find_record(exact_key_of(key), None)
    return None if stored is None else stored.record


def wide(key, width, **changes):
    return record_of(
        key,
        block_names=["x"],
        block_dims=[width],
        block_beta=[np.linspace(-1, 1, width)],
        rho=np.linspace(-1, 1, width),
        inner=InnerMode(0.0, 0.0, 1, True, np.arange(float(width)), [0.0], log_lambdas=np.zeros(3)),
        active_sets=[range(width)],
        **changes,
    )


@pytest.mark.parametrize("width", [0, 1, 7499, 7500, 7501, 20_000])
def test_vectors_of_any_length_come_back(entries, path, width):
    record = wide(1, width, producer=Producer("e"))

    assert entries.put_record(record).written
    assert found(entries, 1) == record
    entries.close()
    again = EntryStore(path, mode="r")
    assert found(again, 1) == record
    assert verify(again).ok
    again.close()


def test_vectors_too_long_for_attributes_are_contiguous_datasets(entries, path):
    entries.put_record(wide(1, 7501))
    entries.close()

    with h5py.File(path) as h5:
        group = h5["block_records"][exact_key_of(1)]
        assert set(group) == {"rho", "beta", "inner", "active"}
        assert all(group[name].chunks is None for name in group)
        assert not set(group) & set(group.attrs)
        assert group["beta"].shape == (7501,)


def test_five_thousand_blocks_make_a_text_too_long_for_an_attribute_and_come_back(entries):
    names = [f"Block {i} – Straße {i}" for i in range(5000)]
    record = BlockRecord(
        exact_key_of(1),
        9,
        names,
        [2] * 5000,
        np.zeros(5000),
        np.arange(10_000.0).reshape(5000, 2),
        objective=1.0,
        producer=Producer("e"),
    )

    assert entries.put_record(record).written
    assert found(entries, 1) == record
    assert verify(entries).ok


def test_names_and_attributes_of_any_script_come_back(entries):
    record = record_of(
        block_names=["με\u0000σος", "尺度 🜁"],
        attributes={"Größe": "42 µm\n", "n": -(10**30), "x": 1e-300},
        producer=Producer("motor ⚙", "β1"),
    )

    assert entries.put_record(record).written
    assert found(entries, 1) == record


def test_a_record_without_anything_comes_back(entries):
    record = BlockRecord(exact_key_of(1), 0, [], [], [], [], producer=Producer("e"))

    assert entries.put_record(record).written
    assert found(entries, 1) == record


def test_an_infinite_rho_bound_comes_back(entries):
    entries.put_record(record_of(rho=[1e9, 0.0], rho_bound=np.inf))

    assert found(entries, 1).rho_bound == np.inf


def test_a_key_may_keep_more_than_one_final_and_the_best_lies_in_its_own_group(path):
    entries = EntryStore(path, keep_last=2)
    for value in (1.0, 2.0, 3.0):
        entries.put_record(record_of(value=value))
    entries.put_record(record_of(value=0.5, kind="checkpoint"))
    newest = entries.find_record(exact_key_of(1), None)
    assert newest.record.objective == 3.0
    assert len(entries) == 3
    assert verify(entries).ok
    entries.close()

    with h5py.File(path) as h5:
        group = h5["block_records"][exact_key_of(1)]
        assert f'"entry_id":"{newest.entry_id}"' in group.attrs["meta"].decode()
        assert len(group) == 2
        assert all(len(name) == 32 for name in group)


def test_a_parent_is_found_by_structure_among_thousands_of_strict_keys(entries):
    with entries.transaction():
        for width in range(1, 1001):
            entries.put_artifact(artifact_of(width=width, raw_width=1001))
    structural = artifact_of(raw_width=1001).structural_key

    found = entries.find_parent(Wanted("0" * 64, structural, 700))

    assert sum(t.reduced_width for t in found.artifact.terms) == 700
    assert verify(entries).ok


def test_totals_follow_every_put_and_replacement(entries):
    for value in (1.0, 2.0):
        entries.put_record(record_of(1, value))
        entries.put_record(wide(2, 9000, objective=value))
        entries.put_record(record_of(1, value, kind="checkpoint"))
        entries.put_artifact(artifact_of(value=value))

    report = verify(entries)
    assert report.ok, report.problems
    assert report.entries == len(entries) == 5


def test_generation_counts_transactions_that_changed_something(entries):
    start = entries.generation
    entries.put_record(record_of())
    entries.put_record(record_of())
    entries.put_record(record_of(rho=[np.nan, 0.0]))

    assert entries.generation == start + 1


@pytest.mark.parametrize("call", ["find_record", "find_artifact", "find_artifact_of_fit", "find_key_of_record"])
def test_a_malformed_key_is_refused_before_the_file_is_checked(entries, call):
    arguments = ("x", None) if call == "find_record" else ("x",)
    with pytest.raises(InvalidKey):
        getattr(entries, call)(*arguments)


def test_an_artifact_is_found_by_its_entry_id_whatever_its_descriptor(entries):
    wanted = [entries.put_artifact(artifact_of(name, v)) for name in ("a", "b") for v in (1.0, 2.0)]

    for outcome in wanted:
        assert entries.find_artifact(outcome.entry_id).entry_id == outcome.entry_id
    assert entries.find_artifact("0" * 32) is None


def test_overwriting_reuses_the_space_of_what_was_there(entries, path):
    for value in range(40):
        entries.put_record(wide(1, 2000, objective=float(value)))
    entries.close()

    assert path.stat().st_size < 6 * entries_bytes(path)


def entries_bytes(path):
    store = EntryStore(path, mode="r")
    nbytes = verify(store).nbytes
    store.close()
    return nbytes


def test_a_file_that_moves_while_it_is_opened_is_not_remembered_as_damaged(tmp_path, monkeypatch):
    path = tmp_path / "fits.h5"
    check = entries_module.check_file
    calls = []
    with contextlib.closing(EntryStore(path)) as other:

        def torn_once(h5, *arguments, **options):
            calls.append(h5)
            if len(calls) == 1:
                other.put_record(record_of(1))
                raise RuntimeError("bad object header version number")
            check(h5, *arguments, **options)

        monkeypatch.setattr(entries_module, "check_file", torn_once)
        with contextlib.closing(EntryStore(path)) as store:
            assert len(calls) > 1
            assert store.put_record(record_of(2)).written


def test_a_record_that_is_replaced_is_read_once(entries, monkeypatch):
    reads = []
    genuine = EntryEditor.read
    monkeypatch.setattr(EntryEditor, "read", lambda self, *place: reads.append(place) or genuine(self, *place))
    entries.put_record(record_of(1, 1.0))
    entries.put_record(record_of(1, 2.0))

    assert len(reads) == 1
    assert verify(entries).ok


def test_reads_together_are_of_one_state_and_warn_of_what_that_state_has(path, caplog):
    """A writer that comes between has all of them repeated; a warning is only of the last time."""
    with contextlib.closing(EntryStore(path)) as writer, contextlib.closing(EntryStore(path, mode="r")) as reader:
        kept = writer.put_artifact(artifact_of()).entry_id
        with h5py.File(path, "r+") as h5:
            (key,) = h5["fit_artifacts"].values()
            beta = key[kept].attrs["beta"]
            key[kept].attrs["beta"] = beta + 1.0
        rounds = []

        def look():
            rounds.append((reader.find_artifact(kept), found(reader, 1)))
            if len(rounds) == 1:
                writer.put_record(record_of(1))
                writer.close()
                with h5py.File(path, "r+") as h5:
                    next(iter(h5["fit_artifacts"].values()))[kept].attrs["beta"] = beta
            return rounds[-1]

        artifact, record = reader.read_together(look)

    assert rounds[0] == (None, None)
    assert artifact.entry_id == kept
    assert record.key == exact_key_of(1)
    assert "is damaged" not in caplog.text


def test_an_error_of_reads_that_a_writer_overtook_is_not_held_against_the_file(path):
    """Four workers of a pool on one file: one was told that the file is damaged, and stopped."""
    with contextlib.closing(EntryStore(path)) as writer, contextlib.closing(EntryStore(path)) as reader:
        rounds = []

        def overtaken(view):
            rounds.append(view)
            if len(rounds) == 1:
                writer.put_record(record_of(1))
                raise RuntimeError("Unable to synchronously open group (bad object header version number)")
            return found(reader, 1)

        assert reader.read_together(lambda: reader.read(overtaken)).key == exact_key_of(1)
        assert len(rounds) == 2
        assert reader.put_record(record_of(2)).written


@pytest.mark.parametrize("overtaken", [True, False], ids=["a writer came between", "it is so"])
def test_a_value_of_the_index_that_cannot_be_read_is_told_once_it_is_known_to_be_so(
    path, monkeypatch, caplog, overtaken
):
    with contextlib.closing(EntryStore(path)) as writer, contextlib.closing(EntryStore(path, mode="r")) as reader:
        kept = writer.put_artifact(artifact_of()).entry_id
        plain, failed = stored_values.read, []

        def read(gid, name, *rest):
            if not failed or not overtaken:
                failed.append(name)
                if overtaken:
                    monkeypatch.setattr(stored_values, "read", plain)
                    writer.put_record(record_of(1))
                raise RuntimeError("incorrect metadata checksum after all read attempts")
            return plain(gid, name, *rest)

        monkeypatch.setattr(stored_values, "read", read)
        artifact = reader.find_artifact(kept)

    assert failed
    assert (artifact is not None) == overtaken
    assert ("of the index cannot be read" in caplog.text) != overtaken


def test_reads_together_look_at_the_file_once(entries, monkeypatch):
    kept = entries.put_artifact(artifact_of()).entry_id
    looks = []
    plain = entries.container.read
    monkeypatch.setattr(entries.container, "read", lambda fn: looks.append(fn) or plain(fn))

    record, artifact = entries.read_together(lambda: (found(entries, 1), entries.find_artifact(kept)))

    assert record is None
    assert artifact.entry_id == kept
    assert len(looks) == 1
