"""Foreign files under gamwarm's own names next to a store, and wrong paths."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import signal
import socket
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator

import pytest

import gamwarm
from gamwarm.archive import export_archive, import_archive, verify_archive
from gamwarm.cli.app import run
from gamwarm.report import write_report
from gamwarm.storage import vfs
from gamwarm.storage.locks import lock_path
from gamwarm.storage.neighbours import journal_path, scratch_path
from tests.support.crash_simulator import boot
from tests.support.stores import record_of

BESIDE = {"journal": journal_path, "new": scratch_path, "lock": lock_path}
PRECIOUS = b"somebody else's data\n" * 500
WORDS = {"title": "t", "creators": "A. Person", "license": "CC0-1.0"}


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A call that waits for a FIFO is a failure, not a hang."""

    def ring(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def use(path: pathlib.Path) -> None:
    """Put, compact, put."""
    with gamwarm.open(path, on_error="raise") as store:
        store.put_record(record_of(1))
        store.compact()
        store.put_record(record_of(2))


# -- what somebody has planted ---------------------------------------------------------------------


def plant(kind: str, place: pathlib.Path, victim: pathlib.Path) -> None:
    victim.write_bytes(PRECIOUS)
    victim.chmod(0o640)
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "hard link":
        place.hardlink_to(victim)
    elif kind == "dangling link":
        place.symlink_to(victim.with_name("nothing"))
    elif kind == "file":
        place.write_bytes(PRECIOUS)
    elif kind == "FIFO":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))


@pytest.mark.parametrize("made", [True, False], ids=["there", "created"])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "file", "FIFO", "directory", "socket"])
def test_what_gamwarm_did_not_make_is_neither_followed_nor_changed(tmp_path, monkeypatch, kind, beside, made):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path, victim = tmp_path / "fits.h5", tmp_path / "victim"
    if made:
        with gamwarm.open(path) as store:
            store.put_record(record_of(0))
    place = BESIDE[beside](path)
    place.unlink(missing_ok=True)
    plant(kind, pathlib.Path(place.name), victim)
    before = os.lstat(place)

    with pytest.raises(gamwarm.StoreError, match=place.name):
        use(path)

    after = os.lstat(place)
    assert (after.st_mode, after.st_ino, after.st_size) == (before.st_mode, before.st_ino, before.st_size)
    assert victim.read_bytes() == PRECIOUS
    assert stat.S_IMODE(victim.stat().st_mode) == 0o640
    assert not (tmp_path / "nothing").exists()
    if made and kind != "lock":
        with gamwarm.open(path, mode="r", on_error="raise") as store:
            assert store.get_record(record_of(0).key) is not None, "what can be read is served"
    if stat.S_ISDIR(before.st_mode):
        place.rmdir()
    else:
        place.unlink()
    use(path)
    assert sorted(each.name for each in tmp_path.iterdir() if each != victim) == ["fits.h5", "fits.h5.lock"]


def test_an_empty_hard_link_as_the_lock_is_locked_but_not_written_to(tmp_path):
    path, victim = tmp_path / "fits.h5", tmp_path / "victim"
    victim.touch()
    lock_path(path).hardlink_to(victim)
    use(path)
    assert victim.read_bytes() == b""


@pytest.mark.parametrize("made", [True, False], ids=["there", "created"])
def test_the_journal_of_another_store_is_moved_aside_unchanged(tmp_path, made, caplog):
    path, other = tmp_path / "fits.h5", tmp_path / "other.h5"
    if made:
        gamwarm.open(path).close()
    with gamwarm.open(other) as store:
        store.put_record(record_of(5))
        frames = journal_path(other).read_bytes()
    journal_path(path).write_bytes(frames)

    use(path)

    (aside,) = tmp_path.glob("fits.h5-journal-of-*")
    assert aside.read_bytes() == frames
    assert "moved to" in caplog.text
    assert not journal_path(path).exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "file", "FIFO", "directory"])
def test_what_lies_where_a_journal_would_be_moved_to_is_left_there(tmp_path, kind):
    path, other, victim = tmp_path / "fits.h5", tmp_path / "other.h5", tmp_path / "victim"
    with gamwarm.open(other) as store:
        store.put_record(record_of(5))
        frames = journal_path(other).read_bytes()
    journal_path(path).write_bytes(frames)
    gamwarm.open(path, on_error="raise").close()
    (aside,) = tmp_path.glob("fits.h5-journal-of-*")
    aside.unlink()
    plant(kind, aside, victim)
    before = os.lstat(aside)

    journal_path(path).write_bytes(frames)
    use(path)

    after = os.lstat(aside)
    assert (after.st_mode, after.st_ino, after.st_size) == (before.st_mode, before.st_ino, before.st_size)
    assert victim.read_bytes() == PRECIOUS
    assert not (tmp_path / "nothing").exists()
    assert aside.with_name(f"{aside.name}-2").read_bytes() == frames


def test_a_reader_lays_no_journal_of_another_store_over_a_file_of_before_a_reboot(tmp_path):
    """Both are at the same transaction, so that only the uuid tells."""
    path, other = tmp_path / "fits.h5", tmp_path / "other.h5"
    for each, number in ((path, 1), (other, 2)):
        with gamwarm.open(each) as store:
            store.put_record(record_of(number))
    with gamwarm.open(other) as store:
        store.put_record(record_of(3))
        frames = journal_path(other).read_bytes()
    journal_path(path).write_bytes(frames)
    with boot(b"another!"), gamwarm.open(path, mode="r", on_error="raise") as store:
        assert store.get_record(record_of(1).key) is not None
        assert store.get_record(record_of(3).key) is None
    assert journal_path(path).read_bytes() == frames


def test_a_soft_lock_follows_no_link_either(tmp_path):
    path, victim = tmp_path / "fits.h5", tmp_path / "victim"
    victim.mkdir()
    lock_path(path).symlink_to(victim / "lock")
    with pytest.raises(gamwarm.StoreError, match="symbolic link"):
        gamwarm.open(path, lock="soft", on_error="raise")
    lock_path(path).unlink()
    pathlib.Path(f"{lock_path(path)}.filelock").symlink_to(victim)
    with pytest.raises(gamwarm.StoreError, match="filelock"):
        gamwarm.open(path, lock="soft", on_error="raise")
    assert list(victim.iterdir()) == []


def test_a_link_in_the_place_of_an_export_or_a_report_is_replaced_not_followed(tmp_path):
    path, victim = tmp_path / "fits.h5", tmp_path / "victim"
    use(path)
    victim.write_bytes(PRECIOUS)
    for name in ("out.h5", "page.html", "ro-crate-metadata.json"):
        (tmp_path / name).symlink_to(victim)
    export_archive(path, tmp_path / "out.h5", crate_beside=True, overwrite=True, **WORDS)
    write_report(path, tmp_path / "page.html")
    assert victim.read_bytes() == PRECIOUS
    (tmp_path / "more.h5-new").symlink_to(victim)
    with pytest.raises(gamwarm.StoreError, match=r"more\.h5-new"):
        export_archive(path, tmp_path / "more.h5", **WORDS)
    assert victim.read_bytes() == PRECIOUS


@pytest.mark.parametrize("cut", range(9))
def test_a_new_file_whose_first_write_was_cut_anywhere_is_removed_by_the_next_session(tmp_path, cut):
    path = tmp_path / "fits.h5"
    use(path)
    scratch_path(path).write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n"[:cut] + bytes(4096))
    use(path)
    assert not scratch_path(path).exists()


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a!", b"\x00HDF\r\n\x1a\n"])
def test_a_file_of_zeros_that_goes_on_otherwise_is_left_alone(tmp_path, start):
    path = tmp_path / "fits.h5"
    use(path)
    scratch_path(path).write_bytes(bytes(512) + start)
    with pytest.raises(gamwarm.StoreUnavailable, match="move it away"):
        use(path)
    assert scratch_path(path).read_bytes() == bytes(512) + start


# -- permissions -----------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode_of(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666])
def test_journal_and_lock_have_the_permissions_of_the_store_whatever_the_umask(tmp_path, umask, mode):
    path = tmp_path / "fits.h5"
    gamwarm.open(path).close()
    assert mode_of(path) == 0o644, "a new store follows the umask"
    path.chmod(mode)
    for mask in (0o022, 0o077, 0):
        umask(mask)
        with gamwarm.open(path) as store:
            store.put_record(record_of(mask))
            assert mode_of(journal_path(path)) == mode_of(lock_path(path)) == mode
            store.compact()
        assert mode_of(path) == mode


def test_directories_and_claims_of_a_soft_lock_have_them_too(tmp_path, umask):
    path = tmp_path / "fits.h5"
    gamwarm.open(path, lock="soft").close()
    path.chmod(0o660)
    umask(0o077)
    with gamwarm.open(path, lock="soft") as store, store.transaction():
        directory = pathlib.Path(f"{lock_path(path)}.filelock")
        assert mode_of(directory) == mode_of(directory / "claims") == 0o770
        claims = list((directory / "claims").iterdir())
        assert claims
        assert {mode_of(claim) for claim in claims} == {mode_of(lock_path(path))} == {0o660}


def as_colleague(group: int, user: int, path: pathlib.Path, lock: str, number: int, kill: str) -> int:
    """Put a record as another account, in a forked child that may kill itself; return its wait
    status.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        os.umask(0o022)
        os.setgroups([group])
        os.setgid(user)
        os.setuid(user)
        store = gamwarm.open(path, lock=lock, on_error="raise")
        if kill == "inside":
            with store.transaction():
                store.put_record(record_of(1000 + number))
                os.kill(os.getpid(), signal.SIGKILL)
        store.put_record(record_of(number))
        if kill == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        store.close()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="two accounts of a group need root")
@pytest.mark.parametrize("lock", ["flock", "soft"])
def test_a_colleague_of_the_group_continues_after_a_kill(lock):
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to other accounts
        os.chmod(place, 0o755)
        share_between_two(pathlib.Path(place) / "project", lock)


def share_between_two(folder: pathlib.Path, lock: str) -> None:
    group = 54321
    folder.mkdir()
    os.chown(folder, 0, group)
    folder.chmod(0o2775)
    path = folder / "fits.h5"

    def work(user: int, number: int, kill: str = "") -> None:
        status = as_colleague(group, user, path, lock, number, kill)
        assert status == (signal.SIGKILL if kill else 0)

    work(50001, 1)
    path.chmod(0o664)
    work(50001, 2, "after")
    work(50002, 3, "inside")
    work(50001, 4, "after")
    work(50002, 5)
    with gamwarm.open(path, mode="r", on_error="raise") as store:
        assert all(store.get_record(record_of(number).key) is not None for number in (1, 2, 4, 5))


# -- paths that lead nowhere -----------------------------------------------------------------------


class OfBytes(os.PathLike):
    def __fspath__(self) -> bytes:
        return b"fits.h5"


def bad_paths(folder: pathlib.Path) -> dict[str, object]:
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nowhere" / "fits.h5")
    (folder / "text").write_bytes(PRECIOUS)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    return {
        "a long name": folder / ("x" * 300),
        "a loop": folder / "loop",
        "in a loop": folder / "loop" / "fits.h5",
        "in a file": folder / "text" / "fits.h5",
        "a NUL": f"{folder}/a\0b.h5",
        "a lone surrogate": f"{folder}/\ud800.h5",
        "of bytes": OfBytes(),
        "bytes": b"fits.h5",
        "a number": 7,
        "empty": "",
        "a directory": folder,
        "a FIFO": folder / "fifo",
        "a socket": folder / "socket",
        "a device": "/dev/null",
        "a dangling link": folder / "dangling",
        "no directory": folder / "nowhere" / "fits.h5",
        "of no user": "~nobody-of-this-name/fits.h5",
    }


OFF = {"a long name", "a loop", "in a loop", "in a file"}


def test_open_says_what_is_wrong_with_a_path_and_what_the_disk_refuses_switches_the_store_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, path in bad_paths(tmp_path).items():
        for mode in ("a", "r"):
            if what in OFF:
                with gamwarm.open(path, mode) as store:
                    assert store.disabled_reason, what
                    assert not store.put_record(record_of(1)).written
            with pytest.raises(gamwarm.GamwarmError):
                gamwarm.open(path, mode, on_error="raise")
            if what not in OFF:
                with pytest.raises(gamwarm.GamwarmError):
                    gamwarm.open(path, mode)
    with pytest.raises(FileNotFoundError):
        gamwarm.open(tmp_path / "nowhere" / "fits.h5")


def test_every_door_refuses_a_bad_path_in_text_and_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good, archive = tmp_path / "good.h5", tmp_path / "archive.h5"
    use(good)
    export_archive(good, archive, **WORDS)
    paths = bad_paths(tmp_path)
    content = {each.name: each.read_bytes() for each in (good, archive)}
    with gamwarm.open(good, on_error="raise") as store:
        reads: list[Callable[[object], object]] = [
            store.merge,
            verify_archive,
            lambda path: gamwarm.salvage(path, tmp_path / "saved.h5"),
            lambda path: export_archive(path, tmp_path / "out.h5", **WORDS),
            lambda path: import_archive(path, good),
            lambda path: write_report(path, tmp_path / "page.html"),
        ]
        writes: list[Callable[[object], object]] = [
            store.salvage,
            lambda path: gamwarm.salvage(good, path),
            lambda path: export_archive(good, path, **WORDS),
            lambda path: import_archive(archive, path),
        ]
        for what, path in paths.items():
            for number, act in enumerate([*reads, *writes]):
                try:
                    act(path)
                except gamwarm.GamwarmError:
                    continue
                pytest.fail(f"{what}: call {number} took it")
            if isinstance(path, (str, pathlib.Path)) and "\ud800" not in str(path):
                for words in (["ls"], ["verify"], ["compact"], ["doctor"], ["merge", str(good)]):
                    code = run([*words, str(path)])
                    assert words == ["doctor"] or 0 < code < 70, (what, words)
                    assert "unexpected" not in capsys.readouterr().err
        assert store.disabled_reason is None
    assert {each.name: each.read_bytes() for each in (good, archive)} == content
    assert not (tmp_path / "saved.h5").exists()


ERRORS = [
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ETXTBSY,
]


@pytest.mark.parametrize("call", ["open", "stat", "fstat", "pread"])
def test_whatever_the_system_says_at_opening_is_a_store_that_is_off_or_typed(tmp_path, monkeypatch, call):
    path = tmp_path / "fits.h5"
    use(path)
    real = getattr(vfs.Disk, call)
    for code in ERRORS:
        for at in range(3):
            calls = iter(range(100))

            def failing(self, *given, _code=code, _at=at, _calls=calls):
                if next(_calls) == _at:
                    raise OSError(_code, os.strerror(_code))
                return real(self, *given)

            for mode in ("a", "r"):
                monkeypatch.setattr(vfs.Disk, call, failing)
                with gamwarm.open(path, mode) as store:
                    store.get_record(record_of(1).key)
                calls = iter(range(100))
                with contextlib.suppress(gamwarm.StoreError):
                    gamwarm.open(path, mode, on_error="raise").close()
                monkeypatch.setattr(vfs.Disk, call, real)
    with gamwarm.open(path, on_error="raise") as store:
        assert store.verify().ok


def test_a_tilde_is_the_home_directory_at_every_door(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    with gamwarm.open("~/fits.h5", on_error="raise") as store:
        assert store.path == tmp_path / "fits.h5"
        store.put_record(record_of(1))
        gamwarm.open("~/other.h5").close()
        store.merge("~/other.h5")
        store.salvage("~/saved.h5")
        with store.independent() as own:
            assert own.put_record(record_of(2)).pending
    gamwarm.salvage("~/fits.h5", "~/saved-too.h5")
    export_archive("~/fits.h5", "~/out.h5", **WORDS)
    assert verify_archive("~/out.h5").ok
    import_archive("~/out.h5", "~/in.h5")
    write_report("~/fits.h5", "~/page.html")
    assert run(["merge", "~/fits.h5", "~/in.h5"]) == 0
    assert run(["salvage", "~/fits.h5", "--output=~/again.h5"]) == 0
    made = {each.name for each in tmp_path.iterdir() if each.suffix != ".lock"}
    assert made == {f"{n}.h5" for n in ("fits", "other", "saved", "saved-too", "out", "in", "again")} | {"page.html"}
    capsys.readouterr()


def test_a_working_directory_that_was_removed_is_said(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(gamwarm.StoreError):
        gamwarm.open("fits.h5", on_error="raise")
