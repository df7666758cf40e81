"""An archive is verified on its own, and changed entries are named."""

from __future__ import annotations

import json
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np
import pytest
from rocrate.rocrate import ROCrate

import gamwarm
from gamwarm.archive import Creator, export_archive, import_archive, verify_archive
from gamwarm.errors import NewerFormat, NotAStore, StoreDamaged, StoreError, StoreNotFound
from tests.support import crafted
from tests.support.stores import artifact_of, carrier_fit, record_of, result_of

ROOT = Path(__file__).resolve().parents[2]
SAID: dict[str, Any] = {
    "title": "Flüge",
    "creators": [Creator("Ada Lovelace", "https://orcid.org/0000-0002-1825-0097"), "Charles Babbage"],
    "license": "CC-BY-4.0",
}


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as opened:
        opened.put_record(record_of(1, 1.0, attributes={"job": 7}))
        opened.put_record(record_of(1, 2.0, kind="checkpoint", active_sets=[[0, 2], None]))
        opened.put_artifact(artifact_of())
        problem = carrier_fit()
        width = sum(problem.block_dims)
        seeds = gamwarm.GroupSeeds(
            "carrier", ["AA", "ü"], np.zeros((2, 2)), np.full((2, width), 0.5), np.ones((2, 2, 2))
        )
        with opened.fit(problem) as fit:
            assert fit.keep(result_of(problem, seeds=seeds)).artifact.written
    return path


@pytest.fixture
def archive(store, tmp_path):
    export_archive(store, tmp_path / "archive.h5", **SAID)
    return tmp_path / "archive.h5"


def test_a_intact_archive_is_found_so_and_says_who_made_it(archive):
    report = verify_archive(archive)

    assert report.ok
    assert report.problems == ()
    assert report.entries == 5
    assert (report.title, report.license) == ("Flüge", "CC-BY-4.0")
    assert report.creators == ("Ada Lovelace", "Charles Babbage")


def test_it_is_checked_on_read_only_media_and_leaves_nothing_next_to(archive):
    archive.chmod(0o444)
    before = set(archive.parent.iterdir())

    assert verify_archive(archive).ok
    assert set(archive.parent.iterdir()) == before


def test_progress_can_end_the_check(archive):
    seen: list[tuple[int, int]] = []

    assert verify_archive(archive, lambda done, total: seen.append((done, total))).ok
    assert seen == [(n, 5) for n in range(6)]
    assert not verify_archive(archive, lambda done, total: done < 2).ok


def tampered(archive: Path, change: Any) -> list[str]:
    with h5py.File(archive, "r+") as h5:
        change(h5)
    report = verify_archive(archive)
    assert not report.ok
    return [str(problem) for problem in report.problems]


def test_a_changed_coefficient_names_its_entry(archive):
    def change(h5: h5py.File) -> None:
        group = h5["block_records"][record_of(1).key]
        beta = group.attrs["beta"]
        beta[0] += 1e-9
        group.attrs.modify("beta", beta)

    problems = tampered(archive, change)

    assert any(record_of(1).key in problem and "digest" in problem for problem in problems)


def test_an_entry_resealed_after_a_change_is_found_by_the_manifest(archive):
    """Digests are against accidents, but the manifest is one more place that would have to be
    changed.
    """

    def change(h5: h5py.File) -> None:
        from gamwarm.encoding.codec import seal_of

        group = h5["block_records"][record_of(1).key]
        meta = json.loads(group.attrs["meta"])
        meta["created"] += 1
        text = json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        arrays = {name: np.asarray(group.attrs[name]) for name in group.attrs if name not in ("meta", "seal")}
        seal = seal_of("block_records", record_of(1).key, text.encode(), arrays)
        for name, value in (("meta", text), ("seal", seal)):
            del group.attrs[name]
            group.attrs.create(name, value, dtype=h5py.string_dtype("utf-8", len(value.encode())))

    problems = tampered(archive, change)

    assert any(record_of(1).key in p and "changed after the export" in p for p in problems)


def test_a_removed_and_an_added_entry_are_named(archive):
    def remove(h5: h5py.File) -> None:
        h5.copy(h5["block_records"][record_of(1).key], h5["block_records"], record_of(3).key)
        del h5["fit_artifacts"][artifact_of().descriptor.key]

    problems = tampered(archive, remove)

    assert any(artifact_of().descriptor.key in p and "does not hold it" in p for p in problems)
    assert any(record_of(3).key in p for p in problems)


@pytest.mark.parametrize("name", ["manifest", "ro-crate-metadata.json", "file-format.md"])
def test_a_changed_text_is_named(archive, name):
    def change(h5: h5py.File) -> None:
        text = h5["archive"][name][()]
        text[-2] ^= 1
        h5["archive"][name][...] = text

    assert any(name in problem for problem in tampered(archive, change))


def test_any_flipped_byte_is_found(archive):
    whole = archive.read_bytes()
    positions = [*range(0, 512, 7), *random.Random(1).sample(range(512, len(whole)), 60), len(whole) - 1]
    missed = []
    for position in positions:
        image = bytearray(whole)
        image[position] ^= 0x20
        archive.write_bytes(image)
        try:
            if verify_archive(archive).ok:
                missed.append(position)
        except StoreError:
            continue

    assert missed == []


def test_a_truncated_archive_is_refused_by_name(archive):
    archive.write_bytes(archive.read_bytes()[:5000])

    with pytest.raises(StoreDamaged, match=r"archive\.h5"):
        verify_archive(archive)


def test_a_damaged_archive_is_not_imported_and_the_error_names_the_entry(archive, tmp_path):
    tampered(archive, lambda h5: h5["block_records"][record_of(1).key].attrs.modify("rho", [9.0, 9.0]))

    with pytest.raises(StoreDamaged, match="changed after the export") as caught:
        import_archive(archive, tmp_path / "target.h5")

    assert any(record_of(1).key in problem for problem in caught.value.details["problems"])
    assert not (tmp_path / "target.h5").exists()


def test_what_is_no_archive_is_refused(store, tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with h5py.File(tmp_path / "plain.h5", "w"):
        pass

    for name, error, says in (
        ("fits.h5", NotAStore, "not an archive"),
        ("text.h5", NotAStore, "not HDF5"),
        ("plain.h5", NotAStore, "another program"),
        ("missing.h5", StoreNotFound, "no such file"),
        (".", NotAStore, "not a regular file"),
    ):
        with pytest.raises(error, match=says):
            verify_archive(tmp_path / name)


def test_an_archive_of_a_newer_format_is_refused(archive):
    with h5py.File(archive, "r+") as h5:
        h5["archive"].attrs.modify("archive_format", 2)

    with pytest.raises(NewerFormat, match="upgrade gamwarm"):
        verify_archive(archive)


def test_damaged_entries_of_the_store_are_left_out_and_listed(store, tmp_path):
    with h5py.File(store, "r+") as h5:
        h5["block_records"][record_of(1).key].attrs.modify("rho", [9.0, 9.0])

    report = export_archive(store, tmp_path / "out.h5", **SAID)

    assert [problem.place for problem in report.problems] == [f"/block_records/{record_of(1).key}"]
    assert report.entries == 4
    assert verify_archive(tmp_path / "out.h5").ok


# -- read by others --------------------------------------------------------------------------------


def run_reader(archive: Path) -> subprocess.CompletedProcess[str]:
    """Run the stand-alone reader where gamwarm cannot be imported."""
    program = (
        "import runpy, sys\n"
        "class Never:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('gamwarm', 'scipy', 'filelock'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Never())\n"
        f"sys.argv = ['read_archive.py', {str(archive)!r}]\n"
        f"runpy.run_path({str(ROOT / 'docs' / 'read_archive.py')!r}, run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True)


def test_the_stand_alone_reader_needs_no_gamwarm(archive):
    said = run_reader(archive)

    assert said.stderr == ""
    assert said.returncode == 0
    assert said.stdout.startswith("Flüge: 5 entries\n")
    assert "mean carrier (40)" in said.stdout


def test_the_stand_alone_reader_names_what_was_changed(archive):
    tampered(archive, lambda h5: h5["block_records"][record_of(1).key].attrs.modify("rho", [9.0, 9.0]))

    said = run_reader(archive)

    assert said.returncode == 1
    assert f"PROBLEM block_records/{record_of(1).key}" in said.stdout


def test_the_stand_alone_reader_finds_what_gamwarm_stored(archive):

    reader = runpy.run_path(str(ROOT / "docs" / "read_archive.py"))
    _, entries, problems = reader["read_archive"](archive)
    by_place = {place: (meta, vectors) for place, meta, vectors in entries}
    with gamwarm.open(archive, "r") as opened:
        record = opened.get_record(record_of(1).key)
        artifact = opened.get_artifact(artifact_of().descriptor.key)

    meta, vectors = by_place[f"block_records/{record.key}"]
    betas = reader["coefficients_of"](meta, vectors)
    assert problems == []
    assert list(betas) == list(record.block_names)
    for read, kept in zip(betas.values(), record.block_beta, strict=True):
        np.testing.assert_array_equal(read, kept)
    np.testing.assert_array_equal(vectors["rho"], record.rho)
    (pair,) = [pair for place, pair in by_place.items() if artifact.descriptor.key in place]
    np.testing.assert_array_equal(reader["coefficients_of"](*pair)["s(x)"], artifact.terms[0].raw_beta)
    assert [place for place, (_, vectors) in by_place.items() if "seeds" in vectors]


def test_the_stand_alone_reader_stays_short():
    assert len((ROOT / "docs" / "read_archive.py").read_text().splitlines()) <= 150


def test_the_format_page_inside_is_the_one_of_the_docs(archive):
    with h5py.File(archive, "r") as h5:
        assert h5["archive/file-format.md"][()].tobytes().decode() == (ROOT / "docs/file-format.md").read_text()


def test_the_crate_next_to_is_read_by_the_rocrate_library(store, tmp_path):
    folder = tmp_path / "crate"
    folder.mkdir()
    export_archive(store, folder / "fits.h5", crate_beside=True, **SAID)

    crate = ROCrate(folder)

    assert crate.name == "Flüge"
    assert crate.root_dataset["license"]["name"] == "CC-BY-4.0"
    assert crate.root_dataset["license"].id == "https://spdx.org/licenses/CC-BY-4.0"
    assert [person["name"] for person in crate.creator] == ["Ada Lovelace", "Charles Babbage"]
    assert crate.creator[0].id == "https://orcid.org/0000-0002-1825-0097"
    file = crate.get("fits.h5")
    assert file["contentSize"] == str((folder / "fits.h5").stat().st_size)
    assert {each["name"] for each in crate.root_dataset["mentions"]} == {"gamwarm", "tests"}
    with pytest.raises(StoreError, match="exists already"):
        export_archive(store, folder / "other.h5", crate_beside=True, **SAID)


@pytest.mark.parametrize("name", ["my fits.h5", "100 %.h5", "a#b?c.h5", "größe é.h5", "x:y.h5", "[1] & 2.h5"])
def test_a_file_of_any_name_is_named_by_a_uri_reference(store, tmp_path, name):
    folder = tmp_path / "crate"
    folder.mkdir()
    export_archive(store, folder / name, crate_beside=True, **SAID)

    graph = json.loads((folder / "ro-crate-metadata.json").read_text("utf-8"))["@graph"]
    (given,) = [entity["@id"] for entity in graph if entity["@type"] == "File"]

    assert re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=@%-]+", given)
    assert unquote(given) == name
    assert urlsplit(given).path == given
    assert ROCrate(folder).get(given)["encodingFormat"] == "application/x-hdf5"


def test_a_person_named_twice_is_one_entity(store, tmp_path):
    people = ["Ada <0000-0002-1825-0097>", "A. Lovelace <https://orcid.org/0000-0002-1825-0097>", "Bob", "Bob"]
    folder = tmp_path / "crate"
    folder.mkdir()
    export_archive(store, folder / "fits.h5", crate_beside=True, **SAID | {"creators": people})

    graph = json.loads((folder / "ro-crate-metadata.json").read_text("utf-8"))["@graph"]
    ids = [entity["@id"] for entity in graph]

    assert len(ids) == len(set(ids))
    assert [entity["name"] for entity in graph if entity["@type"] == "Person"] == ["Ada", "Bob"]


def test_the_crate_inside_is_read_by_the_rocrate_library(archive, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    with h5py.File(archive, "r") as h5:
        (folder / "ro-crate-metadata.json").write_bytes(h5["archive/ro-crate-metadata.json"][()].tobytes())

    assert ROCrate(folder).name == "Flüge"


STRANGE = ("<f4 (2,)", "i1 (7000,)", ">f8 (2,)", "<f8 (2, 1, 1, 2)", "vlen strings", "bomb", "dataset outside")
STRANGE += ("virtual dataset", "external link", "soft link", "dataset of 2**40 numbers", "unknown filter", "null space")


@pytest.mark.parametrize("what", STRANGE)
def test_the_stand_alone_reader_refuses_values_of_other_forms_in_text(archive, what):
    reader = runpy.run_path(str(ROOT / "docs" / "read_archive.py"))
    place = next(place for place in crafted.stored_values(archive) if place[1] == "rho")
    with h5py.File(archive, "r+") as h5:
        crafted.replace(h5, place, dict(crafted.replacements())[what])

    with pytest.raises((TypeError, ValueError), match="rho"):
        reader["read_archive"](archive)
