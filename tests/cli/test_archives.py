"""`export`, `import`, `report`, and `verify` of an archive."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import h5py
import pytest

import gamwarm
from gamwarm.cli import archives
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


def test_a_report_replaces_nothing_without_being_told_to(gamwarm_command, stored, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("my own page")

    refused = gamwarm_command("report", stored.path, "-o", page)

    assert refused.code == gamwarm_command("export", stored.path, "-o", page, *ABOUT).code == 10
    assert "exists already; give another path, or add --overwrite" in refused.err
    assert page.read_text() == "my own page"
    for what in (("report",), ("export", *ABOUT)):
        assert "a directory; give the path" in gamwarm_command(what[0], stored.path, "-o", tmp_path, *what[1:]).err
    assert gamwarm_command("report", stored.path, "-o", page, "--overwrite").code == 0
    assert page.read_text().startswith("<!doctype html>")


def test_an_export_to_take_fits_elsewhere_needs_no_words_and_names_what_it_put_there(
    gamwarm_command, stored, tmp_path, monkeypatch
):
    account = SimpleNamespace(pw_gecos="Ada Person,room 7", pw_name="ada")
    monkeypatch.setattr("gamwarm.cli.archives.pwd.getpwuid", lambda uid: account)

    ended = gamwarm_command("export", stored.path, "-o", tmp_path / "new.h5", "--title", "Mine")

    assert ended.code == 0
    assert "not stated: creator, license" in ended.err
    told = gamwarm_command("verify", tmp_path / "new.h5", "--json").json["archive"]
    assert (told["title"], told["creators"], told["license"]) == ("Mine", ["Ada Person"], "none stated")
    assert gamwarm_command("import", tmp_path / "new.h5", tmp_path / "there.h5").code == 0


@pytest.mark.parametrize(("gecos", "name"), [("", "ada"), (",,,", "ada"), (None, "user 7")])
def test_an_account_without_a_name_is_named_by_its_login(monkeypatch, gecos, name):
    def looked_up(uid):
        if gecos is None:
            raise KeyError(uid)
        return SimpleNamespace(pw_gecos=gecos, pw_name="ada")

    monkeypatch.setattr("gamwarm.cli.archives.pwd.getpwuid", looked_up)
    monkeypatch.setattr("gamwarm.cli.archives.os.getuid", lambda: 7)

    assert archives._account() == name


def test_an_import_waits_for_another_writer_as_long_as_it_is_told(gamwarm_command, archive, tmp_path):
    with gamwarm.open(tmp_path / "new.h5") as store, store.transaction():
        began = time.monotonic()
        ended = gamwarm_command("import", archive, tmp_path / "new.h5", "--wait", "0.2")

    assert ended.code == 8
    assert time.monotonic() - began < 9
    assert "give a longer --wait" in ended.err
