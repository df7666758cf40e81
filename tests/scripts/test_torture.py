"""`scripts/torture`: what it runs passes, and a failure ends it with a code, the seed and how to
repeat it.
"""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from tests.support import torture

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def loud():
    """`main` silences the logger for itself; other tests in this process listen to it."""
    log = logging.getLogger("gamwarm")
    before, handlers = log.propagate, list(log.handlers)
    yield
    log.propagate, log.handlers = before, handlers


def test_one_round_of_kills_passes_and_is_counted(capsys):
    assert torture.main(["--rounds", "1", "--seed", "5", "--only", "kill"]) == 0
    words = capsys.readouterr().out
    assert "children killed" in words
    assert words.endswith("torture: passed\n")


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(torture.KINDS))
def test_rounds_of_every_kind_pass(kind):
    assert torture.main(["--rounds", "3", "--minutes", "10", "--only", kind]) == 0


def test_a_failure_ends_it_with_its_seed(capsys, monkeypatch):
    def broken(directory, seed):
        assert seed < 8, "a lost record"
        return Counter()

    monkeypatch.setitem(torture.KINDS, "kill", broken)
    assert torture.main(["--seed", "6", "--only", "kill"]) == 1
    words = capsys.readouterr().out
    assert "FAILED: kill, seed 8" in words
    assert "scripts/torture --only kill --seed 8 --rounds 1" in words
