"""What one container promises: transactions, reads and opening."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from gamwarm.errors import (
    NewerFormat,
    NotAStore,
    StoreClosed,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)
from gamwarm.formats import FILE, FILE_MAGIC
from gamwarm.storage import container as container_module
from gamwarm.storage import header as _header
from gamwarm.storage import neighbours, pager, redo_journal, vfs
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit
from tests.support.containers import ROOT, add, beside, names, run

pytestmark = pytest.mark.timeout(60)


def change_and_fail(container):
    with container.write() as h5:
        kit.put(h5, "b", np.ones(3000), big=9000)
        del h5["records/a"]
        h5.flush()
        raise KeyError("changed my mind")


class TestTransactions:
    def test_a_new_file_is_the_first_transaction(self, container, path):
        assert container.generation == 1
        assert container.path == path
        assert len(container.uuid) == 16
        assert names(container) == []

    def test_each_write_block_is_one_generation_and_survives_reopening(self, container, path):
        add(container, "a")
        add(container, "b")
        assert container.generation == 3
        container.close()
        with Container.open(path, mode="r") as again:
            assert names(again) == ["a", "b"]
            assert again.generation == 3
            assert again.uuid == container.uuid

    def test_a_block_that_changes_nothing_is_not_a_generation(self, container):
        add(container, "a")
        with container.write() as h5:
            assert list(h5["records"]) == ["a"]
        assert container.generation == 2

    def test_one_commit_costs_one_sync(self, container):
        add(container, "a")
        before = container.sync_count
        for index in range(10):
            add(container, f"b{index}")
        assert container.sync_count - before == 10

    def test_an_exception_takes_everything_back_byte_for_byte(self, container, path):
        add(container, "a")
        for _ in range(5):
            before = path.read_bytes()
            with pytest.raises(KeyError):
                change_and_fail(container)
            assert path.read_bytes() == before
            assert names(container) == ["a"]
        add(container, "c")
        assert names(container) == ["a", "c"]

    def test_a_pending_change_is_seen_inside_its_block_and_by_no_one_else(self, container, path):
        with container.write() as h5:
            kit.put(h5, "a", np.ones(3))
            assert names(container) == ["a"]
            with Container.open(path, mode="r") as other:
                assert names(other) == []

    def test_transactions_do_not_nest(self, container):
        with container.write() as h5:
            kit.put(h5, "a", np.ones(3))
            with pytest.raises(StoreError, match="nest"):
                container.write().__enter__()
        assert names(container) == ["a"]
        with pytest.raises(StoreError, match=r"inside read"):
            container.read(lambda h5: container.write().__enter__())

    def test_threads_take_turns(self, container):
        failed = []

        def work(who):
            try:
                for index in range(25):
                    add(container, f"{who}-{index}", index)
                    assert f"{who}-{index}" in names(container)
            except BaseException as exc:
                failed.append(exc)

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(names(container)) == 100
        assert container.generation == 101

    def test_the_journal_is_cut_when_it_grows_large_and_gone_after_close(self, container, path):
        journal = neighbours.journal_path(path)
        seen = []
        for index in range(12):
            add(container, f"a{index}", size=100)
            with container.write() as h5:
                h5["records"].create_dataset(f"big{index}", data=np.zeros(60_000))
                del h5["records"][f"big{index}"]
                h5["records"].create_dataset(f"big{index}", data=np.full(60_000, index))
            seen.append(journal.stat().st_size)
        assert max(seen) <= pager.CHECKPOINT_BYTES + 2**20
        assert 0 in seen
        container.close()
        assert beside(path) == [path.name, path.name + ".lock"]

    def test_rewriting_reuses_space(self, container, path):
        with kit.disk(kit.Fast()):
            for index in range(30):
                add(container, f"a{index}", size=300)
            size = path.stat().st_size
            for index in range(600):
                add(container, f"a{index % 30}", index, size=300)
        assert path.stat().st_size < 1.3 * size

    def test_two_containers_of_one_process_see_each_other(self, container, path):
        with Container.open(path) as other:
            for index in range(6):
                add((container, other)[index % 2], f"a{index}")
                assert names(container) == names(other)
                assert container.generation == other.generation == index + 2

    def test_a_writer_finds_its_place_in_a_journal_that_others_lengthened_or_cut(self, container, path):
        put = 0
        with Container.open(path) as other:
            for theirs, cut in ((1, False), (3, False), (2, True), (1, True), (4, False), (0, False)):
                add(container, f"a{put}")
                for _ in range(theirs):
                    put += 1
                    add(other, f"a{put}")
                if cut:
                    other._writer.pair.checkpoint()
                    for _ in range(2):
                        put += 1
                        add(other, f"a{put}")
                put += 1
                add(container, f"a{put}")
                pair = container._writer.pair
                replay = redo_journal.scan(pair.journal, container.uuid, pair.main, container.path)
                assert replay.length == pair.journal_end == pair.header.journal_length == os.fstat(pair.journal).st_size
                assert replay.last == pair.header.sequence
                put += 1
        assert set(names(container)) == {f"a{index}" for index in range(put)}

    def test_two_processes_alternating_keep_everything(self, container, path):
        child = subprocess.Popen(
            [sys.executable, "-c", ALTERNATE, str(path), "child"], cwd=ROOT, stdout=subprocess.PIPE
        )
        for index in range(40):
            add(container, f"parent{index}")
        assert child.wait(timeout=50) == 0
        child.stdout.close()
        assert len(names(container)) == 80
        assert container.generation == 81


ALTERNATE = """
import sys
import numpy as np
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit
with Container.open(sys.argv[1]) as container:
    for index in range(40):
        with container.write() as h5:
            kit.put(h5, f"{sys.argv[2]}{index}", np.ones(20))
"""


class TestReading:
    def test_a_reader_next_to_a_writer_sees_intact_transactions_only(self, container, path):
        writer = """
            import sys, time
            import numpy as np
            from gamwarm.storage.container import Container
            from tests.support import crash_simulator as kit
            container = Container.open(sys.argv[1])
            print("ready", flush=True)
            end = time.monotonic() + 2.5
            step = 0
            while time.monotonic() < end:
                step += 1
                with container.write() as h5:
                    for name in range(20):
                        kit.put(h5, f"n{name}", np.full(50, float(step)))
            container.close()
            print(step)
        """
        with container.write() as h5:
            for name in range(20):
                kit.put(h5, f"n{name}", np.zeros(50))
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(writer), str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        seen = []
        with Container.open(path, mode="r") as reader:
            while child.poll() is None:
                state = reader.read(kit.dump)
                values = {data[:8] for name, data in state.items()} | {data[-8:] for data in state.values()}
                assert len(values) == 1, "a read saw two transactions at once"
                seen.append(values.pop())
        steps = int(child.stdout.read())
        child.stdout.close()
        assert child.returncode == 0
        assert len(set(seen)) > 3
        assert seen == sorted(seen, key=lambda raw: np.frombuffer(raw)[0])
        assert steps > 3

    def test_what_the_callback_raises_is_passed_on(self, container):
        with pytest.raises(ZeroDivisionError):
            container.read(lambda h5: 1 / 0)
        with pytest.raises(KeyError):
            container.read(lambda h5: h5["no such"])

    def test_generation_sees_other_processes_and_replaced_files(self, container, path, tmp_path):
        assert run(ALTERNATE, path, "x").returncode == 0
        assert container.generation == 41
        (tmp_path / "d").mkdir()
        with Container.open(tmp_path / "d" / "other.h5", create=kit.lay_out) as other:
            add(other, "elsewhere")
        os.replace(tmp_path / "d" / "other.h5", path)
        assert container.generation == 2
        assert container.uuid == other.uuid
        assert names(container) == ["elsewhere"]
        add(container, "more")
        assert container.uuid == other.uuid
        assert names(container) == ["elsewhere", "more"]

    def test_an_edit_by_plain_h5py_is_noticed_by_reader_and_writer(self, container, path):
        add(container, "a")
        add(container, "b")
        assert names(container) == ["a", "b"]
        with h5py.File(path, "r+") as plain:
            del plain["records/a"]
            kit.put(plain, "by hand", np.ones(5))
        assert names(container) == ["b", "by hand"]
        add(container, "c")
        assert names(container) == ["b", "by hand", "c"]
        container.close()
        with h5py.File(path, "r") as plain:
            assert sorted(plain["records"]) == ["b", "by hand", "c"]

    def test_plain_h5py_in_the_same_process_gets_its_own_view(self, container, path):
        add(container, "a")
        assert names(container) == ["a"]
        with h5py.File(path, "r") as plain:
            assert plain.userblock_size == _header.USER_BLOCK
            assert list(plain["records"]) == ["a"]

    def test_a_plain_reader_that_stays_does_not_stop_the_writer(self, container, path, caplog):
        add(container, "a")
        with h5py.File(path, "r"):
            add(container, "b")
            add(container, "c")
        assert len([record for record in caplog.records if "plain HDF5" in record.message]) == 1
        assert names(container) == ["a", "b", "c"]


class TestOpening:
    def test_a_missing_file_is_an_error_in_mode_r(self, path):
        with pytest.raises(FileNotFoundError) as caught:
            Container.open(path, mode="r")
        assert isinstance(caught.value, StoreNotFound)
        assert beside(path) == []

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(StoreNotFound, match="no directory"):
            Container.open(tmp_path / "no" / "x.h5")

    def test_a_directory_is_not_a_file(self, tmp_path):
        for mode in "ra":
            with pytest.raises(NotAStore, match="a directory"):
                Container.open(tmp_path, mode=mode)

    def test_a_failing_layout_leaves_no_file(self, path):
        with pytest.raises(ZeroDivisionError):
            Container.open(path, create=lambda h5: 1 / 0)
        assert beside(path) in ([], [path.name + ".lock"])

    @pytest.mark.parametrize("kind", ["empty", "text", "hdf5", "hdf5 with a user block", "short", "newer"])
    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_a_file_that_is_not_ours_is_refused_and_not_touched(self, path, kind, mode):
        if kind == "empty":
            path.touch()
        elif kind == "text":
            path.write_bytes(b"to whom it may concern\n" * 100)
        elif kind == "short":
            path.write_bytes(b"GAM")
        elif kind == "hdf5":
            h5py.File(path, "w").close()
        else:
            h5py.File(path, "w", userblock_size=512).close()
            if kind == "newer":
                data = bytearray(path.read_bytes())
                data[:10] = FILE_MAGIC + (FILE.current + 1).to_bytes(2, "little")
                path.write_bytes(data)
        before = path.read_bytes(), path.stat().st_mtime_ns
        with pytest.raises(NewerFormat if kind == "newer" else NotAStore) as caught:
            Container.open(path, mode=mode)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        assert beside(path) == [path.name]
        assert pickle.loads(pickle.dumps(caught.value)).details == caught.value.details

    def test_the_check_of_the_layer_above_can_refuse(self, container, path):
        container.close()

        def check(h5):
            raise NewerFormat("entries of format 9")

        with pytest.raises(NewerFormat, match="format 9"):
            Container.open(path, check=check)

    def test_a_file_put_in_its_place_is_checked_too(self, container, path, tmp_path):
        container.close()

        def check(h5):
            if "strange" in h5:
                raise NotAStore("strange")

        with Container.open(path, check=check) as again:
            assert names(again) == []
            Container.open(tmp_path / "new.h5", create=lambda h5: h5.create_group("strange")).close()
            os.replace(tmp_path / "new.h5", path)
            for call in (lambda: names(again), lambda: again.write().__enter__(), lambda: again.generation):
                with pytest.raises(NotAStore, match="strange"):
                    call()

    def test_windows_is_refused_in_so_many_words(self, path, monkeypatch):
        monkeypatch.setattr(container_module.sys, "platform", "win32")
        with pytest.raises(StoreUnavailable, match="Windows"):
            Container.open(path)

    def test_everything_is_refused_after_close_and_close_is_idempotent(self, container):
        container.close()
        container.close()
        for call in (lambda: container.read(len), lambda: container.generation, lambda: container.write().__enter__()):
            with pytest.raises(StoreClosed):
                call()

    def test_mode_r_does_not_write(self, container, path):
        container.close()
        before = path.stat().st_mtime_ns
        with Container.open(path, mode="r") as reader:
            with pytest.raises(StoreReadOnly), reader.write():
                pass
            assert names(reader) == []
        assert path.stat().st_mtime_ns == before

    def test_a_symbolic_link_is_the_file_it_names(self, container, path, tmp_path):
        link = tmp_path / "link.h5"
        link.symlink_to(path)
        with Container.open(link) as other:
            add(other, "a")
            assert other.path == path
        assert names(container) == ["a"]

    def test_the_file_is_readable_since_hdf5_1_8(self, container, path):
        add(container, "a")
        container.close()
        superblock = path.read_bytes()[_header.USER_BLOCK :]
        assert superblock[:8] == _header.HDF5_SIGNATURE
        assert superblock[8] == 2


def test_a_copy_of_the_file_alone_is_complete_once_closed(container, path, tmp_path):
    add(container, "a")
    container.close()
    shutil.copy(path, tmp_path / "copy.h5")
    with kit.boot(kit.OTHER_BOOT), Container.open(tmp_path / "copy.h5") as copy:
        assert names(copy) == ["a"]
        add(copy, "b")
        assert names(copy) == ["a", "b"]


def test_the_seam_is_the_only_road_to_the_disk():
    """The calls that change files stand in vfs alone; elsewhere they could not be recorded, cut or
    failed.
    """
    calls = ("os.pwrite", "os.ftruncate", "os.fsync", "os.fdatasync", "os.replace", "os.rename", "os.posix_fallocate")
    storage = Path(vfs.__file__).parent
    for module in ("pager", "neighbours", "redo_journal", "overlay", "reader", "writer", "header", "container"):
        source = (storage / f"{module}.py").read_text()
        assert not [call for call in calls if call + "(" in source], module
