"""Version marks: declared in one module, and another version is refused by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import h5py
import pytest

import gamwarm
from gamwarm import NewerFormat, OlderFormat, formats
from gamwarm.archive import export_archive, verify_archive
from gamwarm.formats import Format
from gamwarm.storage import HEADER_BYTES, UUID_BYTES, UUID_OFFSET, Header
from tests.support.stores import record_of

PACKAGE = Path(gamwarm.__file__).parent
LAYOUTS = {name: value for name, value in vars(formats).items() if isinstance(value, Format)}
MARK = re.compile(r"gamwarm(-[a-z]+)+[- ]v?\d+|gamwarm\d+|GW[A-Z]+V?\d.*|GAMWARM\n", re.DOTALL)
NUMBER = re.compile(r"_?([A-Z]+_)*(FORMAT|VERSION|SCHEMA|MAGIC|MARK)(_[A-Z]+)*")


def marks_in(source: str) -> list[str]:
    """Return the version marks that a module spells out: texts that look like one, and constants
    called so.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if MARK.fullmatch(text):
                found.append(text)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [t.id for t in targets if isinstance(t, ast.Name) and NUMBER.fullmatch(t.id)]
            found += [name for name in names if isinstance(node.value.value, (int, bytes))]
    return found


def test_no_other_module_spells_a_version_mark():
    modules = {str(path.relative_to(PACKAGE)): marks_in(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

    assert {name for name, found in modules.items() if found} == {"formats.py"}


@pytest.mark.parametrize(
    "line",
    [
        'x = b"GWJRNL1\\n"',
        'write("gamwarm-schema-2")',
        "ENTRY_FORMAT: Final = 1",
        'MAGIC = b"GAMWARM\\n"',
        "VERSION = 3",
    ],
)
def test_a_mark_elsewhere_would_be_seen(line):
    assert marks_in(line)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("step", "error"), [(+1, NewerFormat), (-1, OlderFormat)])
def test_a_version_that_is_not_read_is_refused_with_both_versions_and_the_next_step(name, step, error):
    layout = LAYOUTS[name]
    known = layout.current if step > 0 else layout.oldest

    with pytest.raises(
        error, match=rf"fits\.h5: {layout.name} {known + step}, .* {known}\b.*(upgrade|open it with)"
    ) as e:
        layout.check(known + step, "fits.h5")

    assert e.value.details == {"path": "fits.h5", "format_version": known + step}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_version_that_is_read_is_let_pass(name):
    layout = LAYOUTS[name]

    assert [layout.check(v, "f") for v in range(layout.oldest, layout.current + 1)] == [
        *range(layout.oldest, layout.current + 1)
    ]


def mark_file(path: Path, version: int) -> None:
    data = bytearray(path.read_bytes())
    data[8:10] = version.to_bytes(2, "little")
    path.write_bytes(data)


def mark_entries(path: Path, version: int) -> None:
    with h5py.File(path, "r+") as h5:
        h5.attrs.modify("format_version", version)


def mark_journal(path: Path, version: int) -> None:
    Path(f"{path}-journal").write_bytes(b"GWJRNL%d\n" % version + bytes(4088))


def mark_archive(path: Path, version: int) -> None:
    with h5py.File(path, "r+") as h5:
        h5["archive"].attrs.modify("archive_format", version)


MARKED = {"FILE": mark_file, "ENTRY": mark_entries, "JOURNAL": mark_journal, "ARCHIVE": mark_archive}


def test_every_layout_is_tried():
    assert set(MARKED) == set(LAYOUTS)


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize(("version", "error"), [(0, OlderFormat), (9, NewerFormat)])
@pytest.mark.parametrize("name", MARKED)
def test_a_file_with_another_mark_is_refused_and_unchanged(tmp_path, name, version, error, mode):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path, on_error="raise") as store:
        store.put_record(record_of(1))
    if name == "JOURNAL":  # looked at where the header is of another boot, or somebody writes
        header = Header(2, path.read_bytes()[UUID_OFFSET : UUID_OFFSET + UUID_BYTES], bytes(8), 0)
        path.write_bytes(header.pack() + path.read_bytes()[HEADER_BYTES:])
    if name == "ARCHIVE":
        export_archive(path, tmp_path / "archive.h5", title="t", creators="c", license="CC0-1.0")
        path = tmp_path / "archive.h5"
    MARKED[name](path, version)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}

    with pytest.raises(error, match=rf"{LAYOUTS[name].name} {version}\b"):
        verify_archive(path) if name == "ARCHIVE" else gamwarm.open(path, mode=mode, on_error="raise")

    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before
