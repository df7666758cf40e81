"""A store next to plain HDF5 handles: acknowledged entries stay, whoever opens the file and
whenever they close it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest

from gamwarm.errors import LockTimeout, StoreDamaged
from gamwarm.storage import foreign, late_close, neighbours
from gamwarm.storage import header as _header
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit
from tests.support.containers import add, beside, names

pytestmark = pytest.mark.timeout(60)

HOLDER = """
import h5py, sys
f = h5py.File(sys.argv[1], "r+")
print("open", flush=True)
sys.stdin.readline()
f.close()
"""


@pytest.fixture
def elsewhere(container, path):
    """A process that has the file open for writing; calling the fixture closes it there."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"

    def close():
        child.communicate("\n", timeout=30)

    close.pid = child.pid
    yield close
    if child.poll() is None:
        close()


def impatient(container: Container) -> None:
    container._lock_timeout = 0.3


class TestAnExclusiveLock:
    def test_a_put_names_the_process_that_has_the_file_open_and_writes_nothing(self, container, path, elsewhere):
        before = path.read_bytes()
        impatient(container)
        started = time.monotonic()
        with pytest.raises(LockTimeout, match=f"pid {elsewhere.pid}.*open for writing") as caught:
            add(container, "a")
        assert time.monotonic() - started >= 0.3
        assert str(elsewhere.pid) in caught.value.details["holder"]
        assert path.read_bytes() == before
        elsewhere()
        add(container, "b")
        assert names(container) == ["b"]

    def test_a_put_waits_and_continues_when_the_handle_is_closed(self, container, path, elsewhere):
        timer = threading.Timer(0.4, elsewhere)
        timer.start()
        add(container, "a")
        timer.join()
        container.close()
        with Container.open(path, mode="r") as again:
            assert names(again) == ["a"]

    def test_a_long_wait_is_said_once(self, container, elsewhere, caplog, monkeypatch):
        monkeypatch.setattr("gamwarm.storage.container.QUIET_SECONDS", 0.05)
        impatient(container)
        with pytest.raises(LockTimeout):
            add(container, "a")
        assert len([record for record in caplog.records if "waiting for pid" in record.message]) == 1

    def test_the_writer_lock_is_free_while_a_put_waits(self, container, path, elsewhere):
        container._lock_timeout = 1.0
        failed: list[LockTimeout] = []

        def put():
            try:
                add(container, "a")
            except LockTimeout as error:
                failed.append(error)

        waiting = threading.Thread(target=put)
        waiting.start()
        time.sleep(0.2)
        with Container.open(path, lock_timeout=0.2) as other, pytest.raises(LockTimeout) as met:
            add(other, "b")
        waiting.join()
        assert f"pid {elsewhere.pid}" in str(met.value)
        assert f"pid {elsewhere.pid}" in str(failed[0])

    @pytest.mark.parametrize("before", [True, False])
    def test_a_handle_of_this_process_counts_too(self, container, path, before):
        if not before:
            add(container, "a")
        impatient(container)
        with h5py.File(path, "r+"), pytest.raises(LockTimeout, match="this process"):
            add(container, "b")
        add(container, "c")
        assert names(container) == [*([] if before else ["a"]), "c"]

    def test_a_rewrite_waits_too(self, container, path, elsewhere):
        impatient(container)
        inode = path.stat().st_ino
        with pytest.raises(LockTimeout, match="open for writing"):
            container.rewrite(lambda old, new: None)
        assert path.stat().st_ino == inode
        assert f"{path.name}-new" not in beside(path)

    def test_reading_and_closing_continue(self, container, path, tmp_path):
        add(container, "a")
        with h5py.File(path, "r+") as plain:
            with Container.open(path) as other:
                assert names(other) == ["a"]
            kit.put(plain, "by hand", np.ones(5))
        assert names(container) == ["a", "by hand"]

    def test_a_killed_writers_file_is_read_and_not_recovered_under_it(self, tmp_path):
        story = kit.record_story(kit.fresh(tmp_path / "work"))
        log = story.recorder.log
        count = max(index for index, op in enumerate(log) if op.kind == "write" and op.offset >= _header.PAGE) + 1
        path = kit.put_files(tmp_path / "image", kit.kill_image(story.recorder, count))
        image = path.read_bytes()
        with open(path, "rb+") as held:
            foreign.fcntl.flock(held, foreign.fcntl.LOCK_EX)
            with Container.open(path) as reader:
                assert reader.read(kit.dump) in story.states
            assert path.read_bytes() == image
        with Container.open(path) as writer:
            assert writer.recovered
            add(writer, "next")

    def test_no_one_opens_the_file_for_writing_inside_a_transaction(self, container, path):
        with container.write() as h5:
            kit.put(h5, "a", np.ones(5))
            with pytest.raises(OSError, match="lock"):
                h5py.File(path, "r+")
            with h5py.File(path, "r") as plain:
                assert list(plain["records"]) == []
        with h5py.File(path, "r+") as plain:
            assert list(plain["records"]) == ["a"]

    def test_a_writer_that_slips_in_before_the_file_changes_is_met(self, container, path, monkeypatch):
        """The shared lock becomes an exclusive one in two steps; between them somebody may open and
        close the file.
        """
        add(container, "a")
        genuine = foreign.Presence.exclude_readers

        def overtaken(self, fd, patience):
            self.leave(fd)
            with h5py.File(path, "r+") as plain:
                kit.put(plain, "by hand", np.ones(5))
            self.show(fd)
            return genuine(self, fd, patience)

        with monkeypatch.context() as patch:
            patch.setattr(foreign.Presence, "exclude_readers", overtaken)
            with pytest.raises(LockTimeout, match="open for writing"):
                add(container, "b")
        assert names(container) == ["a", "by hand"]
        add(container, "c")
        container.close()
        with Container.open(path, mode="r") as again:
            assert names(again) == ["a", "by hand", "c"]

    def test_without_flock_there_is_nothing_to_meet(self, container, path, monkeypatch):
        def refuse(fd, how):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(foreign.fcntl, "flock", refuse)
        presence = foreign.Presence()
        presence.show(0)
        assert not presence.held
        assert presence.exclude_readers(0, 0.0)


class TestALateCloser:
    """Where HDF5's locking is switched off, the handle is not seen before it closes."""

    @staticmethod
    def close_late(path, commits: int, *, closed: bool, shorten: bool = False) -> Container:
        container = Container.open(path, create=kit.lay_out)
        add(container, "old", size=300)
        container._writer.pair.checkpoint()
        late = h5py.File(path, "r+", locking=False)
        for index in range(commits):
            add(container, f"new{index}", size=300)
        if closed:
            container.close()
        late.close()
        if shorten:
            block = path.read_bytes()[: _header.USER_BLOCK + 64]
            os.truncate(path, int.from_bytes(block[_header.USER_BLOCK + 28 :][:8], "little"))
        return container

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("closed", [False, True])
    def test_what_it_takes_back_is_restored_and_said(self, path, closed, mode, caplog):
        container = self.close_late(path, 5, closed=closed)
        with Container.open(path, mode=mode) as again:
            assert names(again) == [*(f"new{index}" for index in range(5)), "old"]
            if mode == "a":
                assert "plain HDF5 closed it" in caplog.text
                assert again.recovered
                add(again, "more")
        container.close()
        if mode == "a":
            with h5py.File(path, "r") as plain:
                assert len(plain["records"]) == 7

    def test_the_open_store_notices_it_too(self, path):
        container = self.close_late(path, 5, closed=False)
        add(container, "more")
        assert len(names(container)) == 7
        container.close()

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_a_file_cut_short_is_restored_from_the_journal(self, path, mode):
        container = self.close_late(path, 5, closed=False, shorten=True)
        with Container.open(path, mode=mode) as again:
            assert len(names(again)) == 6
        container.close()

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_a_file_cut_short_without_a_journal_is_damaged_and_left_alone(self, path, tmp_path, mode):
        self.close_late(path, 5, closed=True, shorten=True)
        image = path.read_bytes()
        with pytest.raises(StoreDamaged, match=r"shortened since the last commit.*salvage"):
            Container.open(path, mode=mode)
        assert path.read_bytes() == image

    def test_an_edit_that_shortens_the_file_is_kept(self, container, path, caplog):
        for index in range(20):
            add(container, f"a{index:02}", size=400)
        container.close()
        size = path.stat().st_size
        with h5py.File(path, "r+") as plain:
            for index in range(19, 5, -1):
                del plain[f"records/a{index:02}"]
        assert path.stat().st_size < size
        for mode in "ra":
            with Container.open(path, mode=mode) as again:
                assert names(again) == [f"a{index:02}" for index in range(6)]
        with Container.open(path) as again:
            add(again, "b")
        assert not caplog.records

    def test_the_superblock_is_written_as_hdf5_writes_it(self, container, path):
        for index in range(3):
            add(container, f"a{index}")
            raw = path.read_bytes()[_header.USER_BLOCK :][: late_close._SUPERBLOCK.size]
            fields = late_close._superblock(raw)
            assert fields is not None
            assert fields[late_close._END_OF_FILE] == path.stat().st_size
            assert late_close._with_end(fields, path.stat().st_size) == raw


def test_an_undisturbed_store_is_not_recovered_without_a_boot_identity(tmp_path):
    path = tmp_path / kit.NAME
    with kit.boot(bytes(8)), Container.open(path, create=kit.lay_out) as container:
        for index in range(3):
            add(container, f"a{index}")
            assert os.path.getsize(neighbours.journal_path(path))
            with Container.open(path) as other:
                add(other, f"b{index}")
                assert not other.recovered
        assert len(names(container)) == 6
        assert not container.recovered


def test_a_file_whose_pages_lag_behind_its_header_is_recovered(tmp_path):
    path = tmp_path / kit.NAME
    container = Container.open(path, create=kit.lay_out)
    before = path.read_bytes()
    add(container, "a")
    after, journal = path.read_bytes(), neighbours.journal_path(path).read_bytes()
    container.close()
    kit.put_files(tmp_path, {kit.NAME: after[:64] + before[64:], f"{kit.NAME}-journal": journal})
    with kit.boot(kit.OTHER_BOOT), Container.open(path) as again:
        assert names(again) == ["a"]
        assert again.recovered
