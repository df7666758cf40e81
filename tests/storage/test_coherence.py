"""Two clients of one directory: what they can see of each other, and how a store reacts
that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import gamwarm
from gamwarm.errors import InvalidInput, StoreUnavailable
from gamwarm.storage import coherence, locks
from gamwarm.storage.coherence import Coherence, Safety, meet_peer, try_two
from gamwarm.storage.directory_probe import NOTE, probe, recall, remember
from gamwarm.storage.locks import FlockLock, SoftLock, choose_lock
from gamwarm.storage.vfs import Disk
from tests.support.shared_mounts import bindfs_mounts, why_not

ROOT = Path(__file__).resolve().parents[2]
ALL_WELL = Coherence(flock=True, links=True, kept=True, fresh=True, lost=0)
INCOHERENT = Coherence(flock=True, links=True, kept=False, fresh=False, lost=6)
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def forget_probes(monkeypatch):
    monkeypatch.setattr(locks, "_PROBES", {})
    locks._signature.cache_clear()
    yield
    locks._signature.cache_clear()


@pytest.fixture
def peers_have_two_mounts(monkeypatch):
    monkeypatch.setattr(coherence, "_client_name", lambda place: threading.current_thread().name)


class Stale(Disk):
    """A client that reads what it has read before: through the descriptor (as NFS may), or by path
    (as it must not).
    """

    def __init__(self, *, after_open):
        self._after_open = after_open
        self._paths = {}
        self._read = {}

    def open(self, path, flags, mode=0o666):
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        self._read.pop(fd, None)
        return fd

    def _key(self, fd):
        return self._paths[fd] if self._after_open else fd

    def fstat(self, fd):
        found = super().fstat(fd)
        size = self._read.setdefault(self._key(fd), [found.st_size, None])[0]
        return os.stat_result([*found[:6], size, *found[7:]])

    def pread(self, fd, count, offset):
        known = self._read.setdefault(self._key(fd), [super().fstat(fd).st_size, None])
        if known[1] is None:
            known[1] = super().pread(fd, count, offset)
        return known[1]


class StaleWhileTheSizeIsTheSame(Disk):
    """A client whose cache of a file's bytes is emptied by nothing but a new size."""

    def __init__(self):
        self._read = {}

    def pread(self, fd, count, offset):
        return self._read.setdefault((count, self.fstat(fd).st_size), super().pread(fd, count, offset))


class TestTakingTurns:
    def test_two_clients_that_see_everything_are_safe_and_leave_nothing(self, tmp_path):
        assert try_two(tmp_path, tmp_path) == ALL_WELL
        assert ALL_WELL.safety is Safety.SAFE
        assert list(tmp_path.iterdir()) == []

    def test_a_client_whose_open_descriptors_are_stale_must_reopen(self, tmp_path):
        found = try_two(tmp_path, tmp_path, (Disk(), Stale(after_open=False)))
        assert (found.kept, found.fresh, found.lost) == (False, True, 0)
        assert found.safety is Safety.REOPEN

    def test_a_client_that_is_stale_after_an_open_is_not_safe(self, tmp_path):
        found = try_two(tmp_path, tmp_path, (Disk(), Stale(after_open=True)))
        assert not found.fresh
        assert found.lost
        assert found.safety is Safety.ONE_WRITER

    def test_a_client_that_believes_its_cache_while_the_size_is_the_same_is_not_safe(self, tmp_path):
        found = try_two(tmp_path, tmp_path, (Disk(), StaleWhileTheSizeIsTheSame()))
        assert (found.fresh, found.lost) == (False, 0)
        assert found.safety is Safety.ONE_WRITER

    def test_without_a_lock_that_reaches_the_other_side_nothing_is_safe(self):
        assert Coherence(flock=False, links=False, kept=True, fresh=True, lost=0).safety is Safety.ONE_WRITER
        assert Coherence(flock=False, links=True, kept=True, fresh=True, lost=0).safety is Safety.SAFE

    def test_two_folders_are_not_two_mounts(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        with pytest.raises(StoreUnavailable, match="not another mount"):
            try_two(tmp_path / "a", tmp_path / "b")
        assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.usefixtures("peers_have_two_mounts")
class TestPeers:
    def meet(self, place, one=None):
        disks = one or Disk(), Disk()
        found = {}

        def run(side):
            found[side] = meet_peer(place, side, "word", disks[side], patience=20.0)

        peers = [threading.Thread(target=run, args=(side,)) for side in (0, 1)]
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
        return found

    def test_both_find_the_same_and_leave_nothing(self, tmp_path):
        assert self.meet(tmp_path) == {0: ALL_WELL, 1: ALL_WELL}
        assert list(tmp_path.iterdir()) == []

    def test_what_one_of_them_finds_both_tell(self, tmp_path):
        found = self.meet(tmp_path, Stale(after_open=True))
        assert found[0] == found[1]
        assert found[0].safety is Safety.ONE_WRITER

    def test_a_trial_that_was_killed_does_not_answer_and_does_not_disturb(self, tmp_path):
        debris = tmp_path / f"{coherence.PROBE_PREFIX}word-0123456789abcdef"
        debris.mkdir()
        (debris / "hello-00").write_text("gone")
        assert self.meet(tmp_path) == {0: ALL_WELL, 1: ALL_WELL}
        assert list(tmp_path.iterdir()) == [debris]

    @pytest.mark.parametrize("side", [0, 1])
    def test_one_alone_says_what_to_do(self, tmp_path, side):
        with pytest.raises(StoreUnavailable, match="--peer 1"):
            meet_peer(tmp_path, side, "word", patience=0.3)
        assert list(tmp_path.iterdir()) == []

    def test_two_sides_of_one_mount_are_reported_that_they_are_one_client(self, tmp_path, monkeypatch):
        monkeypatch.setattr(coherence, "_client_name", lambda place: "1 node17")
        refused = []

        def run(side):
            with pytest.raises(InvalidInput, match="both sides are on node17"):
                meet_peer(tmp_path, side, "word", patience=20.0)
            refused.append(side)

        peers = [threading.Thread(target=run, args=(side,)) for side in (0, 1)]
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
        assert sorted(refused) == [0, 1]


def test_debris_of_killed_probes_goes_after_a_while(tmp_path):
    old, young = (tmp_path / f"{coherence.PROBE_PREFIX}{name}" for name in ("old", "young"))
    for place in (old, young):
        place.mkdir()
        (place / "data").touch()
    file = tmp_path / f"{coherence.PROBE_PREFIX}0-a"
    file.touch()
    users = tmp_path / "gamwarm-probe-mine"
    users.touch()
    for path in (old, file, users):
        os.utime(path, (0, 0))
    probe(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, users])


class TestNote:
    @pytest.mark.parametrize("found", [INCOHERENT, Coherence(flock=False, links=True, kept=True, fresh=True, lost=0)])
    def test_what_binds_the_stores_is_noted_and_a_note_that_is_out_of_date_is_removed(self, tmp_path, found):
        assert remember(tmp_path, found)
        assert recall(tmp_path) == found
        assert "gamwarm doctor" in json.loads((tmp_path / NOTE).read_text())["what"]
        assert not remember(tmp_path, ALL_WELL)
        assert recall(tmp_path) is None
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"flock": 1}', "\0" * 10_000])
    def test_a_note_that_no_one_can_read_is_none(self, tmp_path, text):
        (tmp_path / NOTE).write_text(text)
        assert recall(tmp_path) is None

    def test_a_note_is_not_followed_through_a_link_nor_waited_for(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        remember(tmp_path / "elsewhere", INCOHERENT)
        (tmp_path / NOTE).symlink_to(tmp_path / "elsewhere" / NOTE)
        assert recall(tmp_path) is None
        (tmp_path / NOTE).unlink()
        os.mkfifo(tmp_path / NOTE)
        assert recall(tmp_path) is None

    def test_where_flock_does_not_reach_the_others_stores_take_the_soft_lock(self, tmp_path):
        remember(tmp_path, Coherence(flock=False, links=True, kept=True, fresh=True, lost=0))
        assert isinstance(choose_lock(tmp_path / "x.h5", "auto", 0), SoftLock)
        with pytest.raises(StoreUnavailable, match="flock does not exclude"):
            choose_lock(tmp_path / "x.h5", "flock", 0)

    def test_a_file_last_written_under_flock_is_refused_by_a_message_that_leads_out(self, tmp_path):
        path = tmp_path / "x.h5"
        gamwarm.open(path, lock="flock", on_error="raise").close()
        remember(tmp_path, Coherence(flock=False, links=True, kept=True, fresh=True, lost=0))
        for kind in ("auto", "flock", "soft"):
            with pytest.raises(StoreUnavailable, match=r"remove x\.h5\.lock: then lock='auto'"):
                gamwarm.open(path, lock=kind, on_error="raise")
        (tmp_path / "x.h5.lock").unlink()
        gamwarm.open(path, on_error="raise").close()

    def test_a_note_binds_everybody_in_the_directory_whatever_the_umask(self, tmp_path):
        old = os.umask(0o077)
        try:
            tmp_path.chmod(0o755)
            remember(tmp_path, INCOHERENT)
            assert (tmp_path / NOTE).stat().st_mode & 0o777 == 0o644
            tmp_path.chmod(0o750)
            remember(tmp_path, INCOHERENT)
            assert (tmp_path / NOTE).stat().st_mode & 0o777 == 0o640
        finally:
            os.umask(old)

    def test_where_hard_links_do_not_reach_the_others_the_soft_lock_is_refused(self, tmp_path):
        remember(tmp_path, Coherence(flock=True, links=False, kept=True, fresh=True, lost=0))
        assert isinstance(choose_lock(tmp_path / "x.h5", "auto", 0), FlockLock)
        with pytest.raises(StoreUnavailable, match="hard links"):
            choose_lock(tmp_path / "x.h5", "soft", 0)


class TestOneHost:
    @pytest.fixture(autouse=True)
    def not_safe(self, tmp_path):
        remember(tmp_path, INCOHERENT)

    def on(self, monkeypatch, host):
        monkeypatch.setattr(locks, "_host", lambda: host)
        locks._signature.cache_clear()

    def test_another_host_is_refused_while_one_writes_and_may_write_afterwards(self, tmp_path, monkeypatch):
        path = tmp_path / "x.h5"
        self.on(monkeypatch, "node1")
        with gamwarm.open(path, on_error="raise"), gamwarm.open(path, on_error="raise"):
            self.on(monkeypatch, "node2")
            with pytest.raises(StoreUnavailable, match=r"node1 has it open.*gamwarm merge.*remove x\.h5\.lock"):
                gamwarm.open(path, on_error="raise")
            with gamwarm.open(path) as off:
                assert "node1" in off.disabled_reason
            gamwarm.open(path, "r", on_error="raise").close()
            self.on(monkeypatch, "node1")
        self.on(monkeypatch, "node2")
        gamwarm.open(path, on_error="raise").close()

    def test_a_host_that_finds_another_in_its_place_writes_nothing(self, tmp_path, monkeypatch):
        path = tmp_path / "x.h5"
        self.on(monkeypatch, "node1")
        with gamwarm.open(path, on_error="raise") as first:
            (tmp_path / "x.h5.lock").write_text(f"{'pid 1 on node2 since 2026-01-01T00:00:00Z':<159}\n")
            with pytest.raises(StoreUnavailable, match="node2"), first.transaction():
                pass
            (tmp_path / "x.h5.lock").unlink()
            with first.transaction():
                pass

    def test_the_soft_lock_cannot_keep_a_file_to_one_host(self, tmp_path):
        with pytest.raises(StoreUnavailable, match="'flock'"):
            gamwarm.open(tmp_path / "x.h5", lock="soft", on_error="raise")

    @pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
    def test_a_host_of_another_name_is_refused_for_real(self, tmp_path):
        script = """
            import socket, sys, gamwarm
            socket.sethostname("node-of-others")
            try:
                gamwarm.open(sys.argv[1], on_error="raise")
            except gamwarm.StoreError as error:
                print(error)
        """
        command = ["unshare", "--uts", sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x.h5")]
        with gamwarm.open(tmp_path / "x.h5", on_error="raise"):
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
            if "unshare failed" in ended.stderr:
                pytest.skip("this container may not unshare its host name")
            assert "has it open for writing" in ended.stdout


@pytest.mark.fuse
@pytest.mark.skipif(bool(why_not()), reason=why_not())
class TestMounts:
    def test_two_mounts_with_locks_that_reach_each_other_are_safe_with_reopening(self, tmp_path):
        with bindfs_mounts(tmp_path) as mounts:
            found = try_two(*mounts)
            assert (found.flock, found.links, found.fresh, found.lost) == (True, True, True, 0)
            assert found.safety is Safety.REOPEN
            assert probe(mounts[0]).hard_links
            assert probe(mounts[0]).shared
            assert list(mounts[1].iterdir()) == []

    def test_two_mounts_whose_flock_stays_at_home_leave_the_soft_lock(self, tmp_path):
        with bindfs_mounts(tmp_path, "--disable-lock-forwarding") as mounts:
            found = try_two(*mounts)
            assert not found.flock
            assert found.links


TABLE = """\
1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw
2 1 0:40 / {0}/nfs rw,relatime - nfs4 server:/ rw,local_lock=none
3 1 0:41 / {0}/lo\\040cal rw - nfs server:/ rw,nolock
4 2 0:42 / {0}/nfs/scratch rw - xfs /dev/sdb rw
5 1 0:43 / {0}/twice rw - ext4 /dev/sdc rw
6 5 0:44 / {0}/twice rw - lustre mgs:/ rw,flock
"""


class TestMountTable:
    @pytest.fixture
    def tree(self, tmp_path, monkeypatch):
        from gamwarm.storage import directory_probe

        for name in ("nfs/scratch", "nfs-not", "lo cal/deep", "twice"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "table").write_text(TABLE.format(tmp_path))
        monkeypatch.setattr(directory_probe, "_MOUNT_TABLE", tmp_path / "table")
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "file_system", "shared", "flock"),
        [
            ("nfs", "nfs4", True, True),
            ("nfs-not", "ext4", False, True),
            ("nfs/scratch", "xfs", False, True),
            ("lo cal/deep", "nfs", True, False),
            ("twice", "lustre", True, True),
        ],
    )
    def test_the_last_mount_on_the_longest_prefix_counts(self, tree, name, file_system, shared, flock):
        found = probe(tree / name, child=False)
        assert (found.file_system, found.shared, found.flock) == (file_system, shared, flock)

    def test_a_link_leads_to_the_mount_behind_it(self, tree):
        (tree / "link").symlink_to(tree / "nfs")
        assert probe(tree / "link", child=False).file_system == "nfs4"

    def test_without_a_table_the_directory_may_be_shared(self, tree):
        (tree / "table").unlink()
        found = probe(tree)
        assert found.shared
        assert found.coherence == ALL_WELL

    def test_a_probe_takes_less_than_a_second_where_nothing_is_slow(self, tree):
        began = time.process_time()
        probe(tree / "nfs")
        assert time.process_time() - began < 1.0
