"""`verify`, `salvage`, `compact`, `evict`, `pin`, `merge`: effects, messages and exit codes."""

from __future__ import annotations

import signal

import h5py
import pytest

import gamwarm
from gamwarm.cli.output import Watch
from gamwarm.interrupts import deliver
from tests.support.stores import leftovers, record_of


def damage(path, key):
    with h5py.File(path, "r+") as h5:
        h5["block_records"][key].attrs["rho"] = [99.0, 99.0]


def ids(path):
    with gamwarm.open(path, "r") as store:
        return store.entry_ids()


def test_a_sound_file_is_said_to_be_sound_with_the_speed(gamwarm_command, stored):
    ended = gamwarm_command("verify", stored.path)

    assert ended.code == 0
    assert "is sound: 9 entries" in ended.out
    assert "MB/s" in ended.out


def test_a_damaged_file_ends_with_1_and_lists_the_entry(gamwarm_command, stored):
    damage(stored.path, stored.full)

    for options in ([], ["--repair"]):
        ended = gamwarm_command("verify", stored.path, *options)
        told = gamwarm_command("verify", stored.path, "--json", *options).json

        assert ended.code == 1
        assert "damaged" in ended.out
        assert stored.full in ended.out
        assert told["verdict"] == "damaged"
        assert [problem["place"] for problem in told["problems"]] == [f"/block_records/{stored.full}"]


def test_wrong_totals_are_repaired_only_where_that_was_asked_for(gamwarm_command, stored):
    with h5py.File(stored.path, "r+") as h5:
        h5.attrs.modify("n_entries", 5)
    before = stored.path.read_bytes()

    looked = gamwarm_command("verify", stored.path)
    assert looked.code == 1
    assert stored.path.read_bytes() == before

    assert gamwarm_command("verify", stored.path, "--repair").code == 3
    assert gamwarm_command("verify", stored.path).code == 0


def test_ctrl_c_ends_verify_with_130_and_says_how_far_it_was(gamwarm_command, stored, monkeypatch):
    step = Watch.step

    def pressed(self, done, total, nbytes=0):
        if done == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, done, total, nbytes)

    monkeypatch.setattr(Watch, "step", pressed)
    before = signal.getsignal(signal.SIGINT)

    ended = gamwarm_command("verify", stored.path)

    assert ended.code == 130
    assert "3 entries" in ended.err
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_ends_a_listing_with_130(gamwarm_command, stored, monkeypatch):
    def pressed(self, done, total, nbytes=0):
        signal.raise_signal(signal.SIGINT)
        return not self.interrupted

    monkeypatch.setattr(Watch, "step", pressed)

    assert gamwarm_command("ls", stored.path).code == 130


def test_salvage_brings_intact_entries_to_a_new_file_and_lists_the_rest(gamwarm_command, stored, tmp_path):
    whole = ids(stored.path)
    damage(stored.path, stored.full)
    new = tmp_path / "new.h5"

    ended = gamwarm_command("salvage", stored.path, "-o", new, "--json")

    assert ended.code == 1
    assert set(ended.json["copied"]) == ids(new) < whole
    assert len(ended.json["problems"]) == 1
    assert gamwarm_command("verify", new).code == 0


def test_salvage_of_a_sound_file_ends_with_0(gamwarm_command, stored, tmp_path):
    ended = gamwarm_command("salvage", stored.path, "-o", tmp_path / "new.h5")

    assert ended.code == 0
    assert ids(tmp_path / "new.h5") == ids(stored.path)


def test_salvage_of_what_holds_nothing_makes_no_file(gamwarm_command, tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")

    ended = gamwarm_command("salvage", tmp_path / "text.h5", "-o", tmp_path / "new.h5")

    assert ended.code == 7
    assert {path.name for path in tmp_path.iterdir()} == {"text.h5"}


def test_salvage_never_writes_over_a_file(gamwarm_command, stored, tmp_path):
    (tmp_path / "new.h5").write_text("precious")

    assert gamwarm_command("salvage", stored.path, "-o", tmp_path / "new.h5").code == 2
    assert (tmp_path / "new.h5").read_text() == "precious"


def test_a_dry_run_of_evict_changes_nothing_and_names_what_evict_then_removes(gamwarm_command, stored):
    before = stored.path.read_bytes()

    dry = gamwarm_command("evict", stored.path, "--size", "8kB", "--dry-run", "--json").json
    assert stored.path.read_bytes() == before

    done = gamwarm_command("evict", stored.path, "--size", "8kB", "--json").json
    assert dry["dry_run"]
    assert not done["dry_run"]
    assert done["evicted"] == dry["evicted"] != []
    assert done["bytes_after"] <= 8000


def test_evict_wants_to_know_what_may_stay(gamwarm_command, stored):
    assert gamwarm_command("evict", stored.path).code == 2
    assert gamwarm_command("evict", stored.path, "--size", "much").code == 2
    assert gamwarm_command("evict", stored.path, "--max-age", "3 moons").code == 2


@pytest.mark.parametrize(("text", "count"), [("1d", 0), ("0s", 9)])
def test_age_is_written_with_its_unit(gamwarm_command, stored, text, count):
    told = gamwarm_command("evict", stored.path, "--max-age", text, "-n", "--json").json

    assert len(told["evicted"]) == count


def test_a_pinned_parent_stays_and_an_unpinned_one_goes(gamwarm_command, stored):
    assert gamwarm_command("pin", stored.path, stored.parent[:8]).code == 0
    kept = gamwarm_command("evict", stored.path, "--size", "0", "-n", "--json").json["evicted"]
    assert "pinned" in gamwarm_command("show", stored.path, stored.parent).out

    assert gamwarm_command("pin", stored.path, stored.parent, "--off").code == 0
    gone = gamwarm_command("evict", stored.path, "--size", "0", "-n", "--json").json["evicted"]

    assert {e["entry_id"] for e in gone} - {e["entry_id"] for e in kept} == {stored.parent}


def test_compact_gives_back_what_evict_left(gamwarm_command, stored):
    gamwarm_command("evict", stored.path, "--size", "3kB")

    told = gamwarm_command("compact", stored.path, "--json").json

    assert told["bytes_after"] < told["bytes_before"]
    assert stored.path.stat().st_size == told["bytes_after"]


def test_merge_takes_over_several_files_and_again_changes_nothing(gamwarm_command, stored, tmp_path):
    shards = [tmp_path / f"shard-{i}.h5" for i in range(2)]
    for i, shard in enumerate(shards):
        with gamwarm.open(shard) as store:
            store.put_record(record_of(100 + i))
    all_ids = ids(stored.path).union(*map(ids, shards))

    once = gamwarm_command("merge", stored.path, *shards, "--json")
    again = gamwarm_command("merge", stored.path, *shards, "--json")

    assert once.code == again.code == 0
    assert [len(report["added"]) for report in once.json] == [1, 1]
    assert [len(report["added"]) for report in again.json] == [0, 0]
    assert ids(stored.path) == all_ids


def test_merge_makes_a_file_only_when_told(gamwarm_command, stored, tmp_path):
    new = tmp_path / "all.h5"

    assert gamwarm_command("merge", new, stored.path).code == 5
    assert not new.exists()
    assert gamwarm_command("merge", new, stored.path, "--create").code == 0
    assert ids(new) == ids(stored.path)


def test_nothing_but_file_and_lock_remains_next_to_it(gamwarm_command, stored):
    for arguments in (["verify", "--repair"], ["compact"], ["evict", "--size", "8kB"], ["ls"], ["stats"]):
        gamwarm_command(arguments[0], stored.path, *arguments[1:])

    assert leftovers(stored.path) == set()


@pytest.mark.parametrize(
    ("call", "slow"),
    [
        (["compact", "FILE"], "gamwarm.maintenance.compaction.copy_file"),
        (["evict", "FILE", "--size", "0"], "gamwarm.entries.eviction.choose_evictions"),
        (["merge", "FILE", "OTHER"], "gamwarm.entries.editor.EntryEditor.absorb"),
        (["salvage", "FILE", "-o", "NEW"], "gamwarm.entries.editor.EntryEditor.absorb"),
        (["pin", "FILE", "KEY"], "gamwarm.entries.editor.EntryEditor.set_pins"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ctrl_c_in_the_middle_of_a_change_leaves_everything_as_it_was(
    gamwarm_command, stored, tmp_path, monkeypatch, call, slow
):
    with gamwarm.open(tmp_path / "other.h5") as store:
        store.put_record(record_of(50))
    whole, before = ids(stored.path), {path.name for path in tmp_path.iterdir()}

    def pressed(*_, **__):
        signal.raise_signal(signal.SIGINT)
        deliver()  # as the loop that stands here does for every key

    names = {"FILE": stored.path, "OTHER": tmp_path / "other.h5", "NEW": tmp_path / "new.h5", "KEY": stored.parent}
    with monkeypatch.context() as patched:
        patched.setattr(slow, pressed)
        ended = gamwarm_command(*[names.get(each, each) for each in call])

    assert ended.code == 130
    assert ended.err == "gamwarm: ended by Ctrl-C\n"
    assert ids(stored.path) == whole
    assert {path.name for path in tmp_path.iterdir()} == before
    assert gamwarm_command("verify", stored.path).code == 0
