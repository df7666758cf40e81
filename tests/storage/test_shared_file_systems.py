"""Where other hosts may see the file: a session trusts nothing that was read before, and ends on
the server.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import closing

import pytest

from gamwarm.entries import EntryStore, layout
from gamwarm.errors import StoreDamaged, StoreNotFound, StoreUnavailable
from gamwarm.storage import header as _header
from gamwarm.storage import neighbours, vfs
from gamwarm.storage.container import Container
from tests.storage.test_commit_crashes import crash_points
from tests.storage.test_power_loss import lose_power
from tests.support import crash_simulator as kit
from tests.support.containers import add, names
from tests.support.stores import record_of

pytestmark = pytest.mark.timeout(300)
EVERY = [4, pytest.param(1, marks=pytest.mark.long)]


@pytest.fixture(autouse=True)
def shared():
    with kit.shared():
        yield


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    with kit.shared():
        return kit.record_story(kit.fresh(tmp_path_factory.mktemp("story") / "work"), seed=4)


class Watching(kit.Fast):
    """Keeps count of the descriptors of the store's files, and of what they were opened for."""

    def __init__(self):
        self.open_now: dict[int, str] = {}
        self.opened: list[str] = []
        self.asked: set[int] = set()

    def open(self, path, flags, mode=0o666):
        fd = super().open(path, flags, mode)
        if not path.name.endswith(".lock"):
            self.open_now[fd] = path.name
            self.opened.append(path.name)
        return fd

    def close(self, fd):
        self.open_now.pop(fd, None)
        self.asked.discard(fd)
        super().close(fd)

    def forget(self, fd, count=0):
        self.asked.add(fd)
        super().forget(fd, count)

    def pread(self, fd, count, offset):
        assert fd in self.asked or fd not in self.open_now, "read before the server was asked"
        return super().pread(fd, count, offset)


def test_every_turn_opens_file_and_journal_again_and_closes_them_before_the_lock_is_free(container, path):
    watch = Watching()
    journal = neighbours.journal_path(path).name
    with kit.disk(watch):
        for index in range(3):
            watch.opened.clear()
            with container.write() as h5:
                kit.put(h5, f"a{index}", [1.0])
                assert sorted(watch.open_now.values()) == [path.name, journal]
            assert watch.open_now == {}
            assert watch.opened.count(journal) == 1
            assert os.path.getsize(neighbours.journal_path(path)) == 0
    assert names(container) == ["a0", "a1", "a2"]


def test_the_handle_is_kept_while_no_one_else_commits_and_dropped_when_somebody_did(container, path):
    add(container, "a")
    kept = container._writer.h5
    add(container, "b")
    assert container._writer.h5 is kept
    with Container.open(path) as other:
        add(other, "c")
    add(container, "d")
    assert container._writer.h5 is not kept
    assert names(container) == ["a", "b", "c", "d"]


def test_the_header_names_no_boot_so_no_page_cache_is_trusted_on_any_host(container, path):
    add(container, "a")
    assert _header.parse(path.read_bytes()[:64], "").boot == vfs.UNKNOWN_BOOT


def test_a_commit_of_another_process_under_our_lock_is_an_error_that_writes_nothing(container, path):
    """The lock does not exclude: another writer commits between our first read and our commit."""
    add(container, "a")
    with Container.open(path) as other:
        images = []
        with pytest.raises(StoreUnavailable, match="although this one held the lock"), container.write() as h5:
            kit.put(h5, "lost", [1.0])
            other._lock.acquire, other._lock.release = (lambda *a, **k: None), (lambda: None)
            add(other, "b")
            images.append(kit.read_files(path.parent))
        assert kit.read_files(path.parent) == images[0]
        del other._lock.acquire, other._lock.release
    add(container, "c")
    assert names(container) == ["a", "b", "c"]


def test_a_cached_name_of_a_removed_file_is_tried_again(container, path, monkeypatch):
    add(container, "a")
    waits = []
    monkeypatch.setattr(vfs, "wait", lambda seconds: (waits.append(seconds), os.rename(f"{path}.away", path)))
    monkeypatch.setattr(vfs, "CACHE_PATIENCE", 2.0)
    os.rename(path, f"{path}.away")
    add(container, "b")
    assert len(waits) == 1
    assert names(container) == ["a", "b"]


def test_a_file_that_stays_away_is_missed(container, path, monkeypatch):
    monkeypatch.setattr(vfs, "CACHE_PATIENCE", 0.1)
    path.unlink()
    with pytest.raises(StoreNotFound, match="removed"):
        names(container)


def test_a_checkpoint_that_fails_leaves_the_journal_for_whichever_process_comes_next(container, path):
    class Failing(kit.Fast):
        def fdatasync(self, fd):
            if os.readlink(f"/proc/self/fd/{fd}").endswith(path.name):
                raise OSError(5, "Input/output error")

    with kit.disk(Failing()):
        add(container, "a")
    assert os.path.getsize(neighbours.journal_path(path))
    with Container.open(path) as other:
        assert names(other) == ["a"]
        add(other, "b")
        assert other.recovered
    assert names(container) == ["a", "b"]


class TestAReaderLooksAgain:
    """What a client has cached may be of another state; pages that it asks for anew are not."""

    @staticmethod
    def stale(monkeypatch, fails: int) -> list[int]:
        """Let the first reads of an entry's seal fail, as if its page were of another state."""
        looks: list[int] = []
        genuine = layout.seal_of

        def seal_of(*args):
            looks.append(len(looks))
            return "0" * 32 if len(looks) <= fails else genuine(*args)

        monkeypatch.setattr(layout, "seal_of", seal_of)
        monkeypatch.setattr(vfs, "CACHE_PATIENCE", 0.3)
        return looks

    @pytest.fixture
    def store(self, path):
        with closing(EntryStore(path)) as store:
            store.put_record(record_of(1))
            store.put_record(record_of(2))
        with closing(EntryStore(path, mode="r")) as store:
            yield store

    def test_before_an_entry_counts_as_damaged(self, store, monkeypatch, caplog):
        looks = self.stale(monkeypatch, 3)
        assert store.find_record(record_of(1).key, None) is not None
        assert len(looks) == 4
        assert not caplog.records

    def test_but_not_for_ever_and_not_twice_in_one_state(self, store, monkeypatch, caplog):
        looks = self.stale(monkeypatch, 10**6)
        started = time.monotonic()
        assert store.find_record(record_of(1).key, None) is None
        assert 0.3 <= time.monotonic() - started < 3
        assert "is damaged" in caplog.text
        done = len(looks)
        assert store.find_record(record_of(2).key, None) is None
        assert len(looks) <= done + 2

    def test_before_a_file_is_called_damaged(self, store, path, monkeypatch):
        """The superblock is seen as it is a moment later."""
        monkeypatch.setattr(vfs, "CACHE_PATIENCE", 1.0)
        image = path.read_bytes()
        with open(path, "rb+") as file:
            file.seek(_header.USER_BLOCK + 20)
            file.write(bytes(20))
        # In place: a file written from nothing is empty for a moment, which no commit makes it.
        threading.Timer(0.3, vfs.DISK.pwrite, [restored := os.open(path, os.O_WRONLY), image, 0]).start()
        with closing(EntryStore(path, mode="r")) as again:
            assert again.find_record(record_of(1).key, None) is not None
        os.close(restored)

    def test_as_long_as_writers_are_at_work(self, store, monkeypatch):
        """A header of one moment and a journal of another: no state lasts, so none is damaged."""
        monkeypatch.setattr(vfs, "CACHE_PATIENCE", 0.1)
        container = store.container
        genuine, looks = container._read_optimistically, []

        def read(fn):
            looks.append(time.monotonic())
            container._seen = len(looks)
            if looks[-1] - looks[0] < 0.4:
                raise StoreDamaged("cut short")
            return genuine(fn)

        monkeypatch.setattr(container, "_read_optimistically", read)
        assert store.find_record(record_of(1).key, None) is not None
        assert len(looks) > 3

    def test_and_a_damaged_file_stays_one(self, store, path, monkeypatch):
        monkeypatch.setattr(vfs, "CACHE_PATIENCE", 0.2)
        with open(path, "rb+") as file:
            file.seek(_header.USER_BLOCK + 20)
            file.write(bytes(20))
        with pytest.raises(StoreDamaged):
            EntryStore(path, mode="r")


@pytest.mark.parametrize("every", EVERY)
def test_after_a_kill_at_any_call_the_next_run_finds_the_last_or_the_next_transaction(story, tmp_path, every):
    with kit.disk(kit.Fast()):
        for number, (count, torn) in enumerate(list(crash_points(story))[::every]):
            files = kit.kill_image(story.recorder, count, torn)
            path = kit.put_files(tmp_path / "image", files)
            kit.check_plain(path, story, story.acked[count])
            kit.check_open(path, story, story.acked[count], mode="r")
            assert kit.read_files(path.parent) == files, "mode 'r' changed a file"
            kit.check_open(path, story, story.acked[count], mode="a")
            if number % 5 == 0:
                kit.check_usable(path)


@pytest.mark.parametrize("every", EVERY)
def test_after_a_kill_during_recovery_the_next_run_still_recovers(story, tmp_path, every):
    rng = random.Random(6)
    with kit.disk(kit.Fast()):
        for count, torn in list(crash_points(story))[:: 3 * every]:
            recovery = kit.recovery_of(kit.kill_image(story.recorder, count, torn), tmp_path / "first")
            again = rng.randrange(len(recovery.log) + 1)
            path = kit.put_files(tmp_path / "second", kit.kill_image(recovery, again))
            kit.check_open(path, story, story.acked[count], mode="a")


@pytest.mark.parametrize("images", [60, pytest.param(4000, marks=pytest.mark.long)])
def test_after_a_power_loss_nothing_acknowledged_is_lost(story, tmp_path, images):
    with kit.disk(kit.Fast()):
        for case in range(images):
            lose_power(story, tmp_path / "image", case, shear_header=case % 2 == 0)


@pytest.mark.parametrize("forgotten", ["-journal", kit.NAME])
def test_a_commit_or_a_turn_without_its_sync_would_be_noticed_by_this_kit(tmp_path, forgotten):
    control = kit.record_story(kit.fresh(tmp_path / "control"), seed=3, forget_syncs_of=(forgotten,))
    with kit.disk(kit.Fast()):
        wrong = kit.failures(lambda case: lose_power(control, tmp_path / "image", case), range(100))
    assert len(wrong) > 3
