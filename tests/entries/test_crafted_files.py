"""What a crafted file can do to a process: nothing. Values of other forms and malformed texts are
damaged entries.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamwarm
from gamwarm.encoding import texts
from gamwarm.encoding.artifact_kind import encode_artifact
from gamwarm.encoding.codec import ARTIFACTS, RECORDS, DamagedEntry, Encoded, check_content, decode, stamped
from gamwarm.encoding.record_kind import encode_record
from gamwarm.entries import stored_values
from tests.support import crafted, crafted_run, crafted_worker
from tests.support.stores import artifact_of, exact_key_of, record_of

PACKAGE = Path(gamwarm.__file__).parent
KEY, OTHER = (exact_key_of(number) for number in (1, 2))
PLACE = f"block_records/{KEY}"
TEXTS = {
    RECORDS: encode_record(stamped(record_of(1), 5, gamwarm.Producer("tests", "1"))).meta,
    ARTIFACTS: encode_artifact(stamped(artifact_of(), 5, gamwarm.Producer("tests", "1"))).meta,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
        store.put_record(record_of(2))
        store.put_artifact(artifact_of())
    return path


def test_no_module_but_one_reads_values_or_follows_links_with_hdf5s_own_calls():
    direct = re.compile(r"\bh5[ado]\.open|\.attrs\b|h5py\.(Dataset|Group)\(|h5g\.open\((?!.*b\"/\")|\.visit(items)?\(")
    found = {
        file.relative_to(PACKAGE).as_posix(): direct.findall(file.read_text())
        for file in PACKAGE.rglob("*.py")
        if direct.search(file.read_text())
    }
    # The demo prints how a user looks with h5py; what judges a late closing opens objects for their
    # extents alone.
    assert sorted(found) == ["demo/report.py", "entries/stored_values.py", "storage/late_close.py"]


# -- every value replaced by every other -----------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "thorough"),
    [(14, 0.1), pytest.param(10**9, 0.05, marks=[pytest.mark.long, pytest.mark.timeout(20_000)])],
)
def test_a_value_replaced_by_anything_ends_no_process_and_serves_no_wrong_number(tmp_path, number, thorough):
    crafted_worker.fill(tmp_path)
    every = crafted_worker.cases(tmp_path)
    seed = random.randrange(10**6)
    chosen = random.Random(seed).sample(range(len(every)), min(number, len(every)))
    outcomes = crafted_run.judge(tmp_path, list(map(str, every)), chosen, thorough=thorough, seed=seed)
    print(f"seed {seed}, {len(every)} cases: {dict(outcomes.counts)}")
    assert outcomes.counts["looked at"] > len(chosen) / 2
    assert not outcomes.wrong, outcomes.wrong[:20]


def test_every_other_form_of_a_vector_is_refused_before_it_is_read(path):
    """In this process: what ends it is a finding too."""
    right = ["<f8 (2,)", "<f8 (875,)"]
    passed = []
    for what, put in crafted.replacements():
        copy = path.with_name("crafted.h5")
        shutil.copy(path, copy)
        with h5py.File(copy, "r+") as h5:
            try:
                crafted.replace(h5, (PLACE, "rho"), put)
            except (OSError, ValueError, TypeError):
                continue
        with h5py.File(copy) as h5, contextlib.suppress(stored_values.Misshapen):
            if stored_values.read(h5[PLACE].id, b"rho", copy.stat().st_size) is not None:
                passed.append(what)
    assert passed == [*right, "dataset of two numbers"]


# -- texts under a right seal ----------------------------------------------------------------------


def changed(**fields):
    return lambda meta: crafted.plain(meta | fields)


def without(name):
    return lambda meta: crafted.plain({field: value for field, value in meta.items() if field != name})


MALFORMED = {
    "nothing": lambda _: b"",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "two objects": lambda meta: crafted.plain(meta) * 2,
    "no JSON": lambda _: b"{not json",
    "no UTF-8": lambda meta: crafted.plain(meta).replace(b"mean", b"m\xff\xfen"),
    "deep": lambda _: b"[" * 50_000,
    "deep inside": lambda meta: crafted.plain(meta).replace(b'"cost"', b'"x":' + b"[" * 900 + b"]" * 900 + b',"cost"'),
    "NaN": lambda meta: crafted.plain(meta | {"objective": float("nan")}),
    "a number beyond binary64": lambda meta: crafted.plain(meta).replace(b'"objective":1.0', b'"objective":1e999'),
    "an integer of 5,000 digits": lambda meta: crafted.plain(meta).replace(b'"n_rows":50', b'"n_rows":' + b"9" * 5000),
    "a field twice": lambda meta: crafted.plain(meta).replace(b'"n_rows":50', b'"n_rows":49,"n_rows":50'),
    "half a character": lambda meta: crafted.plain(meta).replace(b'"mean"', b'"\\ud800"'),
    "another entry id": changed(entry_id="Z" * 32),
    "no entry id": without("entry_id"),
    "an artifact's": changed(entry="artifact"),
    **{f"no {name}": without(name) for name in ("created", "producer", "cost", "kind", "widths", "lineage")},
    **{f"created {value}": changed(created=value) for value in (-1, 2**63 - 1, 2**63, 10**30, 1.5, "1", True, None)},
    **{f"n_rows {value}": changed(n_rows=value) for value in (-1, 2**63, 1.0, [], {})},
    "lineage a list": changed(lineage=[1]),
    "lineage of others": changed(lineage={"source": "exact", "entry": 5, "terms": [[1]], "consumed": 0}),
    "attributes nested": changed(attributes={"a": {"b": []}}),
    "blocks numbers": changed(blocks=[1, 2]),
    "widths that do not fit": changed(widths=[3, 2**40]),
    "kind unknown": changed(kind=["final"]),
    "curvature unknown": changed(curvature=["jacobian"]),
    "producer null": changed(producer=None),
    "cost of texts": changed(cost=dict.fromkeys(("evaluations", "seconds"), "many")),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_text_under_a_right_seal_is_one_damaged_entry_that_verify_lists(path, tmp_path, what):
    with h5py.File(path) as h5:
        meta = crafted.text_of(h5[PLACE])
    crafted.sealed_text(path, PLACE, MALFORMED[what](meta))

    with gamwarm.open(tmp_path / "into.h5", on_error="raise") as store:
        assert [problem.place for problem in store.merge(path).problems] == [f"/{PLACE}"]
        assert store.put_record(record_of(3)).written
    with gamwarm.open(path, on_error="raise") as store:
        assert store.get_record(KEY) is None
        assert store.get_record(OTHER) is not None
        assert len(store.entry_ids()) == 2
        assert [problem.place for problem in store.verify().problems] == [f"/{PLACE}"]
        assert store.put_record(record_of(3)).written
        assert store.put_record(record_of(1)).written
        assert store.verify().ok


@pytest.mark.parametrize(
    "change",
    [
        {"created": float("inf")},
        {"n_rows": "many"},
        {"terms": 3},
        {"terms": [[]]},
        {"terms": [{"reduced_width": 1}]},
        {"producer": {"x": 1}},
        {"structural_key": "structural"},
        {"descriptor": {"family_kind": "x"}},
        {"seeds": {"column": "x", "labels": [1], "n_outer": -1}},
    ],
)
def test_a_malformed_text_of_an_artifact_is_refused_before_anything_is_taken_from_it(change):
    assert texts.parse_text(ARTIFACTS, crafted.plain(TEXTS[ARTIFACTS]))

    with pytest.raises(DamagedEntry):
        texts.parse_text(ARTIFACTS, crafted.plain(TEXTS[ARTIFACTS] | change))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(data=st.data())
def test_any_json_in_any_place_of_a_text_is_read_or_refused_as_damaged(data):
    section, meta = data.draw(st.sampled_from(sorted(TEXTS.items())))
    spot = meta = json.loads(json.dumps(meta))
    while isinstance(spot, (dict, list)) and spot:
        parent, name = spot, data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        spot = parent[name]
        if data.draw(st.booleans()):
            break
    parent[name] = data.draw(json_values)
    text = json.dumps(meta).encode()
    found = None
    with contextlib.suppress(DamagedEntry):
        found = Encoded(section, "cf-" + "1" * 64, texts.parse_text(section, text), {})
        assert 0 <= found.created <= texts.LATEST
        assert len(found.entry_id) == 32
    for look in (check_content, decode) if found else ():
        with contextlib.suppress(DamagedEntry):
            look(found)


@given(text=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_no_text_of_an_entry(text):
    with pytest.raises(DamagedEntry):
        texts.parse_text(RECORDS, text)
