"""One writer at a time: the choice of the lock, and its behaviour when it is held, left behind or
impossible.
"""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import gamwarm
from gamwarm.errors import InvalidInput, LockTimeout, StoreNotFound, StoreUnavailable
from gamwarm.storage import directory_probe as probing
from gamwarm.storage import locks, writer_lock
from gamwarm.storage.container import Container
from gamwarm.storage.directory_probe import probe
from gamwarm.storage.locks import KINDS, LOCK_CHOICES, FlockLock, SoftLock, choose_lock
from gamwarm.storage.writer_lock import FIRST_COURTESY
from tests.support import crash_simulator as kit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(60)

HOLD = """
import sys, time
from gamwarm.storage.container import Container
container = Container.open(sys.argv[1], lock=sys.argv[2])
with container.write():
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
container.close()
"""


@pytest.fixture(autouse=True)
def forget_probes(monkeypatch):
    monkeypatch.setattr(locks, "_PROBES", {})


@pytest.fixture
def kind():
    return "auto"


@pytest.fixture
def path(tmp_path, kind):
    path = tmp_path / kit.NAME
    Container.open(path, lock=kind, create=kit.lay_out).close()
    return path


def hold(path, kind, seconds):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def add(container, name):
    with container.write() as h5:
        kit.put(h5, name, np.ones(4))


def count(container):
    return container.read(lambda h5: len(h5["records"]))


class TestProbe:
    @pytest.mark.parametrize("child", [True, False, None])
    def test_this_directory_has_what_the_store_needs_and_is_left_as_it_was(self, tmp_path, child):
        found = probe(tmp_path, child=child)
        assert found.flock
        assert found.hard_links
        assert found.rename
        assert found.fsync or not found.by_child
        assert list(tmp_path.iterdir()) == []
        if child is not None:
            assert found.by_child is child

    def test_it_runs_once_per_device(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr(locks, "probe", lambda directory: calls.append(directory) or probe(directory))
        for name in "abc":
            (tmp_path / name).mkdir()
            assert choose_lock(tmp_path / name / "x.h5", "auto", 0).kind == "flock"
        assert len(calls) == 1

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(StoreNotFound, match="nowhere"):
            choose_lock(tmp_path / "nowhere" / "x.h5", "auto", 0)

    def test_a_flock_that_lets_another_process_in_is_not_used(self, tmp_path, monkeypatch):
        monkeypatch.setattr(probing, "_CHILD", "raise SystemExit(12)")
        assert not probe(tmp_path, child=True).flock

    def test_a_mount_whose_flock_stays_on_the_node_gets_the_soft_lock(self, tmp_path, monkeypatch):
        monkeypatch.setattr(probing, "_mount_of", lambda place: ("nfs4", frozenset({"rw", "local_lock=all"})))
        assert isinstance(choose_lock(tmp_path / "x.h5", "auto", 0), SoftLock)

    def test_a_shared_mount_is_tried_from_a_child_and_remembered_as_shared(self, tmp_path, monkeypatch):
        monkeypatch.setattr(probing, "_mount_of", lambda place: ("nfs4", frozenset({"rw"})))
        lock = choose_lock(tmp_path / "x.h5", "auto", 0)
        assert isinstance(lock, FlockLock)
        assert lock.shared

    def test_there_is_no_silent_downgrade(self, tmp_path, monkeypatch):
        monkeypatch.setattr(probing, "_flock_excludes", lambda *args: False)
        with pytest.raises(StoreUnavailable, match="flock does not exclude"):
            choose_lock(tmp_path / "x.h5", "flock", 0)
        assert choose_lock(tmp_path / "x.h5", "auto", 0).kind == "soft"
        locks._PROBES.clear()
        monkeypatch.setattr(probing, "_links_refuse", lambda *args: False)
        with pytest.raises(StoreUnavailable, match="another file system"):
            choose_lock(tmp_path / "x.h5", "auto", 0)
        with pytest.raises(StoreUnavailable, match="hard links"):
            choose_lock(tmp_path / "x.h5", "soft", 0)

    def test_an_unknown_lock_is_refused(self, tmp_path):
        with pytest.raises(InvalidInput, match="lease"):
            choose_lock(tmp_path / "x.h5", "lease", 0)


@pytest.mark.parametrize("kind", KINDS)
class TestWriterLock:
    def test_a_time_out_names_the_holder(self, path, kind):
        child = hold(path, kind, 30)
        try:
            with Container.open(path, lock=kind, lock_timeout=0.3) as container:
                began = time.monotonic()
                with pytest.raises(LockTimeout, match=f"pid {child.pid} on ") as caught, container.write():
                    pass
                assert time.monotonic() - began < 20
                assert isinstance(caught.value, TimeoutError)
                assert count(container) == 0  # readers do not wait
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

    def test_a_waiting_writer_gets_its_turn(self, path, kind):
        child = hold(path, kind, 0.3)
        with Container.open(path, lock=kind) as container:
            add(container, "a")
            assert count(container) == 1
        assert child.wait(timeout=30) == 0
        child.stdout.close()

    def test_a_killed_holder_does_not_stop_the_next_run(self, path, kind):
        child = hold(path, kind, 30)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Container.open(path, lock=kind, lock_timeout=20) as container:
            add(container, "a")
            assert count(container) == 1

    def test_nothing_but_the_lock_file_remains(self, path, kind):
        with Container.open(path, lock=kind) as container:
            add(container, "a")
        assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".lock"]

    def test_two_processes_exclude_each_other(self, path, kind):
        script = """
            import sys
            import numpy as np
            from gamwarm.storage.container import Container
            from tests.support import crash_simulator as kit
            with Container.open(sys.argv[1], lock=sys.argv[2]) as container:
                for index in range(15):
                    with container.write() as h5:
                        kit.put(h5, f"{sys.argv[3]}-{index}", np.ones(4))
        """
        children = [
            subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(path), kind, str(who)], cwd=ROOT)
            for who in range(2)
        ]
        for child in children:
            assert child.wait(timeout=50) == 0
        with Container.open(path, mode="r") as container:
            assert count(container) == 30
            assert container.generation == 31
        assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".lock"]

    def test_the_lock_is_released_when_the_block_fails(self, path, kind):
        with Container.open(path, lock=kind) as container, Container.open(path, lock=kind, lock_timeout=5) as other:
            block = container.write()
            block.__enter__()
            assert not block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
            add(other, "a")
            add(container, "b")
            assert count(other) == 2


@pytest.mark.parametrize("kind", ["soft"])
def test_under_the_soft_lock_the_file_is_intact_without_its_journal_between_transactions(path):
    with Container.open(path, lock="soft") as container:
        for index in range(3):
            add(container, f"a{index}")
            assert (path.parent / (path.name + "-journal")).stat().st_size == 0


def test_the_lock_file_may_be_used_by_everyone_who_may_write_the_file(path):
    (path.parent / (path.name + ".lock")).unlink()
    path.chmod(0o660)
    with Container.open(path) as container:
        add(container, "a")
    assert (path.parent / (path.name + ".lock")).stat().st_mode & 0o777 == 0o660


def test_a_lock_is_not_reentrant_between_two_containers_of_one_process(path):
    refused = pytest.raises(LockTimeout, match=f"pid {os.getpid()} on ")
    one, other = Container.open(path), Container.open(path, lock_timeout=0.1)
    with one, other, one.write(), refused, other.write():
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lock_is_offered_and_described(kind):
    """One that is declared and not explained to users, or explained and gone, is noticed here."""
    page = (Path(ROOT) / "docs" / "how-to" / "shared-file-systems.md").read_text()

    assert f"\n| `{kind}` |" in page
    assert kind in LOCK_CHOICES
    for signature in (Container.open, gamwarm.open):
        assert f'"{kind}"' in inspect.getdoc(signature)


@pytest.mark.parametrize("kind", KINDS)
def test_two_kinds_of_lock_on_one_file_are_refused(path, kind):
    other = KINDS[kind].other
    for _ in range(2):
        refused = pytest.raises(StoreUnavailable, match=f"lock='{kind}'")
        with Container.open(path, lock=other, lock_timeout=1) as container, refused, container.write():
            pass
    with Container.open(path, lock="auto") as container:
        add(container, "a")
        assert container._lock.kind == kind
    with Container.open(path, lock=kind) as container:
        add(container, "b")
        assert count(container) == 2


def test_the_lock_object_alone_excludes_and_says_who_holds_it(tmp_path):
    first, second = (FlockLock(tmp_path / "x.h5", 0.05, shared=False) for _ in range(2))
    with first.held():
        assert f"pid {os.getpid()} on" in second.holder()
        with pytest.raises(LockTimeout):
            second.acquire()
    second.acquire()
    second.release()


def test_a_child_forked_under_the_lock_does_not_continue_holding_it(tmp_path):
    script = """
        import os, sys, time
        from pathlib import Path
        from gamwarm.storage.locks import FlockLock
        lock = FlockLock(Path(sys.argv[1]), 5, shared=False)
        lock.acquire()
        if os.fork() == 0:
            os.close(1)
            time.sleep(60)
        print("forked", flush=True)
        os._exit(0)  # without a release, as if killed
    """
    place = tmp_path / "x.h5"
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(place)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.communicate(timeout=30)[0] == "forked\n"
        with FlockLock(place, 20, shared=False).held():
            pass
    finally:
        os.killpg(parent.pid, signal.SIGKILL)


def test_a_lock_file_that_was_removed_while_it_was_waited_for_is_not_taken_for_the_lock(tmp_path):
    first, second, third = (FlockLock(tmp_path / "x.h5", 0.05, shared=False) for _ in range(3))
    first.acquire()
    (tmp_path / "x.h5.lock").unlink()
    second.acquire()
    with pytest.raises(LockTimeout):
        third.acquire()
    first.release()
    with pytest.raises(LockTimeout):
        third.acquire()
    second.release()
    third.acquire()
    third.release()


def made(kind, path, timeout):
    return KINDS[kind](path, timeout, shared=False)


class TestWaiting:
    # Of the lock's own calls into the operating system; a listing stands for the five calls that it
    # makes.
    FREE = frozenset({"getpid", "fspath", "sleep", "urandom", "getuid", "geteuid", "time", "monotonic"})
    WEIGHTS: ClassVar = {"listdir": 5, "scandir": 5}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_waiter_makes_at_most_twenty_requests_a_second_after_the_first(self, tmp_path, kind):
        made_at: list[float] = []

        def count(frame, event, function):
            ours = event == "c_call" and function.__module__ in ("posix", "fcntl", "_io")
            if ours and function.__name__ not in self.FREE:
                made_at.extend([time.monotonic()] * self.WEIGHTS.get(function.__name__, 1))

        def wait():
            sys.setprofile(count)
            with pytest.raises(LockTimeout):
                made(kind, tmp_path / "x.h5", 3.0).acquire()

        with made(kind, tmp_path / "x.h5", 0.0).held():
            began = time.monotonic()
            waiter = threading.Thread(target=wait)
            waiter.start()
            waiter.join()
        # The last tenth of a second is that of the time-out, which names the holder.
        late = [at - began for at in made_at if 1.0 < at - began < 2.9]
        assert 2 <= len(late) <= 20 * 1.9

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_waiter_has_its_turn_next_to_a_process_that_takes_the_lock_again_at_once(self, tmp_path, kind):
        script = """
            import sys, time
            from pathlib import Path
            from tests.storage.test_locks import made
            lock = made(sys.argv[2], Path(sys.argv[1]), 60)
            lock.acquire()
            print("held", flush=True)
            while True:
                time.sleep(0.1)
                lock.release()
                lock.acquire()
        """
        arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x.h5"), kind]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as greedy:
            try:
                assert greedy.stdout.readline() == "held\n"
                with made(kind, tmp_path / "x.h5", 10.0).held():
                    pass
            finally:
                greedy.kill()

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_holder_gives_way_only_while_somebody_waits(self, tmp_path, monkeypatch, kind):
        lock = made(kind, tmp_path / "x.h5", 1.0)
        lock.acquire()
        os.utime(lock.path, (0, 0))
        began = time.monotonic()
        lock.release()
        lock.acquire()
        assert time.monotonic() - began >= FIRST_COURTESY
        monkeypatch.setattr(writer_lock._courtesies[lock.path], "waiter_seen_at", -60.0)
        lock.release()
        assert lock.path not in writer_lock._courtesies

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_process_that_opens_the_file_anew_gives_way_too(self, tmp_path, kind):
        pauses = []
        released = -60.0
        for n in range(4):
            lock = made(kind, tmp_path / "x.h5", 5.0)
            lock.acquire()
            pauses.append(time.monotonic() - released)
            os.utime(lock.path, (0, n))
            lock.release()
            released = time.monotonic()
            lock.tidy()
        # A tenth less: a pause is counted from within the release.
        assert all(pause >= 0.9 * FIRST_COURTESY * 2**n for n, pause in enumerate(pauses[1:])), pauses


def test_a_search_for_dead_claims_asks_once_for_an_owner_however_many_claims_it_has(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(locks, "owner_is_stale", lambda *owner: bool(asked.append(owner)))
    path = tmp_path / "x.h5"
    path.touch()
    held, other = SoftLock(path, 5.0), SoftLock(path, 5.0)
    with held.held():
        assert not other._break_dead_claims()
        assert len(other._made().claims) == 2
    assert len(asked) == 1


def test_stores_that_close_do_not_trouble_those_that_take_the_soft_lock(tmp_path):
    failed = []

    def visit(who):
        lock = SoftLock(tmp_path / "x.h5", 30.0)
        try:
            for _ in range(15):
                with lock.held():
                    pass
                lock.tidy()
        except Exception as error:
            failed.append(error)

    visitors = [threading.Thread(target=visit, args=(who,)) for who in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert not failed


def test_a_removed_claim_that_fuse_still_keeps_is_waited_for(tmp_path):
    path = tmp_path / "x.h5"
    path.touch()
    lock = SoftLock(path, 20.0)
    with lock.held():
        hidden = lock._claims / ".fuse_hidden0000000700000003"
    lock._claims.mkdir(parents=True, exist_ok=True)
    hidden.write_bytes(b"")
    vanishing = threading.Timer(0.5, hidden.unlink)
    vanishing.start()
    began = time.monotonic()
    with lock.held():
        assert time.monotonic() - began > 0.4
    vanishing.join()
