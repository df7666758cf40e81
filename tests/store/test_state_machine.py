"""The store against two dicts: every rule of keeping and looking up, under kills, reopening and
other processes.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import gamwarm
from gamwarm import BlockRecord
from gamwarm.encoding import ranking
from gamwarm.records import Producer
from tests.support import crash_simulator as kit
from tests.support import torture_kills as kills
from tests.support.stores import exact_key_of, plain_fit, result_of
from tests.support.torture_model import STORE_PRODUCER, Model, ModelEntry, random_artifact, random_record, see

pytestmark = pytest.mark.timeout(3000)

SEEDS = st.integers(0, 2**32 - 1)
ASKERS = (STORE_PRODUCER, Producer("other", "2"), Producer("third", "1"), None)
PROBE = plain_fit(seed=99, n=77)


class StoreMachine(RuleBasedStateMachine):
    """One file; a first handle of mode r or a, perhaps a second one, and children."""

    @initialize()
    def begin(self):
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(kit.disk(kit.Fast()))
        self.folder = Path(tempfile.mkdtemp(prefix="gamwarm-machine-"))
        self.path = self.folder / kit.NAME
        self.model = Model()
        self.pins: set[str] = set()
        self.salt = 0
        self.store = self.opened("a")
        self.second = None
        self.view = self.view_parent = None

    def opened(self, mode):
        return gamwarm.open(self.path, mode, engine="tests", engine_version="1", on_error="raise")

    def teardown(self):
        if hasattr(self, "store"):
            for store in (self.store, self.second):
                if store is not None:
                    store.close()
            self.opened("a").close()  # readers leave a dead writer's journal where it is
            left = {p.name for p in self.folder.iterdir()} - {kit.NAME, f"{kit.NAME}.lock"}
            shutil.rmtree(self.folder)
            self.stack.close()
            assert not left, left

    def writers(self):
        return [store for store in (self.store, self.second) if store is not None and store.mode == "a"]

    def some_entry(self, seed):
        self.salt += 1
        rng = random.Random(seed)
        big = rng.random() < 0.03
        # A small salt now and then, so that the same content comes again.
        salt = self.salt if rng.random() < 0.8 else rng.randrange(3)
        return (random_record if rng.random() < 0.6 else random_artifact)(rng, salt=salt, big=big)

    def put(self, store, entry):
        """File an entry in store and model; returns the outcome, checked."""
        if isinstance(entry, BlockRecord):
            outcome, expected = store.put_record(entry), self.model.put_record(entry)
        else:
            outcome, expected = store.put_artifact(entry), self.model.put_artifact(entry)
        note(f"{expected}: {outcome}")
        if expected in ("refused", "worse"):
            assert not outcome.written
            assert not outcome.pending
            assert outcome.reason
        return outcome, expected

    # -- putting -----------------------------------------------------------------------------------

    @precondition(lambda self: self.writers())
    @rule(seed=SEEDS)
    def put_one(self, seed):
        outcome, expected = self.put(random.Random(seed).choice(self.writers()), self.some_entry(seed))
        assert outcome.written == (expected in ("new", "same"))
        assert not outcome.pending

    @precondition(lambda self: self.writers())
    @rule(seed=SEEDS, number=st.integers(1, 5), fails=st.booleans())
    def put_in_a_transaction(self, seed, number, fails):
        before = self.model.copy()
        store = random.Random(seed).choice(self.writers())
        outcomes = []
        with contextlib.suppress(ZeroDivisionError), store.transaction():
            outcomes += [self.put(store, self.some_entry(seed + each)) for each in range(number)]
            assert see(store._file) == self.model.seen(), "one's own pending entries are seen"
            if fails:
                raise ZeroDivisionError
        if fails:
            before.turn = self.model.turn
            self.model = before
        for outcome, expected in outcomes:
            assert not outcome.pending
            if not fails:
                assert outcome.written == (expected in ("new", "same"))
            elif expected == "new":
                assert not outcome.written

    @precondition(lambda self: self.writers())
    @rule(seed=st.integers(0, 3), rows=st.sampled_from((30, 40, 50)), value=st.integers(1, 9))
    def keep_a_fit(self, seed, rows, value):
        problem = plain_fit(seed=seed, n=rows)
        store = self.writers()[0]
        kept = store.keep(problem, result_of(problem, float(value)))
        assert kept.record.written
        assert kept.artifact.written
        record = store.get_record(problem.key)
        artifact = store._file.find_artifact(kept.artifact.entry_id).artifact
        assert record.objective == float(value)
        self.model.put_record(record)
        self.model.put_artifact(artifact)

    # -- looking up --------------------------------------------------------------------------------

    @rule(key=st.integers(0, 4), asker=st.sampled_from(ASKERS))
    def look_up(self, key, asker):
        for store in (self.store, self.second):
            if store is not None:
                found = store._file.find_record(exact_key_of(key), asker)
                expected = self.model.find_record(exact_key_of(key), asker)
                assert (None if found is None else found.record) == expected

    @invariant()
    def every_handle_shows_the_model(self):
        if not hasattr(self, "store"):
            return
        expected = self.model.seen()
        for store in (self.store, self.second):
            if store is None:
                continue
            assert see(store._file) == expected
            assert len(store) == len(expected.ids)
            for key in expected.records:
                assert store.get_record(key) == expected.records[key]
            for key in expected.artifacts:
                assert store.get_artifact(key) == self.model.find_artifact(key)
        if self.view is not None and self.view_parent in (*expected.ids, None):
            assert self.view.start_for(PROBE).parent == self.view_parent, "a frozen view's parents do not change"

    @rule()
    def verify(self):
        report = self.store.verify()
        assert report.ok, [str(problem) for problem in report.problems]
        assert report.entries == len(self.model.held())

    @rule()
    def freeze(self):
        self.view = self.store.frozen()
        self.view_parent = self.view.start_for(PROBE).parent
        self.view_holds = {entry_id for found in self.model.artifacts.values() for entry_id in found}
        assert self.view_parent == self.store.start_for(PROBE).parent

    # -- handles, processes and kills --------------------------------------------------------------

    @rule(mode=st.sampled_from("ra"))
    def reopen(self, mode):
        self.store.close()
        self.view = None
        self.store = self.opened(mode)

    @rule(mode=st.sampled_from("ra"))
    def open_or_close_a_second_handle(self, mode):
        if self.second is None:
            self.second = self.opened(mode)
        else:
            self.second.close()
            self.second = None

    @rule(seed=SEEDS)
    def another_process_puts(self, seed):
        self.salt += 1
        plan = kills.random_plan(random.Random(seed), self.salt)
        acked, killed = kills.put_in_child(self.path, plan, None)
        assert (acked, killed) == (len(plan), False)
        self.model = kills.models_after(self.model, plan)[-1]

    @rule(seed=SEEDS, calls=st.integers(1, 50), how=st.sampled_from(("reopen a", "reopen r", "go on")))
    def another_process_is_killed(self, seed, calls, how):
        self.salt += 1
        plan = kills.random_plan(random.Random(seed), self.salt)
        acked, killed = kills.put_in_child(self.path, plan, calls)
        if how != "go on":
            self.reopen(how[-1])
        self.model = kills.settle(self.store._file, kills.models_after(self.model, plan), acked, killed)

    @precondition(lambda self: self.writers())
    @rule(seed=SEEDS, again=st.sampled_from("ra"))
    def this_handle_is_gone_without_a_close(self, seed, again):
        """As a collected object, or an interpreter that was stopped: what was acknowledged lies in
        file and journal.
        """
        self.put_one(seed)
        self.store._file.container._abandon()
        self.view = None
        self.store = self.opened(again)

    # -- upkeep ------------------------------------------------------------------------------------

    @precondition(lambda self: self.writers() and self.model.held())
    @rule(pick=SEEDS, pinned=st.booleans())
    def pin(self, pick, pinned):
        entry_id = random.Random(pick).choice(sorted(self.model.held()))
        assert self.writers()[0].pin(entry_id, pinned)
        self.pins = self.pins | {entry_id} if pinned else self.pins - {entry_id}

    @precondition(lambda self: self.writers())
    @rule(part=st.sampled_from((0.0, 0.5, 0.9, 2.0)))
    def evict(self, part):
        store = self.writers()[0]
        held = self.model.held()
        weights = {e.entry_id: e.nbytes for e in store.evict(size_budget=0, dry_run=True).evicted}
        stays = set(self.pins)
        if self.view is not None and store is self.store:
            stays |= self.view_holds  # parents of a campaign under way
        assert set(weights) == set(held) - stays, "all but what is pinned may go"
        live = store.evict(size_budget=2**60, dry_run=True).bytes_before
        budget = round(live * part)
        gone = []
        for old in sorted(held.values(), key=lambda h: h.turn):
            if live > budget and old.entry_id in weights:
                gone.append(old.entry_id)
                live -= weights[old.entry_id]
        planned = store.evict(size_budget=budget, dry_run=True)
        assert list(planned.entry_ids) == gone
        self.every_handle_shows_the_model()
        report = store.evict(size_budget=budget)
        assert report.entry_ids == planned.entry_ids
        assert report.bytes_after == live
        self.model.forget(gone)

    @precondition(lambda self: self.writers())
    @rule()
    def compact(self):
        report = self.writers()[0].compact()
        assert not report.lost
        assert report.entries == len(self.model.held())

    @precondition(lambda self: self.writers())
    @rule(seed=SEEDS)
    def merge(self, seed):
        other = Model(turn=self.model.turn)
        plan = kills.random_plan(random.Random(seed), salt=self.salt if seed % 3 == 0 else -1)
        self.salt += 1
        path = self.folder / "other.h5"
        with gamwarm.open(path, engine="tests", engine_version="1", on_error="raise") as store:
            for entry in (entry for entries in plan for entry in entries):
                if isinstance(entry, BlockRecord):
                    store.put_record(entry)
                    other.put_record(entry)
                else:
                    store.put_artifact(entry)
                    other.put_artifact(entry)
        before = set(self.model.held())
        report = self.writers()[0].merge(path)
        self.take_over(other)
        assert set(report.added) == set(self.model.held()) - before
        assert not report.problems
        path.unlink()
        path.with_name("other.h5.lock").unlink(missing_ok=True)

    def take_over(self, other: Model) -> None:
        self.model.turn = other.turn
        for key, found in other.artifacts.items():
            there = self.model.artifacts.setdefault(key, {})
            for entry_id, held in found.items():
                there[entry_id] = held
        for key, new in other.records.items():
            union: dict[str, ModelEntry] = {h.entry_id: h for h in (*self.model.records.get(key, []), *new)}
            finals = sorted((h for h in union.values() if h.entry.kind == "final"), key=lambda h: h.turn)[-1:]
            checkpoints = sorted(
                (h for h in union.values() if h.entry.kind == "checkpoint"),
                key=lambda h: (-(float("inf") if h.entry.objective is None else h.entry.objective), h.turn),
            )[-1:]
            self.model.records[key] = finals + checkpoints


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.long
class TestStoreMachineLong(StoreMachine.TestCase):
    settings = settings(TestStoreMachine.settings, max_examples=80, stateful_step_count=50)


def test_the_machine_would_notice_a_store_that_forgets_its_retention(monkeypatch):
    """Control: a store that keeps the newest checkpoint instead of the best."""
    monkeypatch.setattr(ranking, "best_checkpoint", ranking.newest)
    generate = settings(
        TestStoreMachine.settings, max_examples=300, database=None, phases=[Phase.generate], print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(StoreMachine, settings=generate)


def test_models_are_compared_by_content():
    """Guards the comparison above against an equality that says yes to everything."""
    one, two = Model(), Model()
    record = random_record(random.Random(1), salt=1)
    one.put_record(record)
    two.put_record(replace(record, n_rows=record.n_rows + 1))
    assert one.seen() != two.seen()
    assert one.seen() == one.copy().seen()
