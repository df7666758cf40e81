"""Calls of a store's files killed, failed or cut short below libc: nothing acknowledged is lost,
errors are typed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest

from tests.support.faults import ACTIONS, CONTROLS, WORKS, Faults, Wrong, compiler, some_runs

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or compiler() is None, reason="no C compiler"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    with Faults() as made:
        yield made


def test_no_fault_breaks_a_promise(faults):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    faults.try_out(some_runs(faults, seed, 80))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_fault_at_any_call_of_any_work_breaks_a_promise(faults):
    runs = faults.every_run()
    assert len(runs) >= 5000
    assert {work for work, _, _ in runs} == set(WORKS)
    assert {action for _, action, _ in runs} == set(ACTIONS)
    faults.try_out(runs)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_store_that_breaks_a_rule_would_be_noticed_by_this_kit(faults, control):
    last = faults.calls("put and close", "killed before")
    for number in range(last // 3, last + 1):
        if faults.run("put and close", "killed before", number, control)["wrong"]:
            return
    pytest.fail("no kill of any call showed it")


def test_a_fault_strikes_the_call_that_it_is_meant_for(faults):
    count = faults.calls("transaction", "killed before")
    assert faults.run("transaction", "killed before", count)["killed"]
    assert not faults.run("transaction", "killed before", count + 1)["killed"]
    assert faults.run("put and close", "EIO from then on", 1)["errors"]


def test_failures_are_listed_with_what_it_takes_to_repeat_them(faults, monkeypatch):
    monkeypatch.setattr(Faults, "run", lambda *given: {"wrong": "lost", "errors": []})
    with pytest.raises(Wrong, match=r"2 of 2 runs .*\n.*merge, EINTR at call 3: lost"):
        faults.try_out([("merge", "EINTR", 3), ("put and close", "EINTR", 1)])
