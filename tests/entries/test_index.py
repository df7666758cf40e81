"""The index: what it lists follows from the artifacts, whatever happens to them, and a look-up
reads little of it.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamwarm
from gamwarm.entries import KINDS, EntryStore, Index, Wanted, clock, list_entries, stored_index
from gamwarm.entries.index import RELATED_ROWS, TABLE_ROWS, Candidate, Model, candidates
from gamwarm.errors import OlderFormat
from gamwarm.identity import relation_keys
from gamwarm.maintenance import compact, merge, verify
from gamwarm.storage import vfs
from tests.support.stores import artifact_of, exact_key_of, record_of

FAMILY = "tests.family"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


@pytest.fixture
def entries(path):
    with closing(EntryStore(path)) as store:
        yield store


def related_to(*names):
    return relation_keys(FAMILY, [("mean", name, "bspline", 1) for name in names], ())


# -- rows ------------------------------------------------------------------------------------------

hexadecimal = st.text("0123456789abcdef", min_size=32, max_size=32)
rows = st.builds(
    Candidate,
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**52),
    hexadecimal,
    hexadecimal.map(lambda half: half + half),
)


@given(st.lists(rows, max_size=6))
def test_rows_read_back_and_sort_as_texts_like_they_rank(found):
    assert [Candidate.parse(row.text()) for row in found] == found
    assert sorted(row.text() for row in found) == [row.text() for row in sorted(found)]
    assert {len(row.text()) for row in found} <= {139}


@given(st.text(max_size=160))
def test_any_other_text_is_no_row(text):
    row, model = Candidate.parse(text), Model.parse(text)

    assert row is None or row.text() == text
    assert model is None or model.text() == text


# -- the order -------------------------------------------------------------------------------------

artifacts = st.lists(
    st.tuples(
        st.sampled_from(["s(x)", "s(z)"]),
        st.integers(1, 4),  # reduced width
        st.sampled_from([4, 5]),  # raw width
        st.integers(0, 3),  # rows
        st.booleans(),  # converged
    ),
    max_size=14,
)


def file_all(entries, made):
    filed = []
    for number, (name, width, raw, n_rows, converged) in enumerate(made):
        artifact = artifact_of(name, float(number), width=width, raw_width=raw, n_rows=n_rows, converged=converged)
        outcome = entries.put_artifact(artifact)
        filed.append(
            (entries.find_artifact(outcome.entry_id).artifact.created, n_rows, width, artifact, outcome.entry_id)
        )
    return filed


def test_tables_stay_right_between_puts_removals_and_another_writers_puts(entries, path):
    def put(store, number):
        store.put_artifact(artifact_of("s(x)", float(number), n_rows=10 + number))

    for number in range(3):
        put(entries, number)
    with entries.editing() as editor:
        editor.remove([(s.section, s.path, s.entry_id) for s in list_entries(entries)[0]], {})
    put(entries, 3)
    assert not verify(entries).repaired
    with closing(EntryStore(path)) as other:
        put(other, 4)
    put(entries, 5)

    assert not verify(entries).repaired


@given(artifacts, st.integers(1, 4), st.sampled_from([4, 5]), st.integers(0, 6))
def test_a_parent_is_chosen_as_if_every_artifact_had_been_read(tmp_path_factory, made, width, raw, removed):
    """Strict key, else structural key and nearest width, else a model with the same smooth; most
    rows; newest.
    """
    wanted = artifact_of("s(x)", width=width, raw_width=raw)
    with closing(EntryStore(tmp_path_factory.mktemp("index") / "fits.h5")) as entries:
        filed = file_all(entries, made)
        gone = {entry_id for *_, entry_id in filed[:removed]}
        with entries.editing() as editor:
            editor.remove([(s.section, s.path, s.entry_id) for s in list_entries(entries)[0] if s.entry_id in gone], {})
        left = [each for each in filed if each[4] not in gone]

        def rank(each):
            created, n_rows, its_width, artifact, entry_id = each
            strict = artifact.descriptor.key == wanted.descriptor.key
            alike = artifact.structural_key == wanted.structural_key
            gap = -abs(its_width - width) if alike else 0
            return strict, alike or strict, 0 if strict else gap, n_rows, created, entry_id

        relatives = [each for each in left if each[3].terms[0].name == "s(x)" and each[3].summary.converged]
        expected = max(relatives, key=rank)[4] if relatives else None
        found = entries.find_parent(Wanted(wanted.descriptor.key, wanted.structural_key, width, related_to("s(x)")))

        assert (None if found is None else found.entry_id) == expected
        assert verify(entries).verdict == "sound"


def test_of_models_with_other_terms_the_one_with_the_most_in_common_comes_first():
    def row(number, n_rows=1):
        return Candidate(True, n_rows, number, f"{number:032x}", f"{number:064x}")

    index = Index()
    for number, names in enumerate([("a",), ("a", "b"), ("a", "b", "c"), ("d",)]):
        index.tables[f"{number:064x}"] = [row(number)]
        for name in names:
            index.models.setdefault(name, []).append(Model(number, False, f"{number:064x}"))

    found = candidates(index, Wanted("f" * 64, None, 3, {"a": 1, "b": 2, "d": 4}))

    assert [each.created for each in found] == [3, 2, 1, 0]


def test_a_list_of_models_keeps_the_newest(entries):
    for number in range(RELATED_ROWS + 5):
        entries.put_artifact(artifact_of("s(x)", raw_width=4 + number))

    (name,) = related_to("s(x)")
    models = entries.read(lambda view: view.index.related(name))

    assert len(models) == RELATED_ROWS
    assert models[0].key == artifact_of("s(x)", raw_width=4 + RELATED_ROWS + 4).structural_key
    assert verify(entries).verdict == "sound"


def test_a_table_that_grows_is_written_in_place_until_its_rows_double(entries, path):
    ids = []
    for number in range(TABLE_ROWS + 1):
        ids.insert(0, entries.put_artifact(artifact_of(value=float(number))).entry_id)
        with h5py.File(path, "r") as h5:
            stored = h5["fit_artifacts"][artifact_of().descriptor.key].attrs["candidates"]
        rows = entries.read(lambda view: view.index.strict(artifact_of().descriptor.key))

        assert len(stored) in (1, 2, 4, 8)
        assert len(stored) < 2 * min(len(ids), TABLE_ROWS)
        assert [row.entry_id for row in rows] == ids[:TABLE_ROWS]


def test_tables_of_a_key_that_was_removed_are_made_anew(entries, path):
    wanted = Wanted(artifact_of().descriptor.key, artifact_of().structural_key)
    for value in (1.0, 2.0):
        first, second = (entries.put_artifact(artifact_of(value=value + n)).entry_id for n in (0.0, 0.5))
        assert entries.find_parent(wanted).entry_id == second
        with entries.editing() as editor:
            editor.remove([(s.section, s.path, s.entry_id) for s in list_entries(entries)[0]], {})
        assert entries.find_parent(wanted) is None
        again = entries.put_artifact(artifact_of(value=value)).entry_id

        assert entries.find_parent(wanted).entry_id == again == first
        assert verify(entries).verdict == "sound"
        with h5py.File(path, "r") as h5:
            assert len(h5["fit_artifacts"][artifact_of().descriptor.key].attrs["candidates"]) == 1
        with entries.editing() as editor:
            editor.remove([(s.section, s.path, s.entry_id) for s in list_entries(entries)[0]], {})


# -- what happens to a file ------------------------------------------------------------------------


def test_after_as_many_damaged_ones_as_a_table_has_the_next_intact_one_is_found(entries, path, caplog):
    ids = [entries.put_artifact(artifact_of(value=float(n), n_rows=n)).entry_id for n in range(TABLE_ROWS + 2)]
    entries.close()
    with h5py.File(path, "r+") as h5:
        group = h5["fit_artifacts"][artifact_of().descriptor.key]
        for entry_id in ids[1:]:
            group[entry_id].attrs["beta"] = group[entry_id].attrs["beta"] + 1.0

    with closing(EntryStore(path)) as again:
        found = again.find_parent(Wanted(artifact_of().descriptor.key, artifact_of().structural_key))

        assert found.entry_id == ids[0]
        assert caplog.text.count("is damaged") == TABLE_ROWS


@pytest.mark.parametrize("what", ["candidates", "structural:", "widths:", "related:", "id", "recent"])
@pytest.mark.parametrize("damage", ["another type", "another width", "nonsense", "gone"])
def test_an_index_that_lies_costs_a_start_at_most_and_verify_makes_it_anew(entries, path, what, damage, caplog):
    kept = entries.put_artifact(artifact_of()).entry_id
    if what != "recent":
        compact(entries)
    entries.close()
    with h5py.File(path, "r+") as h5:
        section = h5 if what == "recent" else h5["fit_artifacts"]
        group = section[artifact_of().descriptor.key] if what == "candidates" else section
        name = kept if what == "id" else next(name for name in group.attrs if name.startswith(what))
        value = group.attrs[name]
        del group.attrs[name]
        if damage == "another type":
            group.attrs[name] = 1.5
        elif damage == "another width":
            group.attrs.create(name, np.array([b"x" * 9]), dtype=h5py.string_dtype("utf-8", 9))
        elif damage == "nonsense":
            width = {"candidates": 139, "structural:": 139, "recent": 176}.get(what)
            dtype = h5py.string_dtype("utf-8", width) if width else None
            group.attrs.create(name, np.full(np.shape(value), b"?" * width), dtype=dtype) if dtype else None

    with closing(EntryStore(path)) as again:
        wanted = Wanted("0" * 64, artifact_of().structural_key, 3, related_to("s(x)"))
        assert again.find_artifact(kept) is None or what not in ("id", "recent")
        found = again.find_parent(wanted)
        assert found is None or found.entry_id == kept
        assert verify(again).verdict == "repaired"
        assert again.find_parent(wanted).entry_id == kept
        assert again.find_artifact(kept).entry_id == kept


def test_a_row_that_names_an_artifact_of_another_key_serves_nothing(entries, path):
    """A row of a strict key's own table counts only if it is of that key."""
    entries.put_artifact(artifact_of("s(z)"))
    entries.put_artifact(artifact_of("s(x)"))
    entries.close()
    with h5py.File(path, "r+") as h5:
        own, other = (h5["fit_artifacts"][artifact_of(name).descriptor.key] for name in ("s(x)", "s(z)"))
        own.attrs["candidates"] = other.attrs["candidates"]

    with closing(EntryStore(path)) as again:
        assert again.find_parent(Wanted(artifact_of("s(x)").descriptor.key, None)) is None


def test_merging_and_compacting_leave_the_index_that_puts_would(tmp_path):
    one, two, into = (tmp_path / f"{name}.h5" for name in ("one", "two", "into"))
    made = [("s(x)", 1 + n % 3, 4 + n % 2, n % 5, True) for n in range(30)]
    for path, part in ((one, made[:20]), (two, made[10:])):
        with closing(EntryStore(path)) as entries:
            file_all(entries, part)
    with closing(EntryStore(into)) as entries:
        for path in (one, two):
            merge(entries, path)
        assert verify(entries).verdict == "sound"
        compact(entries)
        assert verify(entries).verdict == "sound"
        everything = {summary.entry_id for summary in list_entries(entries)[0]}
        assert {e for e in everything if entries.find_artifact(e) is not None} == everything


def test_a_fit_s_newest_artifact_is_found_by_its_exact_key_and_by_its_record(entries, monkeypatch):
    times = iter([300, 100, 200])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    record = entries.put_record(record_of(1)).entry_id
    entries.put_artifact(artifact_of(value=1.0, fit_key=exact_key_of(1)))
    newest = entries.put_artifact(artifact_of(value=2.0, fit_key=exact_key_of(1))).entry_id

    assert entries.find_artifact_of_fit(exact_key_of(1)).entry_id == newest
    assert entries.find_artifact_of_fit(exact_key_of(2)) is None
    assert entries.find_key_of_record(record) == exact_key_of(1)
    assert entries.find_key_of_record(newest) is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("fit"), st.integers(0, 4), st.integers(0, 3)),
            st.tuples(st.sampled_from(["remove", "again", "compact", "verify"]), st.integers(0, 9), st.just(0)),
        ),
        max_size=25,
    )
)
def test_recent_entries_are_found_as_those_in_the_attributes_are(tmp_path_factory, steps):
    """By id and by fit, whatever was filed and removed in between, by this handle and the next."""
    path = tmp_path_factory.mktemp("recent") / "fits.h5"
    keys = [f"cf-{number}{'0' * 63}" for number in range(5)]
    filed, removed = {}, set()
    entries = EntryStore(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_index, "RECENT_ROWS", 3)
        for what, number, value in steps:
            if what == "fit":
                with entries.transaction():
                    entries.put_record(replace(record_of(0, float(10 - value)), key=keys[number]))
                    artifact = artifact_of(value=float(value), fit_key=keys[number])
                    filed[entries.put_artifact(artifact).entry_id] = number
            elif what == "remove" and filed:
                listed = [s for s in list_entries(entries)[0] if s.kind == "artifact"]
                chosen = listed[number % len(listed)]
                left = [s for s in listed if s is not chosen and s.fit_key == chosen.fit_key]
                newest = {s.fit_key: (s.created, s.entry_id) for s in sorted(left, key=lambda s: s.created)}
                with entries.editing() as editor:
                    editor.remove([(chosen.section, chosen.path, chosen.entry_id)], newest)
                del filed[chosen.entry_id]
                removed.add(chosen.entry_id)
            elif what == "compact":
                compact(entries)
            elif what == "again":
                entries.close()
                entries = EntryStore(path)
            else:
                assert verify(entries).verdict == "sound"
    with closing(entries):
        assert verify(entries).verdict == "sound"
        listed = list_entries(entries)[0]
        assert {s.entry_id for s in listed if s.kind == "artifact"} == filed.keys()
        for summary in listed:
            assert entries.read(lambda v, s=summary: v.path_of(s.section, s.entry_id)) == summary.path
        for fit_key in {keys[number] for number in filed.values()}:
            newest = max((s.created, s.entry_id) for s in listed if s.fit_key == fit_key and s.kind == "artifact")
            assert entries.find_artifact_of_fit(fit_key).entry_id == newest[1]
        assert not any(entries.find_artifact(entry_id) for entry_id in removed - filed.keys())


def test_a_record_that_is_replaced_is_found_by_its_new_id_alone(entries):
    old = entries.put_record(record_of(1, 2.0)).entry_id
    new = entries.put_record(record_of(1, 1.0)).entry_id

    assert entries.find_key_of_record(new) == exact_key_of(1)
    assert entries.find_key_of_record(old) is None
    assert verify(entries).verdict == "sound"


def test_a_file_of_the_entry_format_before_is_refused_by_both_versions_and_not_changed(tmp_path, path):
    with closing(EntryStore(path)):
        pass
    with h5py.File(path, "r+") as h5:
        h5.attrs["format_version"] = np.int64(1)
    before = path.read_bytes()

    with pytest.raises(OlderFormat, match="entry format 1, this version of gamwarm supports 2 or later"):
        gamwarm.open(path)
    assert path.read_bytes() == before


# -- what a look-up reads
# ----------------------------------------------------------------------------------------------


class CountingDisk(vfs.Disk):
    """Counts what is read."""

    def __init__(self):
        super().__init__()
        self.nbytes = 0

    def pread(self, fd, count, offset):
        data = super().pread(fd, count, offset)
        self.nbytes += len(data)
        return data

    def readinto(self, fd, buffer, offset):
        count = super().readinto(fd, buffer, offset)
        self.nbytes += count
        return count


def bytes_read(path, monkeypatch, look):
    with closing(EntryStore(path, mode="r")) as entries:
        len(entries)
        disk = CountingDisk()
        monkeypatch.setattr(vfs, "DISK", disk)
        assert look(entries) is not None
        monkeypatch.undo()
        return disk.nbytes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of 40 and 2,000 fits of one model, all pinned, every tenth under a strict key of its
    own.
    """
    made = {}
    for count in (40, 2000):
        path = made[count] = tmp_path_factory.mktemp("sizes") / f"{count}.h5"
        with closing(EntryStore(path)) as entries, entries.transaction():
            for n in range(count):
                width = 3 if n % 10 else 4 + n % 40
                entries.put_artifact(artifact_of(value=float(n), width=width, raw_width=60, n_rows=9 if n else 99))
                entries.put_record(record_of(n))
            with entries.editing() as editor:
                for section in KINDS:
                    editor.set_pins(section, editor.index.ids(section))
    return made


@pytest.mark.parametrize("how", ["strictly", "structurally", "partially", "artifact by id", "record by id"])
def test_a_look_up_reads_as_much_of_a_file_fifty_times_as_large(files, monkeypatch, how):
    read = {}
    for count, path in files.items():
        with closing(EntryStore(path, mode="r")) as entries:
            ids = {summary.section: summary.entry_id for summary in list_entries(entries)[0]}
        own = artifact_of(width=3, raw_width=60)
        look = {
            "strictly": lambda entries, own=own: entries.find_parent(Wanted(own.descriptor.key, None)),
            "structurally": lambda entries, own=own: entries.find_parent(Wanted("0" * 64, own.structural_key, 17)),
            "partially": lambda entries: entries.find_parent(Wanted("0" * 64, None, 3, related_to("s(x)"))),
            "artifact by id": lambda entries, ids=ids: entries.find_artifact(ids["fit_artifacts"]),
            "record by id": lambda entries, ids=ids: entries.find_key_of_record(ids["block_records"]),
        }[how]
        read[count] = bytes_read(path, monkeypatch, look)

    # A few more pages: the tables of names grow by a level.
    assert read[2000] <= read[40] + 16 * 4096, read
    assert read[2000] < Path(files[2000]).stat().st_size / 20


def test_the_golden_file_has_the_index_that_its_entries_say(tmp_path):
    path = shutil.copy(Path(__file__).resolve().parents[1] / "data" / "store-format-2.h5", tmp_path / "golden.h5")
    with closing(EntryStore(path, mode="r")) as entries:
        assert verify(entries).verdict == "sound"
