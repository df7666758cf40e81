"""One folder behind two FUSE mounts that cache apart: what either client acknowledges is there, in
a sound file.
"""

from __future__ import annotations

import pytest

import gamwarm
from tests.support import shared_mounts as clients
from tests.support import torture, torture_worker

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(clients.why_not()), reason=f"needs two bindfs mounts: {clients.why_not()}"),
]
KEEPING = ("-o", "kernel_cache")
"""A client that keeps the pages of a file when it is opened."""


@pytest.fixture
def mounts(tmp_path, request):
    with clients.bindfs_mounts(tmp_path, *getattr(request, "param", ())) as mounted:
        yield mounted


@pytest.mark.parametrize("mounts", [(), KEEPING], indirect=True, ids=["default caches", "caches kept at open"])
@pytest.mark.parametrize("lock", ["flock", "soft"])
def test_two_clients_that_take_turns_lose_nothing(mounts, lock):
    assert clients.alternate(mounts, 12, lock=lock) == {"acknowledged": 24}


def test_a_client_that_trusts_what_it_has_kept_would_be_noticed(mounts):
    counts = clients.alternate(mounts, 12, lock="flock", road="local")
    assert counts != {"acknowledged": 24}


def test_a_file_that_the_other_client_has_removed_is_made_again_next_to_open_handles_on_it(mounts):
    here, there = (mount / "fits.h5" for mount in mounts)
    with gamwarm.open(here, on_error="raise") as store, gamwarm.open(there, on_error="raise") as kept:
        store.put_record(torture_worker.paired_record(0, 0))
        assert len(list(kept.keys())) == 1
        here.unlink()
        with gamwarm.open(there, on_error="raise") as anew:
            assert anew.put_record(torture_worker.paired_record(0, 1)).written
        for each in (store, kept):
            assert len(list(each.keys())) == 1


@pytest.mark.parametrize("lock", ["flock", "soft"])
def test_writers_and_readers_on_both_mounts_survive_kills(mounts, lock):
    counts = clients.storm(mounts, seconds=5, seed=3, lock=lock)
    assert counts["kills"] >= 4
    assert counts["acknowledged"] > 5


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lock", ["flock", "soft"])
def test_a_hundred_alternations_and_a_storm_of_minutes(mounts, tmp_path, lock):
    assert clients.alternate(mounts, 100, lock=lock) == {"acknowledged": 200}
    with clients.bindfs_mounts(clients.fresh(tmp_path / "storm")) as others:
        print(dict(clients.storm(others, seconds=300, seed=11, lock=lock)))


def test_the_torture_script_takes_mounts(mounts, capsys, monkeypatch):
    monkeypatch.setattr(torture, "STORM_SECONDS", 1)
    assert torture.main(["--rounds", "1", "--seed", "5", "--mounts", *map(str, mounts)]) == 0
    assert "storm: kills" in capsys.readouterr().out


def test_the_torture_script_refuses_folders_that_are_not_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clients, "PATIENCE_FOR_NAMES", 0.1)
    folders = [clients.fresh(tmp_path / name) for name in "ab"]
    assert torture.main(["--rounds", "1", "--mounts", *map(str, folders)]) == 1
    assert "not mounts of one folder" in capsys.readouterr().err
