"""What an entry says of itself is taken from its text in one place, and every text gives a summary
or is damage.
"""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import h5py
import pytest

import gamwarm
from gamwarm.encoding.artifact_kind import encode_artifact
from gamwarm.encoding.codec import ARTIFACTS, RECORDS, DamagedEntry
from gamwarm.encoding.entry_kind import KINDS
from gamwarm.encoding.record_kind import encode_record
from gamwarm.encoding.texts import parse_text
from gamwarm.records import Cost, Lineage
from tests.support.crafted import plain
from tests.support.stores import artifact_of, record_of

PACKAGE = Path(__file__).resolve().parents[2] / "gamwarm"
THE_PLACE = {
    *("encoding/codec.py", "encoding/texts.py", "encoding/summary.py", "encoding/entry_kind.py"),
    *(f"encoding/{kind.name}_kind.py" for kind in KINDS.values()),
}
PARSERS = {"parse_text", "_read_meta"}
TAKERS = {"Encoded", "summarize", "place_in_text"}
"""What a parsed text may be handed to outside the one place."""


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def uses_of_raw_metadata(source):
    """Return the lines that take something out of an entry's text: fields of ``meta``, or of what a
    parser returns.
    """
    tree = ast.parse(source)
    handed_on = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            handed_on.add(node.value)
        elif isinstance(node, ast.Call) and name_of(node.func) in TAKERS:
            handed_on |= set(node.args)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            taken = node.attr == "meta" or name_of(node.value) == "meta"
        elif isinstance(node, ast.Subscript):
            taken = name_of(node.value) == "meta"
        elif isinstance(node, ast.Compare):
            taken = any(name_of(each) == "meta" for each in node.comparators)
        else:
            taken = isinstance(node, ast.Call) and name_of(node.func) in PARSERS and node not in handed_on
        if taken:
            found.add(node.lineno)
    return sorted(found)


@pytest.mark.parametrize(
    "module",
    sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")),
)
def test_no_module_outside_the_one_place_takes_fields_out_of_raw_metadata(module):
    if module not in THE_PLACE:
        assert uses_of_raw_metadata((PACKAGE / module).read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        'entry.meta["kind"]',
        'meta["kind"]',
        'meta.get("kind")',
        '"kind" in meta',
        "said = entry.meta",
        'texts.parse_text(section, text)["kind"]',
        "said = view._read_meta(section, path)",
        'show(parse_text(section, text).get("kind"))',
    ],
)
def test_a_use_of_raw_metadata_would_be_seen(source):
    assert uses_of_raw_metadata(source) == [1]


def test_a_text_that_is_only_handed_on_is_let_pass():
    assert uses_of_raw_metadata("found = Encoded(section, key, texts.parse_text(section, text), arrays)") == []


START = Lineage("transfer", "ab" * 16, (("mean", "projected"),), True)
TEXTS = {
    RECORDS: encode_record(record_of(created=5, lineage=START, cost=Cost(1, 2, 3, 4, 5.0), attributes={"job": 1})).meta,
    ARTIFACTS: encode_artifact(artifact_of(created=5, lineage=START, cost=Cost(1, 2, 3, 4, 5.0))).meta,
}


@pytest.mark.parametrize(
    "change",
    [
        {"lineage": TEXTS[RECORDS]["lineage"] | {"terms": [["mean", "borrowed"]]}},
        {"lineage": TEXTS[RECORDS]["lineage"] | {"terms": [["", "cold"]]}},
        {"lineage": TEXTS[RECORDS]["lineage"] | {"source": "dream"}},
        {"cost": TEXTS[RECORDS]["cost"] | {"seconds": -1.0}},
        {"attributes": {"": 1}},
        {"attributes": {"huge": 10**400}},
    ],
)
@pytest.mark.parametrize("section", [RECORDS, ARTIFACTS])
def test_a_text_whose_parts_no_record_could_have_is_damage_before_a_summary_is_made_of_it(section, change):
    assert KINDS[section].summarize("key", parse_text(section, plain(TEXTS[section]))).lineage == START

    with pytest.raises(DamagedEntry):
        parse_text(section, plain(TEXTS[section] | change))


def test_a_put_in_place_of_a_damaged_entry_leaves_no_exception_whose_frames_hold_handles(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.put_record(record_of(1))
    with h5py.File(tmp_path / "fits.h5", "r+") as file:
        next(iter(file[RECORDS].values())).attrs["rho"] = "text"
    gc.collect()
    gc.disable()
    try:
        with gamwarm.open(tmp_path / "fits.h5") as store:
            assert store.put_record(record_of(1, 2.0)).written
        assert [each for each in gc.get_objects() if isinstance(each, DamagedEntry)] == []
    finally:
        gc.enable()
