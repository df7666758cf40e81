"""Bad input to every subcommand: one clear line on standard error, an exit code that says which,
nothing changed.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import h5py
import pytest

import gamwarm
from gamwarm.archive import export_archive
from gamwarm.cli.exit_codes import Exit
from gamwarm.entries import EntryStore

# How each subcommand that takes a file is called; FILE stands for the file.
CALLS = {
    "ls": ["ls", "FILE"],
    "show": ["show", "FILE", "cf-0000"],
    "stats": ["stats", "FILE"],
    "verify": ["verify", "FILE"],
    "verify --repair": ["verify", "FILE", "--repair", "--wait", "0.1"],
    "compact": ["compact", "FILE", "--wait", "0.1"],
    "evict": ["evict", "FILE", "--size", "0", "--wait", "0.1"],
    "evict --dry-run": ["evict", "FILE", "--size", "0", "--dry-run"],
    "pin": ["pin", "FILE", "cf-0000", "--wait", "0.1"],
    "merge": ["merge", "FILE", "GOOD", "--wait", "0.1"],
    "merge from": ["merge", "GOOD", "FILE", "--wait", "0.1"],
    "export": ["export", "FILE", "-o", "NEW", "--title", "T", "--creator", "A", "--license", "MIT"],
    "import": ["import", "FILE", "NEW"],
    "import into": ["import", "ARCHIVE", "FILE"],
    "report": ["report", "FILE", "-o", "NEW"],
    "explain": ["explain", "FILE", "cf-0000"],
    "lineage": ["lineage", "FILE", "cf-0000"],
}
WRITES = ("verify --repair", "compact", "evict", "pin", "merge")


def image(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def make(kind: str, path: Path, good: Path) -> None:
    if kind == "text":
        path.write_text("not HDF5 at all\n")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "foreign":
        with h5py.File(path, "w") as h5:
            h5.create_group("theirs")
    elif kind == "newer":
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as h5:
            h5.attrs.modify("format_version", 9)
    elif kind == "directory":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("missing", Exit.NO_FILE),
        ("text", Exit.NOT_A_STORE),
        ("empty", Exit.NOT_A_STORE),
        ("foreign", Exit.NOT_A_STORE),
        ("newer", Exit.NOT_A_STORE),
        ("directory", Exit.NOT_A_STORE),
        ("truncated", Exit.DAMAGED),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_a_bad_file_is_one_line_and_its_exit_code_and_nothing_changes(gamwarm_command, stored, kind, code, name):
    if (name, kind) == ("import into", "missing"):
        pytest.skip("a missing file is made")
    call = CALLS[name]
    bad, archive = stored.path.with_name("bad.h5"), stored.path.with_name("archive.h5")
    make(kind, bad, stored.path)
    export_archive(stored.path, archive, title="T", creators="A", license="MIT")
    names = {"FILE": bad, "GOOD": stored.path, "ARCHIVE": archive, "NEW": stored.path.with_name("new")}
    before = image(stored.path.parent)

    ended = gamwarm_command(*[names.get(each, each) for each in call])

    assert ended.code == code
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("gamwarm: ")
    assert "bad.h5" in ended.err
    assert image(stored.path.parent) == before


@pytest.mark.parametrize("call", [CALLS[name] for name in WRITES], ids=WRITES)
def test_a_writer_at_work_is_named_and_waited_for_no_longer_than_told(gamwarm_command, stored, tmp_path, call):
    other = tmp_path / "other"
    other.mkdir()
    gamwarm.open(other / "good.h5").close()
    holder = EntryStore(stored.path)
    call = [{"cf-0000": stored.by_hand}.get(each, each) for each in call]
    call = [{"FILE": stored.path, "GOOD": other / "good.h5"}.get(each, each) for each in call]
    if "--repair" in call:
        with h5py.File(stored.path, "r+") as h5:
            h5.attrs.modify("n_entries", 5)
    held, done = threading.Event(), threading.Event()

    def hold():
        with holder.transaction():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        ended = gamwarm_command(*call)
    finally:
        done.set()
        thread.join()
        holder.close()

    if "--repair" in call:  # what was found could not be put right; that is a warning, and the verdict
        assert ended.code == Exit.NO
    else:
        assert ended.code == Exit.LOCKED
        assert f"pid {os.getpid()}" in ended.err


@pytest.mark.parametrize("call", ["ls", "show", "stats", "verify", "evict --dry-run", "explain", "lineage"])
def test_what_only_reads_works_next_to_a_writer_in_mid_transaction(gamwarm_command, stored, call):
    arguments = [{"FILE": stored.path, "cf-0000": stored.full}.get(each, each) for each in CALLS[call]]
    quiet = gamwarm_command(*arguments, "--json")
    holder = EntryStore(stored.path)
    with holder.transaction():
        beside = gamwarm_command(*arguments, "--json")
    holder.close()

    assert beside.code == quiet.code == 0
    if call != "verify":  # its seconds differ
        assert beside.out == quiet.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_in_a_folder_without_write_permission_is_read_but_not_written(gamwarm_command, stored):
    stored.path.chmod(0o444)
    stored.path.parent.chmod(0o555)
    try:
        assert gamwarm_command("ls", stored.path).code == 0
        assert gamwarm_command("verify", stored.path).code == 0
        assert gamwarm_command("compact", stored.path).code == Exit.NOT_WRITABLE
    finally:
        stored.path.parent.chmod(0o755)


@pytest.mark.parametrize("call", ["compact", "evict", "pin", "merge", "verify --repair"])
def test_no_permission_to_write_is_exit_code_9(gamwarm_command, stored, tmp_path, monkeypatch, call):
    """As root every permission is given, so the question is answered as it would be to others."""
    other = tmp_path / "other"
    other.mkdir()
    gamwarm.open(other / "good.h5").close()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and access(path, mode, **more))
    before = stored.path.read_bytes()
    names = {"FILE": stored.path, "GOOD": other / "good.h5", "cf-0000": stored.by_hand}

    ended = gamwarm_command(*[names.get(each, each) for each in CALLS[call]])

    assert ended.code == Exit.NOT_WRITABLE
    assert len(ended.err.splitlines()) == 1
    assert stored.path.read_bytes() == before


@pytest.mark.parametrize("call", ["show", "pin", "explain", "lineage"])
@pytest.mark.parametrize("key", ["cf-" + 64 * "e", "eeee", 32 * "e"])
def test_an_unknown_key_is_exit_code_4(gamwarm_command, stored, call, key):
    before = stored.path.read_bytes()

    ended = gamwarm_command(*[{"FILE": stored.path, "cf-0000": key}.get(each, each) for each in CALLS[call]])

    assert (ended.code, ended.out) == (Exit.NO_SUCH_KEY, "")
    assert len(ended.err.splitlines()) == 1
    assert stored.path.read_bytes() == before


def test_debug_shows_the_traceback(gamwarm_command, tmp_path):
    ended = gamwarm_command("ls", tmp_path / "missing.h5", "--debug")

    assert ended.code == Exit.NO_FILE
    assert "Traceback" in ended.err
    assert "StoreNotFound" in ended.err


def test_a_fault_of_our_own_is_one_line_too(gamwarm_command, stored, monkeypatch):
    from gamwarm.entries import Browser

    monkeypatch.setattr(Browser, "totals", lambda self: 1 / 0)

    ended = gamwarm_command("stats", stored.path)

    assert ended.code == Exit.INTERNAL
    assert ended.err == "gamwarm: unexpected ZeroDivisionError: division by zero; --debug shows where\n"
