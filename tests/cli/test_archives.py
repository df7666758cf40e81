"""`export`, `import`, `report`, and `verify` of an archive."""

from __future__ import annotations

import signal

import h5py
import pytest

import gamwarm
from gamwarm.cli.output import Watch

ABOUT = ["--title", "Fits of a campaign", "--creator", "A. Person", "--creator", "B. Other", "--license", "CC-BY-4.0"]


@pytest.fixture
def archive(gamwarm_command, stored):
    path = stored.path.with_name("archive.h5")
    assert gamwarm_command("export", stored.path, "-o", path, *ABOUT).code == 0
    return path


def ids(path):
    with gamwarm.open(path, "r") as store:
        return store.entry_ids()


def test_an_archive_is_verified_against_its_manifest(gamwarm_command, archive):
    told = gamwarm_command("verify", archive, "--json")
    shown = gamwarm_command("verify", archive)

    assert (told.code, told.json["verdict"], told.json["entries"]) == (0, "sound", 9)
    assert told.json["archive"]["creators"] == ["A. Person", "B. Other"]
    assert "Fits of a campaign" in shown.out
    assert told.json["archive"]["digest"] in shown.out


def test_export_import_export_gives_the_same_bytes(gamwarm_command, archive, stored, tmp_path):
    new, again = tmp_path / "new.h5", tmp_path / "again.h5"

    assert gamwarm_command("import", archive, new).code == 0
    assert gamwarm_command("export", new, "-o", again, *ABOUT).code == 0

    assert ids(new) == ids(stored.path)
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(("options", "entries"), [([], 2), (["--no-lineage"], 1), (["--kind", "final"], 2)])
def test_what_is_selected_comes_with_what_it_started_from(gamwarm_command, stored, tmp_path, options, entries):
    out = tmp_path / "part.h5"

    ended = gamwarm_command(
        "export", stored.path, "-o", out, *ABOUT, "--select", stored.folds[0][:20], *options, "--json"
    )

    assert ended.code == 0
    assert ended.json["entries"] == len(ids(out)) == entries
    assert (stored.parent in ids(out)) == (entries == 2)


def test_a_selection_of_nothing_is_refused_and_writes_nothing(gamwarm_command, stored, tmp_path):
    out = tmp_path / "part.h5"

    ended = gamwarm_command("export", stored.path, "-o", out, *ABOUT, "--select", stored.folds[0], "--kind", "artifact")

    assert ended.code == 2
    assert not out.exists()


def test_an_archive_is_not_written_over_without_being_told(gamwarm_command, stored, archive):
    before = archive.read_bytes()

    assert gamwarm_command("export", stored.path, "-o", archive, *ABOUT).code != 0
    assert archive.read_bytes() == before
    assert gamwarm_command("export", stored.path, "-o", archive, *ABOUT, "--overwrite").code == 0


def test_a_damaged_archive_is_found_out_and_not_imported(gamwarm_command, archive, stored, tmp_path):
    with h5py.File(archive, "r+") as h5:
        h5["block_records"][stored.full].attrs["rho"] = [99.0, 99.0]

    assert gamwarm_command("verify", archive).code == 1
    assert gamwarm_command("import", archive, tmp_path / "new.h5").code == 7
    assert not (tmp_path / "new.h5").exists()


@pytest.mark.parametrize("call", [["compact"], ["evict", "--size", "0"], ["verify", "--repair"]])
def test_an_archive_stays_unchanged(gamwarm_command, archive, call):
    before = archive.read_bytes()

    gamwarm_command(call[0], archive, *call[1:])

    assert archive.read_bytes() == before


def test_ctrl_c_in_an_export_writes_nothing(gamwarm_command, stored, tmp_path, monkeypatch):
    def pressed(self, done, total, nbytes=0):
        signal.raise_signal(signal.SIGINT)
        return not self.interrupted

    monkeypatch.setattr(Watch, "step", pressed)

    assert gamwarm_command("export", stored.path, "-o", tmp_path / "new.h5", *ABOUT).code == 130
    assert not (tmp_path / "new.h5").exists()


def test_a_report_is_one_page_of_the_file(gamwarm_command, stored, tmp_path):
    ended = gamwarm_command("report", stored.path, "-o", tmp_path / "report.html", "--title", "My fits")

    assert ended.code == 0
    assert "My fits" in (tmp_path / "report.html").read_text()


def test_what_an_archive_needs_is_asked_for(gamwarm_command, stored, tmp_path):
    ended = gamwarm_command("export", stored.path, "-o", tmp_path / "new.h5")

    assert ended.code == 2
    assert "--title" in ended.err
