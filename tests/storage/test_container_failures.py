"""Failures of a container: what stays intact when the disk or the process fails."""

from __future__ import annotations

import contextlib
import errno
import os

import h5py
import numpy as np
import pytest

from gamwarm.errors import (
    StoreDamaged,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)
from gamwarm.storage import container as container_module
from gamwarm.storage import header as _header
from gamwarm.storage import neighbours, redo_journal
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit
from tests.support.containers import add, beside, names, run

pytestmark = pytest.mark.timeout(60)


class WithoutPermission(kit.Fast):
    """Root may write anywhere; this disk may not."""

    def open(self, path, flags, mode=0o666):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return super().open(path, flags, mode)

    def _refuse(self, *args):
        raise AssertionError("a reader wrote")

    pwrite = ftruncate = fallocate = unlink = rename = _refuse


class TestFailing:
    def test_without_permission_mode_a_says_so_and_mode_r_reads(self, container, path):
        add(container, "a")
        container.close()
        with kit.disk(WithoutPermission()):
            with pytest.raises(StoreReadOnly, match="mode='r'") as caught:
                Container.open(path)
            assert isinstance(caught.value, PermissionError)
            with Container.open(path, mode="r") as reader:
                assert names(reader) == ["a"]

    def test_a_directory_without_write_permission_is_said_to_be_so(self, container, path, monkeypatch):
        container.close()
        monkeypatch.setattr(container_module.os, "access", lambda *args: False)
        with pytest.raises(StoreReadOnly, match="journal"):
            Container.open(path)

    @pytest.mark.parametrize(("lock", "size"), [("soft", 50), ("flock", 700_000)])
    def test_a_checkpoint_leaves_the_journal_of_a_file_that_could_not_be_updated(self, path, lock, size):
        """Under the soft lock a checkpoint ends every turn, otherwise it follows a journal that has
        grown long.
        """

        class FailsOnce(kit.Fast):
            def pwrite(self, fd, data, offset):
                if offset == _header.BODY_OFFSET and not failed:
                    failed.append(True)
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                super().pwrite(fd, data, offset)

        failed = []
        container = Container.open(path, create=kit.lay_out, lock=lock)
        with kit.disk(FailsOnce()):
            with container.write() as h5:
                kit.put(h5, "a", np.arange(50.0), big=size)
            assert failed
            container._abandon()  # as a kill does
        with Container.open(path) as again:
            assert names(again) == ["a"]

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_a_half_applied_file_is_read_through_its_journal_without_permission(self, tmp_path, mode):
        story = kit.record_story(kit.fresh(tmp_path / "work"))
        log = story.recorder.log
        half = [
            count
            for count in range(len(log))
            if log[count - 1].kind == "write" and log[count - 1].offset == _header.SIGNATURE_OFFSET
        ]
        for count in half[::3]:
            path = kit.put_files(tmp_path / "image", kit.kill_image(story.recorder, count))
            if mode == "r":
                with kit.disk(WithoutPermission()), Container.open(path, mode="r") as reader:
                    assert reader.read(kit.dump) in story.states[story.acked[count] :][:2]
            else:
                # Permission lost (a remounted disk) after opening: the recovery fails, the read
                # does not.
                container = Container.open(path)
                kit.put_files(tmp_path / "image", kit.kill_image(story.recorder, count))
                with kit.disk(WithoutPermission()):
                    assert container.read(kit.dump) in story.states[story.acked[count] :][:2]
                container.close()

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_a_half_applied_file_without_its_journal_is_damaged_and_left_alone(self, container, path, mode):
        add(container, "a")
        container.close()
        data = bytearray(path.read_bytes())
        header = _header.parse(bytes(data), "")
        data[:64] = _header.Header(header.sequence + 1, header.uuid, header.boot, 0).pack()
        path.write_bytes(data)
        with pytest.raises(StoreDamaged, match="journal"):
            Container.open(path, mode=mode)
        assert path.read_bytes() == bytes(data)

    def test_damaged_metadata_is_a_typed_error(self, container, path):
        add(container, "a")
        container.close()
        data = bytearray(path.read_bytes())
        data[_header.USER_BLOCK + 10 : _header.USER_BLOCK + 60] = bytes(50)
        path.write_bytes(data)
        for mode in "ra":
            with pytest.raises(StoreDamaged):
                Container.open(path, mode=mode)

    def test_a_file_removed_while_open_is_missed(self, container, path):
        path.unlink()
        with pytest.raises(StoreNotFound, match="removed"):
            names(container)
        with pytest.raises(StoreNotFound, match="removed"), container.write():
            pass

    def test_a_journal_of_another_file_is_ignored(self, container, path, tmp_path):
        add(container, "a")
        (tmp_path / "d").mkdir()
        with Container.open(tmp_path / "d" / kit.NAME, create=kit.lay_out) as other:
            add(other, "stranger")
            foreign = neighbours.journal_path(other.path).read_bytes()
        container.close()
        for identity in (None, kit.OTHER_BOOT):
            neighbours.journal_path(path).write_bytes(foreign)
            with kit.boot(identity), Container.open(path) as again:
                assert "stranger" not in names(again)
                add(again, f"b{identity}")
            assert not neighbours.journal_path(path).exists()
        with Container.open(path, mode="r") as again:
            assert names(again) == ["a", "bNone", f"b{kit.OTHER_BOOT}"]

    @pytest.mark.parametrize("identity", [None, kit.OTHER_BOOT])
    def test_a_restored_backup_is_never_mixed_with_a_journal_left_behind(self, path, tmp_path, identity):
        """The backup is older than the journal's first frame, equal to it, or inside it."""
        with kit.disk(kit.Fast()):
            container = Container.open(path, create=kit.lay_out)
            backups, states = [], []
            for index in range(6):
                add(container, f"a{index}", size=100)
                if index == 2:
                    container._writer.pair.checkpoint()
                backups.append(path.read_bytes())
                states.append(container.read(kit.dump))
            journal = neighbours.journal_path(path).read_bytes()
            container.close()
            for backup in backups:
                restored = kit.put_files(tmp_path / "r", {kit.NAME: backup, kit.NAME + "-journal": journal})
                for mode in "ra":
                    with kit.boot(identity), Container.open(restored, mode=mode) as again:
                        assert again.read(kit.dump) in states
                kit.check_usable(restored, identity)

    def test_a_lost_journal_of_a_intact_file_costs_nothing(self, container, path):
        for index in range(5):
            add(container, f"a{index}")
            neighbours.journal_path(path).unlink()
        assert len(names(container)) == 5
        container.close()
        assert beside(path) == [path.name, path.name + ".lock"]

    def test_an_error_while_hdf5_reads_inside_a_transaction_is_ours(self, container, path):
        add(container, "a", size=3000)
        container.close()

        class Broken(kit.Fast):
            on = False

            def readinto(self, fd, buffer, offset):
                if self.on:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return super().readinto(fd, buffer, offset)

            def pread(self, fd, count, offset):
                if self.on:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return super().pread(fd, count, offset)

        broken = Broken()
        with kit.disk(broken), Container.open(path) as again:

            def write(h5):
                broken.on = True
                kit.put(h5, "b", np.ones(5))

            with pytest.raises(StoreUnavailable, match=r"fits\.h5.*Input/output"), again.write() as h5:
                write(h5)
            broken.on = False
            assert names(again) == ["a"]
            add(again, "b")

            def fail(h5):
                broken.on = True
                return kit.dump(h5)

            again._reader.drop()
            with pytest.raises(StoreUnavailable):
                again.read(fail)
            broken.on = False
            assert names(again) == ["a", "b"]


class Injected(kit.Fast):
    """Fails the n-th changing call, once or from then on."""

    def __init__(self, error, sticky):
        self.error, self.sticky = error, sticky
        self.countdown: int | None = None
        self.hit = ""

    def _step(self, what):
        if self.countdown is None:
            return
        self.countdown -= 1
        if self.countdown == 0 or (self.sticky and self.countdown < 0):
            self.hit = self.hit or what
            raise self.error

    def open(self, path, flags, mode=0o666):
        if flags & os.O_CREAT:
            self._step("create")
        return super().open(path, flags, mode)


def _failing(name):
    def call(self, *args):
        self._step(name)
        return getattr(kit.Fast, name)(self, *args)

    return call


for _name in ("pwrite", "fdatasync", "ftruncate", "fallocate", "unlink", "rename", "fsync_dir"):
    setattr(Injected, _name, _failing(_name))


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_of_a_commit_takes_it_back_or_has_it_done(tmp_path, code, sticky):
    hits = set()
    for step in range(1, 40):
        path = kit.fresh(tmp_path / "work") / kit.NAME
        disk = Injected(OSError(code, os.strerror(code)), sticky)
        with kit.disk(disk):
            container = Container.open(path, create=kit.lay_out)
            if step % 2:
                add(container, "a")
                container._writer.pair.checkpoint()
            disk.countdown = step // 2 + 1
            acked = True
            try:
                with container.write() as h5:
                    kit.put(h5, "b", np.ones(600), big=4000)
            except StoreUnavailable as exc:
                acked = str(path) not in exc.message  # then the list below is wrong and says so
            disk.countdown = None
            expected = ["a"] * (step % 2) + ["b"] * acked
            copy = kit.put_files(tmp_path / "copy", kit.read_files(path.parent))
            with Container.open(copy) as after_kill:
                assert names(after_kill) == expected
            assert names(container) == expected
            add(container, "c")
            assert names(container) == [*expected, "c"]
            container.close()
            assert kit.read_files(path.parent).keys() == {kit.NAME}
            with h5py.File(path, "r") as plain:
                assert sorted(plain["records"]) == [*expected, "c"]
        hits.add((disk.hit, acked))
    assert {("fallocate", False), ("pwrite", False), ("fdatasync", False), ("pwrite", True), ("", True)} <= hits


def test_ctrl_c_at_any_call_of_a_commit_leaves_a_intact_file(tmp_path):
    for step in range(1, 15):
        path = kit.fresh(tmp_path / "work") / kit.NAME
        disk = Injected(KeyboardInterrupt(), sticky=False)
        with kit.disk(disk):
            container = Container.open(path, create=kit.lay_out)
            add(container, "a")
            disk.countdown = step
            with contextlib.suppress(KeyboardInterrupt):
                add(container, "b", size=900)
            disk.countdown = None
            assert names(container) in (["a"], ["a", "b"])
            add(container, "c")
            assert names(container) in (["a", "c"], ["a", "b", "c"])
            container.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_of_creation_or_close_loses_nothing(tmp_path, code):
    for step in range(1, 8):
        path = kit.fresh(tmp_path / "work") / kit.NAME
        disk = Injected(OSError(code, os.strerror(code)), sticky=True)
        with kit.disk(disk):
            disk.countdown = step
            with contextlib.suppress(StoreUnavailable):
                Container.open(path, create=kit.lay_out).close()
            disk.countdown = None
            container = Container.open(path, create=kit.lay_out)
            add(container, "a")
            disk.countdown = step
            container.close()
            disk.countdown = None
            with Container.open(path) as again:
                assert names(again) == ["a"]
                add(again, "b")
            assert kit.read_files(path.parent).keys() == {kit.NAME}


class TestProcesses:
    def test_a_forked_child_reads_but_cannot_write_and_does_no_harm(self, path):
        script = """
            import os, sys
            import numpy as np
            from gamwarm.errors import StoreUnavailable
            from gamwarm.storage.container import Container
            from tests.support import crash_simulator as kit
            container = Container.open(sys.argv[1], create=kit.lay_out)
            with container.write() as h5:
                kit.put(h5, "a", np.ones(9))
            with container.write() as h5:
                kit.put(h5, "b", np.ones(9))
                if (child := os.fork()) == 0:
                    sys.exit(5)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            if (child := os.fork()) == 0:
                assert sorted(container.read(lambda h5: list(h5["records"]))) == ["a", "b"]
                try:
                    with container.write():
                        pass
                except StoreUnavailable:
                    container.close()
                    sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            with container.write() as h5:
                kit.put(h5, "c", np.ones(9))
            container.close()
        """
        done = run(script, path)
        assert done.returncode == 0, done.stderr
        with Container.open(path, mode="r") as container:
            assert names(container) == ["a", "b", "c"]
        assert beside(path) == [path.name, path.name + ".lock"]

    @pytest.mark.parametrize(
        "leave", ["pass", "sys.exit(0)", "del container", "threading.Thread(target=forever, daemon=True).start()"]
    )
    def test_leaving_without_close_ends_well_and_leaves_one_file(self, path, leave):
        script = f"""
            import gc, sys, threading, time
            import numpy as np
            from gamwarm.storage.container import Container
            from tests.support import crash_simulator as kit
            container = Container.open(sys.argv[1], create=kit.lay_out)
            with container.write() as h5:
                kit.put(h5, "a", np.ones(9), big=50)
                keep = h5["records/a/big"]
            kept = container.read(lambda h5: h5["records/a/big"])
            def forever():
                index = 0
                while True:
                    index += 1
                    with container.write() as h5:
                        kit.put(h5, "b", np.full(9, float(index)))
            {leave}
            if threading.active_count() > 1:
                time.sleep(0.2)
        """
        done = run(script, path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        if leave != "del container":
            assert beside(path) == [path.name, path.name + ".lock"]
        with Container.open(path) as container:
            assert "a" in names(container)
        assert beside(path) == [path.name, path.name + ".lock"]

    def test_leaving_inside_a_transaction_leaves_the_state_before_it(self, path):
        script = """
            import sys
            import numpy as np
            from gamwarm.storage.container import Container
            from tests.support import crash_simulator as kit
            container = Container.open(sys.argv[1], create=kit.lay_out)
            with container.write() as h5:
                kit.put(h5, "a", np.ones(9))
            block = container.write()
            kit.put(block.__enter__(), "b", np.ones(9))
        """
        done = run(script, path)
        assert done.returncode == 0, done.stderr
        with Container.open(path) as container:
            assert names(container) == ["a"]


@pytest.mark.parametrize("sequence", range(5, 19))
def test_frames_lead_on_from_any_state_between_just_before_the_first_and_the_last(sequence):
    replay = redo_journal.Replay(first=10, last=14, size=0, pages={}, length=0)
    assert replay.follows(sequence) == (sequence in {8, 10, 12, 14} | {9, 11, 13})


def test_a_frame_whose_sequence_does_not_follow_ends_the_journal(tmp_path):
    uuid, journal = b"u" * 16, tmp_path / "journal"
    journal.write_bytes(
        b"".join(redo_journal.build_frame(number, 4096, uuid, {0: bytes(4096)}) for number in (10, 12, 16))
    )
    with journal.open("rb") as file:
        replay = redo_journal._fold(file.fileno(), uuid)
    assert replay is not None
    assert (replay.first, replay.last) == (10, 12)
