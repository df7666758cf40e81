"""Damage anywhere, in children with a time limit: a hang or a segfault is a finding, not the end of
the run.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from gamwarm.entries import EntryStore, layout
from gamwarm.maintenance import verify
from tests.support import crash_simulator as kit
from tests.support import torture_damage as damage
from tests.support.stores import exact_key_of
from tests.support.torture_model import STORE_PRODUCER

pytestmark = pytest.mark.timeout(3000)


@pytest.fixture
def folder(tmp_path):
    damage.fill(tmp_path / "base.h5")
    return tmp_path


def check(outcomes, what):
    print(f"{what}: {sum(outcomes.counts.values())} images, {dict(outcomes.counts)}")
    assert not outcomes.wrong, outcomes.wrong[:20]


def some(spots, number):
    return sorted(random.Random(20261123).sample(list(spots), min(number, len(spots))))


@pytest.mark.parametrize("number", [120, pytest.param(10**9, marks=pytest.mark.long)])
def test_a_flipped_byte_of_an_entry_is_a_miss_of_that_entry_alone(folder, number):
    image = (folder / "base.h5").read_bytes()
    spots = damage.entry_bytes(image, 3)
    outcomes = damage.judge(folder, damage.flips(some(spots, number), random.Random(3)))
    check(outcomes, "bytes of one entry")
    for name, verdict in outcomes.verdicts:
        assert verdict["missing"] == [f"record {exact_key_of(3)}"], (name, verdict)
        assert not verdict["refused"], (name, verdict)
        assert len(verdict["problems"]) == 1, (name, verdict)


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("number", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_a_flipped_byte_anywhere_serves_no_wrong_number_and_takes_at_most_one_entry(folder, number, mode):
    size = (folder / "base.h5").stat().st_size
    outcomes = damage.judge(folder, damage.flips(some(range(size), number), random.Random(4), mode))
    check(outcomes, f"bytes of the file, mode {mode}")
    assert outcomes.counts["missed"] > len(outcomes.verdicts) / 3


def test_a_flipped_byte_of_a_large_block_is_a_miss(tmp_path):
    image = damage.fill(tmp_path / "base.h5", big=True).read_bytes()
    spots = [spot for spot in some(range(len(image)), 200) if spot > 20_000]
    outcomes = damage.judge(tmp_path, damage.flips(spots, random.Random(5)))
    check(outcomes, "bytes of a file of mostly one dataset")
    assert outcomes.counts["missed"] > len(spots) / 2


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_file_cut_at_any_sector_is_refused_or_serves_right_numbers(folder, mode):
    size = (folder / "base.h5").stat().st_size
    outcomes = damage.judge(folder, damage.cuts(size, mode))
    check(outcomes, f"cut files, mode {mode}")


@pytest.mark.parametrize("length", [8, 512, 4096])
def test_zeros_over_any_stretch_serve_no_wrong_number(folder, length):
    size = (folder / "base.h5").stat().st_size
    starts = range(0, size, length) if length > 8 else some(range(0, size, 8), 60)
    jobs = [[f"zeros {start} + {length}", "r", [["fill", start, length]]] for start in starts]
    outcomes = damage.judge(folder, jobs)
    print(dict(outcomes.counts))
    # A stretch of zeros may lie over several entries; what is served must be right all the same.
    assert not [text for text in outcomes.wrong if "entries are missed" not in text], outcomes.wrong[:20]


def test_this_kit_would_notice_a_store_that_does_not_check_its_seals(tmp_path, monkeypatch):
    """Control: HDF5 keeps no checksum of a dataset's bytes; without the seal, changed numbers are
    served.
    """
    path = damage.fill(tmp_path / "base.h5", big=True)
    key = exact_key_of(3)
    with contextlib.closing(EntryStore(path, mode="r")) as store:
        whole = {f"record {key}": store.find_record(key, None).record}
    image = bytearray(path.read_bytes())
    image[image.find(np.full(100, damage.value_of(3)).tobytes()) + 801] ^= 4
    (tmp_path / "bad.h5").write_bytes(image)
    assert damage.verdict_of(tmp_path / "bad.h5", "r", whole)["missing"]

    class Agreeable(bytes):
        def __ne__(self, other):
            return False

        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    monkeypatch.setattr(layout, "seal_of", lambda *_: SimpleNamespace(encode=Agreeable))
    assert damage.verdict_of(tmp_path / "bad.h5", "r", whole)["wrong"]


# -- journals that belong elsewhere ----------------------------------------------------------------


def put_all(path, keys):
    with contextlib.closing(EntryStore(path, producer=STORE_PRODUCER)) as store:
        for key in keys:
            assert store.put_record(damage.victim_record(key)).written


def killed_with_a_journal(path, keys):
    """Files of a run that put these and was killed right after the last acknowledgement."""
    store = EntryStore(path, producer=STORE_PRODUCER)
    for key in keys:
        assert store.put_record(damage.victim_record(key)).written
    files = kit.read_files(path.parent)
    store.container._abandon()
    assert any(name.endswith("-journal") and content for name, content in files.items())
    return files


def shown(path, mode):
    with contextlib.closing(EntryStore(path, mode=mode, producer=STORE_PRODUCER)) as store:
        assert verify(store).ok
        found = {key: store.find_record(exact_key_of(key), None) for key in range(40)}
    for key, stored in found.items():
        assert stored is None or stored.record == damage.victim_record(key), "a wrong number"
    return {key for key, stored in found.items() if stored is not None}


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_journal_of_another_file_changes_nothing(tmp_path, mode, reboot):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    put_all(tmp_path / "one" / kit.NAME, range(5))
    other = killed_with_a_journal(tmp_path / "two" / kit.NAME, range(20, 30))
    shutil.copy(tmp_path / "one" / kit.NAME, tmp_path / "copy.h5")
    (tmp_path / "one" / f"{kit.NAME}-journal").write_bytes(other[f"{kit.NAME}-journal"])
    with kit.boot(b"rebooted" if reboot else None):
        assert shown(tmp_path / "one" / kit.NAME, mode) == set(range(5))


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("behind", [0, 1, 3])
def test_a_journal_next_to_a_restored_backup_gives_one_of_the_two_states_and_no_mixture(tmp_path, mode, reboot, behind):
    """The backup was taken just before the killed run, or some transactions earlier."""
    work = tmp_path / "work"
    work.mkdir()
    path = work / kit.NAME
    put_all(path, range(5))
    backup = path.read_bytes()
    for key in range(behind):
        put_all(path, [10 + key])
    before = set(range(5))
    files = killed_with_a_journal(path, [20, 21, 22])
    killed = before | {10 + key for key in range(behind)} | {20, 21, 22}
    kit.put_files(work, {**files, kit.NAME: backup})
    with kit.boot(b"rebooted" if reboot else None):
        found = shown(path, mode)
        assert found == before or (behind == 0 and found == killed)
        if mode == "a":
            put_all(path, [30])
            assert shown(path, "r") == found | {30}


@pytest.mark.parametrize("reboot", [False, True])
def test_the_journal_of_a_killed_run_with_a_flipped_byte_loses_no_acknowledged_entry_unsaid(tmp_path, reboot):
    """On the same boot the file holds it all already; after a reboot only the frames from the
    damage on can be lost.
    """
    path = tmp_path / kit.NAME
    put_all(path, range(3))
    files = killed_with_a_journal(path, [20, 21, 22])
    journal = files[f"{kit.NAME}-journal"]
    pick = random.Random(8)
    for spot in pick.sample(range(len(journal)), 25):
        changed = bytearray(journal)
        changed[spot] ^= 1 << pick.randrange(8)
        kit.put_files(tmp_path, {**files, f"{kit.NAME}-journal": bytes(changed)})
        with kit.boot(b"rebooted" if reboot else None):
            found = shown(path, "a")
        assert set(range(3)) <= found
        assert found - set(range(3)) in [set(), {20}, {20, 21}, {20, 21, 22}]
        if not reboot:
            assert found == {0, 1, 2, 20, 21, 22}
