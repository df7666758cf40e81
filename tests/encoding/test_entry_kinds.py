"""A kind of entry is declared in one place; the file, the lists and maintenance know it by that
alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm.archive import Creator, Selection, export_archive, import_archive, verify_archive
from gamwarm.encoding import entry_kind
from gamwarm.encoding.codec import common_fields, common_meta, encoded, split
from gamwarm.encoding.entry_kind import register
from gamwarm.encoding.texts import is_count, list_of
from gamwarm.entries import KINDS, RECORD, BufferedEntries, EntryKind, EntryStore, list_entries
from gamwarm.formats import ENTRY
from gamwarm.maintenance import compact, evict, merge, verify
from tests.support.command import Runner
from tests.support.stores import artifact_of, record_of


@dataclass(frozen=True)
class Toy:
    """A few numbers under the key of a fit."""

    key: str
    rho: list[float]
    created: int | None = None
    producer: gamwarm.Producer | None = None
    lineage: gamwarm.Lineage | None = None
    cost: gamwarm.Cost | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    rho_bound: float = 10.0


def encode_toy(toy):
    meta = {
        **common_meta(toy),
        "entry": "toy",
        "parts": [len(toy.rho)],
        "n_rows": 1,
        "n_outer": len(toy.rho),
        "objective": None,
        "converged": True,
        "curvature": None,
    }
    return encoded("toys", toy.key, meta, {"rho": np.array(toy.rho)})


def decode_toy(entry):
    (rho,) = split(entry.arrays.get("rho"), entry.meta["parts"])
    return Toy(entry.key, rho.tolist(), **common_fields(entry.meta))


TOY = EntryKind(
    name="toy",
    section="toys",
    since=ENTRY.current + 1,
    value=Toy,
    labels=("toy",),
    key_prefix="toy-",
    key_digits=8,
    key_of=lambda toy: toy.key,
    readme="Toys.",
    fields={"parts": list_of(is_count)},
    refusal=lambda toy: (toy, None if toy.rho else "it has no numbers"),
    encode=encode_toy,
    decode=decode_toy,
    describe=lambda key, meta: {"kind": "toy", "blocks": (), "width": sum(meta["parts"]), "reduced_width": 0},
)


def newest(entries, keep_last):
    return sorted(entries, key=lambda e: (e.created, e.entry_id), reverse=True)[:keep_last]


@pytest.fixture(params=["side by side", "competing"])
def toys(request, monkeypatch):
    """Declare the toy kind for one test."""
    kinds = dict(KINDS)
    kind = TOY if request.param == "side by side" else replace(TOY, retain=newest, unite=newest)
    yield register(kind)
    KINDS.clear()
    KINDS.update(kinds)


def toy(number=1, **changes):
    return Toy(**{"key": f"toy-{number:08x}", "rho": [0.5, float(number)], "attributes": {"job": "7"}} | changes)


@pytest.fixture
def path(toys, tmp_path):
    """Return a file with a record, an artifact and two toys."""
    path = tmp_path / "fits.h5"
    store = EntryStore(path)
    for entry in (record_of(), artifact_of(), toy(1), toy(2)):
        assert store.put(entry).written
    store.close()
    return path


def toys_in(path):
    store = EntryStore(path, mode="r")
    try:
        return [summary for summary in list_entries(store)[0] if summary.kind == "toy"]
    finally:
        store.close()


def test_a_declared_kind_is_stored_listed_verified_compacted_pinned_and_evicted(path, capsys, monkeypatch):
    command = Runner(capsys, monkeypatch)
    store = EntryStore(path)
    assert store.put(toy(1)).reason.startswith("unchanged")
    assert store.put(toy(1, rho=[])).reason == "it has no numbers"
    report = verify(store)
    assert (report.entries, report.problems) == (4, ())
    assert compact(store).entries == 4
    assert verify(store).problems == ()
    pinned = toys_in(path)[0]
    assert store.pin(pinned.entry_id)
    assert store.read(lambda view: view.all_pins()) == {pinned.entry_id}
    evict(store, size_budget=0)
    store.close()

    assert [summary.key for summary in toys_in(path)] == [pinned.key]
    (row,) = command("ls", path, "--kind", "toy", "--json").json_lines
    assert (row["key"], row["kind"], row["valid"], row["attributes"]) == (pinned.key, "toy", True, {"job": "7"})
    assert "toy" in command("ls", path).out
    for text in (pinned.key, pinned.key[:10], pinned.entry_id[:8]):
        ended = command("show", path, text, "--json")
        assert ended.code == 0, ended.err
        assert ended.json[0]["entry_id"] == pinned.entry_id


def test_two_entries_of_a_key_compete_or_stay_unchanged_declared(path, toys):
    store = EntryStore(path)
    store.put(toy(1, rho=[3.0]))
    store.close()

    assert len([summary for summary in toys_in(path) if summary.key == "toy-00000001"]) == (1 if toys.competes else 2)


def test_a_declared_kind_waits_in_an_independent_store(toys, tmp_path):
    store = BufferedEntries(tmp_path / "fits.h5", flush_seconds=60.0, flush_entries=60)
    outcome = store.put(toy(1))
    assert (outcome.pending, len(store), store.entry_ids()) == (True, 1, {outcome.entry_id})
    store.flush()

    assert (outcome.written, len(store), store.entry_ids()) == (True, 1, {outcome.entry_id})
    store.close()


def test_a_declared_kind_is_merged_exported_and_imported(path, tmp_path):
    other = EntryStore(tmp_path / "other.h5")
    assert len(merge(other, path).added) == 4
    assert verify(other).problems == ()
    other.close()
    chosen = Selection(kinds=["toy"])
    export_archive(path, tmp_path / "a.h5", title="t", creators=[Creator("A")], license="MIT", select=chosen)
    assert (verify_archive(tmp_path / "a.h5").entries, verify_archive(tmp_path / "a.h5").problems) == (2, ())
    assert len(import_archive(tmp_path / "a.h5", tmp_path / "b.h5").added) == 2

    for file in ("other.h5", "a.h5", "b.h5"):
        assert [s.entry_id for s in toys_in(tmp_path / file)] == [s.entry_id for s in toys_in(path)]


def test_a_damaged_entry_of_a_declared_kind_is_listed_and_the_others_stay_readable(path):
    with h5py.File(path, "r+") as file:
        keys = list(file["toys"])
        group = file["toys"][keys[0]]
        entry = group if "meta" in group.attrs else next(iter(group.values()))
        meta = json.loads(entry.attrs["meta"]) | {"parts": "many"}
        entry.attrs["meta"] = np.bytes_(json.dumps(meta))
    store = EntryStore(path)
    report = verify(store)
    store.close()

    assert len(report.problems) == 1
    assert report.problems[0].place.startswith("/toys/toy-")


def test_a_version_that_does_not_know_the_kind_refuses_the_file_and_reads_one_without_its_entries(path, toys, tmp_path):
    without = tmp_path / "without.h5"
    EntryStore(without).close()
    del KINDS[toys.section]

    gamwarm.open(without).close()
    with pytest.raises(gamwarm.NewerFormat, match=r"entry format 3, .* up to 2"):
        EntryStore(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"section": RECORD.section}, "is declared by kind 'record'"),
        ({"labels": ("toy", "final")}, "is declared by kind 'record'"),
        ({"labels": ()}, "labels"),
        ({"readme": ""}, "readme"),
        ({"retain": newest}, "retain and unite"),
        ({"optional": frozenset({"seeds"})}, "optional"),
        ({"value": int}, "value has no"),
    ],
)
def test_a_kind_that_is_not_wholly_declared_is_refused_at_once(change, complaint):
    with pytest.raises(TypeError, match=complaint):
        register(replace(TOY, **change))
    assert "toys" not in KINDS


def test_a_kind_that_leaves_something_out_cannot_even_be_made():
    with pytest.raises(TypeError, match="describe"):
        EntryKind(
            **{name: value for name, value in vars(TOY).items() if name not in ("describe", "is_key", "key_pattern")}
        )


def test_every_kind_and_every_field_of_its_text_is_in_the_format_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "file-format.md").read_text()

    for kind in KINDS.values():
        assert any(f"Of {article} **{kind.name}** (in `/{kind.section}`" in page for article in ("a", "an"))
        assert [name for name in kind.fields if f"`{name}`" not in page] == []


def test_every_module_of_a_kind_is_imported_with_the_package():
    modules = {path.name.removesuffix("_kind.py") for path in Path(entry_kind.__file__).parent.glob("*_kind.py")}

    assert modules - {"entry"} == {kind.name for kind in KINDS.values()}
