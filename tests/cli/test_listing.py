"""`gamwarm ls`: which entries, in which order, how many, and how few are read for a first page."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import h5py
import pytest

import gamwarm
from gamwarm.cli import listing
from gamwarm.entries.layout import FileView
from tests.support.stores import artifact_of, record_of


def keys_of(ended):
    return [row["key"] for row in ended.json_lines]


def test_every_entry_is_listed_newest_first(gamwarm_command, stored):
    ended = gamwarm_command("ls", stored.path, "--json")

    assert ended.code == 0
    rows = ended.json_lines
    assert len(rows) == 9
    assert [row["created"] for row in rows] == sorted((row["created"] for row in rows), reverse=True)
    assert {row["kind"] for row in rows} == {"final", "checkpoint", "artifact"}
    assert all(row["valid"] for row in rows)


def test_the_oldest_first_and_as_stored_hold_the_same_entries(gamwarm_command, stored):
    newest, oldest, file = (
        gamwarm_command("ls", stored.path, "--json", "--sort", s) for s in ("newest", "oldest", "file")
    )

    assert oldest.json_lines == newest.json_lines[::-1]
    assert sorted(r["entry_id"] for r in file.json_lines) == sorted(r["entry_id"] for r in newest.json_lines)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--kind", "final"], 4),
        (["--kind", "artifact"], 4),
        (["--kind", "checkpoint"], 1),
        (["--kind", "checkpoint", "--kind", "final"], 5),
        (["--family", "tests.carrier"], 8),
        (["--family", "*carr?er"], 8),
        (["--family", "gaussian"], 0),
        (["--block", "mean carrier"], 8),
        (["--block", "log sigma"], 1),
        (["--block", "mean*"], 9),
        (["--producer", "tests"], 9),
        (["--producer", "tests 1"], 9),
        (["--producer", "tests 2"], 0),
        (["--producer", "gamwarm *"], 9),
        (["--job", "4711"], 1),
        (["--job", "4712"], 0),
        (["--attribute", "host kind=log*"], 1),
        (["--since", "1d"], 9),
        (["--since", "2026-01-01", "--until", "2099-01-01T00:00"], 9),
        (["--until", "2020-01-01"], 0),
        (["--damaged"], 0),
        (["--kind", "artifact", "--family", "tests.*", "--since", "1h", "--limit", "3"], 3),
    ],
)
def test_filters_pick_what_they_say(gamwarm_command, stored, options, count):
    ended = gamwarm_command("ls", stored.path, "--json", *options)

    assert ended.code == 0
    assert len(ended.json_lines) == count


def test_dates_are_utc_moments_of_the_entries(gamwarm_command, stored):
    moment = datetime.fromtimestamp(stored.created[stored.folds[1]] / 1e6, UTC).isoformat()

    later = gamwarm_command("ls", stored.path, "--json", "--since", moment, "--kind", "final")
    earlier = gamwarm_command("ls", stored.path, "--json", "--until", moment, "--kind", "final")

    assert keys_of(later) == [stored.folds[2], stored.folds[1]]
    assert keys_of(earlier) == [stored.folds[0], stored.full]


@pytest.mark.parametrize(
    "options",
    [["--since", "yesterday"], ["--kind", "best"], ["--sort", "size"], ["--limit", "-1"], ["--attribute", "job"]],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(gamwarm_command, stored, options):
    ended = gamwarm_command("ls", stored.path, *options)

    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert options[-1] in ended.err


def test_a_page_says_that_there_is_more(gamwarm_command, stored):
    ended = gamwarm_command("ls", stored.path, "--limit", 4)

    assert len(ended.lines) == 1 + 4
    assert "4 of 9 entries" in ended.err
    assert gamwarm_command("ls", stored.path, "--limit", 0).err == ""


def test_an_empty_file_says_so(gamwarm_command, tmp_path):
    gamwarm.open(tmp_path / "empty.h5").close()

    ended = gamwarm_command("ls", tmp_path / "empty.h5")

    assert ended.code == 0
    assert "no entries yet" in ended.err
    assert gamwarm_command("stats", tmp_path / "empty.h5").code == 0
    assert gamwarm_command("verify", tmp_path / "empty.h5").code == 0


def test_an_entry_that_fails_its_digest_is_listed_as_not_valid(gamwarm_command, stored):
    with h5py.File(stored.path, "r+") as h5:
        h5["block_records"][stored.full].attrs["rho"] = [99.0, 99.0]

    rows = {row["key"]: row for row in gamwarm_command("ls", stored.path, "--json", "--kind", "final").json_lines}
    damaged = gamwarm_command("ls", stored.path, "--damaged")

    assert [key for key, row in rows.items() if not row["valid"]] == [stored.full]
    assert "digest" in rows[stored.full]["problem"]
    assert len(damaged.lines) == 2
    assert re.search(rf"{stored.full[:12]}\s.*\sno\s", damaged.out)


def test_an_artifact_that_may_not_be_a_parent_is_intact_but_unfit(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        assert store.put_artifact(artifact_of(converged=False)).written

    ended = gamwarm_command("ls", tmp_path / "fits.h5")

    assert re.search(r"artifact\s+unfit", ended.out)


MANY = [pytest.param(700, 100), pytest.param(20_000, 500, marks=pytest.mark.long)]


@pytest.fixture
def looked(monkeypatch):
    """Count entries read, and names listed."""
    count = {"read": 0, "summary": 0, "names": 0}
    read, summary, names = FileView.read, FileView.read_summary, FileView.some_names

    def counted_names(self, section, key, number):
        found = names(self, section, key, number)
        count["names"] += len(found or ())
        return found

    monkeypatch.setattr(FileView, "some_names", counted_names)

    def counted_read(self, section, path):
        count["read"] += 1
        return read(self, section, path)

    def counted_summary(self, section, path):
        count["summary"] += 1
        return summary(self, section, path)

    monkeypatch.setattr(FileView, "read", counted_read)
    monkeypatch.setattr(FileView, "read_summary", counted_summary)
    return count


@pytest.mark.parametrize(("records", "sample"), MANY)
def test_a_first_page_and_stats_read_the_same_few_entries_of_a_file_of_any_size(
    gamwarm_command, tmp_path, looked, monkeypatch, records, sample
):
    monkeypatch.setattr(listing, "SAMPLE", sample)
    path = tmp_path / "many.h5"
    with gamwarm.open(path) as store, store.transaction():
        for number in range(records):
            store.put_record(record_of(number))
    looked.update(read=0, summary=0, names=0)

    page = gamwarm_command("ls", path, "--limit", 20, "--json", "--sort", "file")
    after_page = looked["read"] + looked["summary"]
    stats = gamwarm_command("stats", path, "--json")
    after_stats = looked["read"] + looked["summary"] - after_page

    assert len(page.json_lines) == 20
    assert after_page <= 64
    assert stats.json["entries"] == records
    assert stats.json["sampled"] is True
    assert after_stats <= sample + 64
    assert looked["names"] <= 2 * 128 + sample


def test_the_intact_listing_of_a_larger_file_holds_every_entry_once(gamwarm_command, tmp_path):
    path = tmp_path / "many.h5"
    with gamwarm.open(path) as store, store.transaction():
        for number in range(700):
            store.put_record(record_of(number))

    for order in ("file", "newest"):
        keys = keys_of(gamwarm_command("ls", path, "--limit", 0, "--json", "--sort", order))
        assert sorted(keys) == [f"cf-{number:064x}" for number in range(700)]
