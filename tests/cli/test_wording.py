"""Advice that the Python interface gives is told in the words of the command."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from gamwarm.cli.exit_codes import Exit, exit_of
from gamwarm.cli.wording import in_own_words

PACKAGE = Path(__file__).resolve().parents[2] / "gamwarm"
BELOW = ("storage", "entries", "maintenance", "archive", "report", "encoding", "checks.py", "errors.py")
PYTHON = re.compile(r"mode='|lock='|overwrite=|lock_timeout|gamwarm\.[a-z]+|\b\w+\(\)|creators=")
OF_PYTHON_ALONE = re.compile(
    r"^(?!X?: )|gamwarm\.(entries|encoding|storage|archive|problem)|\(\) inside|is not callable"
)


def texts():
    """Every message of the layers that the command calls, with X for what is filled in."""
    for name in BELOW:
        path = PACKAGE / name
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(each.value if isinstance(each, ast.Constant) else "X" for each in node.values)


def test_no_message_below_the_command_keeps_words_of_python():
    advice = [text for text in texts() if PYTHON.search(text) and not OF_PYTHON_ALONE.search(text)]

    assert len(advice) > 10, "the search finds messages"
    left = {text: PYTHON.search(in_own_words(text)) for text in advice}
    assert {text: found.group(0) for text, found in left.items() if found} == {}


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ("a.h5: exists already; give another path, or overwrite=True", "or add --overwrite"),
        ("recover the readable entries with gamwarm.salvage(path, into).", "with `gamwarm salvage FILE -o NEW`."),
        ("no permission. Open it with mode='r', or give this account", "no permission. Give this account"),
        ("x.h5: no such file. Check the path; mode='a' creates a missing file.", "no such file. Check the path."),
    ],
)
def test_advice_reads_as_a_sentence(python, command):
    assert command in in_own_words(python)


def test_a_text_without_advice_stays_as_it_is():
    assert in_own_words("a.h5: HDF5 cannot read 'mode' (gamwarm)") == "a.h5: HDF5 cannot read 'mode' (gamwarm)"


def test_warnings_of_the_log_are_told_so_too(gamwarm_command, stored):
    assert gamwarm_command("ls", stored.path).code == 0  # puts its handler in place
    from io import StringIO

    said = StringIO()
    for handler in logging.getLogger("gamwarm").handlers:
        if type(handler).__module__.startswith("gamwarm.cli"):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr("sys.stderr", said)
                handler.emit(logging.LogRecord("gamwarm", 30, "", 0, "verify() lists all such entries", (), None))

    assert "`gamwarm verify` lists all such entries" in said.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied"), Exit.NOT_WRITABLE),
        (FileNotFoundError(2, "No such file or directory"), Exit.NO_FILE),
        (NotADirectoryError(20, "Not a directory"), Exit.NO_FILE),
        (OSError(28, "No space left on device"), Exit.DISK),
    ],
)
def test_errors_of_the_system_end_with_the_code_of_their_kind(error, code):
    assert exit_of(error) is code


MISSING = {
    "report": ["report", "FILE", "-o", "NOWHERE/x.html"],
    "export": ["export", "FILE", "-o", "NOWHERE/x.h5"],
    "salvage": ["salvage", "FILE", "-o", "NOWHERE/x.h5"],
    "import": ["import", "ARCHIVE", "NOWHERE/x.h5"],
    "merge": ["merge", "NOWHERE/x.h5", "FILE", "--create"],
    "ls": ["ls", "NOWHERE/x.h5"],
    "doctor": ["doctor", "NOWHERE"],
}


@pytest.mark.parametrize("call", MISSING.values(), ids=MISSING)
def test_a_missing_directory_is_exit_code_5(gamwarm_command, stored, tmp_path, call):
    archive, nowhere = tmp_path / "archive.h5", tmp_path / "nowhere"
    if "ARCHIVE" in call:
        assert gamwarm_command("export", stored.path, "-o", archive).code == 0
    places = {"FILE": stored.path, "ARCHIVE": archive}

    ended = gamwarm_command(*(places.get(word, word.replace("NOWHERE", str(nowhere))) for word in call))

    assert ended.code == Exit.NO_FILE
    assert len(ended.err.splitlines()) == 1
    assert not nowhere.exists()


@pytest.mark.parametrize("name", ["ls", "verify", "report"])
def test_a_file_that_may_not_be_read_is_not_an_error_of_usage(gamwarm_command, stored, monkeypatch, name):
    def refused(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("gamwarm.storage.vfs.DISK.open", refused)
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    output = ["-o", stored.path.with_name("new.html")] if name == "report" else []

    ended = gamwarm_command(name, stored.path, *output)

    assert ended.code == Exit.NOT_WRITABLE
    assert "Give this account permission to read it" in ended.err
