"""What a crafted file can do to a process: nothing. Values of other forms and malformed texts are damaged entries."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import GamwarmError, StoreDamaged
from gamwarm.storage import texts
from gamwarm.storage.codec import ARTIFACTS, RECORDS, DamagedEntry
from tests.support import crafted, crafted_run, crafted_worker
from tests.support.stores import artifact_of, exact_key_of, record_of

PACKAGE = Path(gamwarm.__file__).parent
KEY, OTHER, NEW = (exact_key_of(number) for number in (1, 2, 3))
PLACE = f"block_records/{KEY}"


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
    assert sorted(found) == ["demo/report.py", "storage/_values.py"]  # the demo prints how a user looks with h5py


# -- every value replaced by every other -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "thorough"), [(14, 0.1), pytest.param(10**9, 0.05, marks=[pytest.mark.long, pytest.mark.timeout(20_000)])]
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
