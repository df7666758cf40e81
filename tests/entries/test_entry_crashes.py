"""Crash states of the store: complete entries, read through `EntryStore`, after an interruption of
any call.
"""

from __future__ import annotations

import pytest

from tests.support import crash_simulator as kit
from tests.support import torture_states as states

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    return states.record_life(tmp_path_factory.mktemp("life") / "work", seed=20)


def test_the_life_covers_every_kind_of_call_and_of_entry(life):
    assert {op.kind for op in life.recorder.log} == {
        "create", "write", "truncate", "sync", "unlink", "syncdir", "mark", "rename",
    }  # fmt: skip
    last = life.states[-1]
    assert len(life.states) > 8
    assert last.records
    assert last.artifacts
    assert len(last.ids) > len(last.records)


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.long)])
def test_after_a_kill_at_any_call_every_acknowledged_entry_decodes_to_what_was_put(life, tmp_path, thorough):
    counts = states.crash_round(
        life, tmp_path, 1, every=2 if thorough else 12, recoveries=300 if thorough else 10, thorough=thorough
    )
    print(dict(counts))
    assert counts["kill images"] > 50
    assert counts["plain h5py opened"]
    assert counts["plain h5py refused"]
    assert counts["kill images inside recovery"] >= 10


@pytest.mark.parametrize("images", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_after_a_power_loss_every_acknowledged_entry_decodes_to_what_was_put(life, tmp_path, images):
    counts = states.power_round(life, tmp_path, 2, images)
    print(dict(counts))
    assert counts["power loss images"] == images


def test_a_commit_without_its_sync_would_be_noticed_by_this_kit(tmp_path):
    """Control: the acknowledgement without the fdatasync of the journal."""
    control = states.record_life(tmp_path / "control", seed=20, forget_syncs_of=("-journal",))
    wrong = 0
    for seed in range(15):
        try:
            states.power_round(control, tmp_path, seed, 2)
        except kit.Wrong:
            wrong += 1
    assert wrong
