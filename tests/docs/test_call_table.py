"""The table of docs/parallel.md names every public call and says truly whether it is collective or
local.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import gamwarm
from gamwarm import DistributedRows
from tests.support.stores import artifact_of, exact_key_of, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "parallel.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")][2:]
CLASSES = [
    gamwarm.WarmStartStore,
    gamwarm.FrozenView,
    gamwarm.FitInProgress,
    gamwarm.IndependentStore,
    gamwarm.Walltime,
    gamwarm.DistributedRows,
]


def names_in(cell):
    """Return what the code spans of a cell call: the last dotted part, without arguments."""
    return {re.sub(r"\(.*", "", span).split(".")[-1] for span in re.findall(r"`([^`]+)`", cell)}


KINDS = {}
for row in ROWS:
    for name in names_in(row[0]):
        KINDS.setdefault(name, row[1].split()[0].rstrip(";"))


def test_every_line_says_collective_or_local():
    assert len(ROWS) > 15
    assert {row[1].split()[0].rstrip(";") for row in ROWS} == {"collective", "local"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_public_call_is_in_the_table(cls):
    missing = [name for name in dir(cls) if not name.startswith("_") and name not in KINDS]

    assert missing == [], f"add these calls of {cls.__name__} to the table of docs/parallel.md"


CALLS = {
    "check_open": lambda s, _: s.check_open(),
    "close": lambda s, _: s.close(),
    "comm": lambda s, _: s.comm,
    "compact": lambda s, _: s.compact(),
    "disabled_reason": lambda s, _: s.disabled_reason,
    "entry_ids": lambda s, _: s.entry_ids(),
    "evict": lambda s, _: s.evict(size_budget=10**9),
    "explain": lambda s, _: s.explain(plain_fit()),
    "fit": lambda s, _: s.fit(plain_fit()).__enter__(),
    "frozen": lambda s, _: s.frozen(),
    "generation": lambda s, _: s.generation,
    "get_artifact": lambda s, _: s.get_artifact(artifact_of().descriptor.key),
    "get_record": lambda s, _: s.get_record(exact_key_of(1)),
    "independent": lambda s, _: s.independent().close(),
    "keep": lambda s, _: s.keep(plain_fit(), result_of(plain_fit())),
    "keys": lambda s, _: s.keys(),
    "len": lambda s, _: len(s),
    "merge": lambda s, folder: s.merge(other(folder)),
    "mode": lambda s, _: s.mode,
    "open": lambda s, folder: gamwarm.open(folder / "again.h5", comm=s.comm),
    "path": lambda s, _: s.path,
    "pin": lambda s, _: s.pin("0" * 32),
    "pins": lambda s, _: s.pins(),
    "put_artifact": lambda s, _: s.put_artifact(artifact_of()),
    "put_record": lambda s, _: s.put_record(record_of(2)),
    "repr": lambda s, _: repr(s),
    "salvage": lambda s, folder: s.salvage(folder / "salvaged.h5"),
    "savings": lambda s, _: s.savings(),
    "should_stop": lambda s, _: s.should_stop(),
    "should_stop_fits": lambda s, _: s.should_stop_fits(),
    "start_for": lambda s, _: s.start_for(plain_fit()),
    "time_left": lambda s, _: s.time_left(),
    "transaction": lambda s, _: s.transaction().__enter__(),
    "verify": lambda s, _: s.verify(),
    "walltime": lambda s, _: s.walltime(),
    # Of other objects.
    "DistributedRows": lambda s, _: DistributedRows(np.zeros((2, 2)), s.comm),
    "build_warm_start": None,  # tests/transfer/test_shared_projections.py counts its messages
    "exact_key": lambda s, _: gamwarm.exact_key(
        plain_fit().family, plain_fit().specs, plain_fit().options, engine="tests", comm=s.comm
    ),
    "matrix_digest": lambda s, _: gamwarm.matrix_digest(np.zeros((2, 2)), s.comm),
    "row_chunk": lambda s, _: DistributedRows(np.zeros((2, 2)), None).row_chunk(0, 1),
}


def other(folder):
    with gamwarm.open(folder / "other.h5") as store:
        store.put_record(record_of(7))
    return folder / "other.h5"


def test_every_call_of_a_store_is_tried_below():
    public = {name for name in dir(gamwarm.WarmStartStore) if not name.startswith("_")}

    assert public <= set(CALLS), "say here how to call it"


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call is not None])
def test_a_collective_call_sends_messages_and_a_local_one_none(name, tmp_path):
    def run(comm):
        store = gamwarm.open(tmp_path / "fits.h5", comm=comm)
        store.put_record(record_of(1))
        before = comm.exchanges
        CALLS[name](store, tmp_path)
        return comm.exchanges - before

    (sent,) = on_ranks(1, run)

    assert not isinstance(sent, Exception), sent
    assert (sent > 0) == (KINDS[name] == "collective"), f"{name} is called {KINDS[name]} and sends {sent} messages"
