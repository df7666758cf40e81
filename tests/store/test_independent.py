"""Independent mode: puts are buffered and written together, look-ups see them, nothing unwritten is
acknowledged.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import gamwarm
from gamwarm import InvalidInput, InvalidType, Producer, StoreClosed, StoreUnavailable
from gamwarm.entries import KINDS, buffered
from gamwarm.storage import vfs
from tests.support.stores import artifact_of, carrier_fit, exact_key_of, leftovers, plain_fit, record_of, result_of


@pytest.fixture
def own(path):
    with gamwarm.open(path, engine="tests", on_error="raise") as store, store.independent() as own:
        yield own


@pytest.fixture
def clock(monkeypatch):
    """A clock of the buffer's own, moved by hand."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(buffered, "time", made)
    return made


def in_file(path):
    with gamwarm.open(path, "r", on_error="raise") as store:
        assert store.verify().ok
        return store.entry_ids()


def full_disk(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vfs.DISK, "fdatasync", full)


# -- pending ---------------------------------------------------------------------------------------


def test_a_put_is_pending_until_flush_and_written_after_it(own, path):
    outcome = own.put_record(record_of(1))

    assert outcome.pending
    assert not outcome.written
    assert in_file(path) == set()
    assert own.flush() == 1
    assert outcome.written
    assert not outcome.pending
    assert in_file(path) == {outcome.entry_id}


def test_a_flush_is_one_transaction_whatever_waits(own):
    before = own.generation
    fit = plain_fit()
    outcomes = [own.put_record(record_of(k)) for k in range(5)] + [own.put_artifact(artifact_of())]
    kept = own.keep(fit, result_of(fit))
    outcomes += [kept.record, kept.artifact]

    assert own.pending == 8
    assert own.flush() == 8
    assert own.pending == 0
    assert own.generation == before + 1
    assert all(o.written for o in outcomes)
    assert own.flush() == 0
    assert own.generation == before + 1


def test_leaving_the_with_writes_what_waits(path):
    with gamwarm.open(path) as store:
        with store.independent() as own:
            outcome = own.put_record(record_of(1))
        assert outcome.written
        assert store.get_record(exact_key_of(1)).objective == 1.0
    assert leftovers(path) == set()


def test_leaving_the_with_by_an_exception_writes_what_waits_and_raises_it(path):
    outcomes = []
    with pytest.raises(ValueError, match="a bad day"), gamwarm.open(path) as store, store.independent() as own:
        outcomes.append(own.put_record(record_of(1)))
        raise ValueError("a bad day")
    assert outcomes[0].written
    assert len(in_file(path)) == 1


def test_close_writes_what_waits_and_later_calls_say_that_it_is_closed(path):
    with gamwarm.open(path) as store:
        own = store.independent()
        outcome = own.put_record(record_of(1))
        own.close()
        own.close()
        assert outcome.written
        for call in (own.flush, own.keys, own.should_stop, lambda: own.put_record(record_of(2))):
            with pytest.raises(StoreClosed):
                call()
        assert len(store) == 1


# -- when a flush is due ---------------------------------------------------------------------------


def test_so_many_waiting_entries_are_written_at_once(path):
    with gamwarm.open(path) as store, store.independent(flush_entries=3) as own:
        outcomes = [own.put_record(record_of(k)) for k in range(7)]
        assert [o.pending for o in outcomes] == [False] * 6 + [True]
        assert len(in_file(path)) == 6


def test_record_and_artifact_of_one_fit_are_never_written_apart(path):
    with gamwarm.open(path) as store, store.independent(flush_entries=1) as own:
        before = own.generation
        fit = plain_fit()
        kept = own.keep(fit, result_of(fit))
        assert kept.record.written
        assert kept.artifact.written
        assert own.generation == before + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda own: own.keys(),
        lambda own: own.start_for(plain_fit()),
        lambda own: own.get_record(exact_key_of(1)),
        lambda own: own.explain(plain_fit()),
        lambda own: len(own),
    ],
    ids=["keys", "start_for", "get_record", "explain", "len"],
)
def test_what_has_waited_long_is_written_by_the_next_call_of_any_kind(path, clock, call):
    with gamwarm.open(path) as store, store.independent(flush_seconds=30) as own:
        outcome = own.put_record(record_of(1))
        clock.now += 29.0
        call(own)
        assert outcome.pending
        clock.now += 1.0
        call(own)
        assert outcome.written
        assert len(in_file(path)) == 1


def test_a_fit_that_took_longer_than_the_pace_is_written_as_soon_unchanged_kept(path, clock):
    with gamwarm.open(path) as store, store.independent(flush_seconds=30) as own:
        for hour in range(3):
            clock.now += 3600.0
            fit = carrier_fit(range(37), seed=hour)
            kept = own.keep(fit, result_of(fit))
            assert kept.record.written
            assert kept.artifact.written
        assert own.put_record(record_of(1)).pending, "a short one after it waits for company"


def test_once_the_batch_system_has_signalled_nothing_waits(path):
    with gamwarm.open(path) as store, store.walltime(), store.independent() as own:
        before = own.put_record(record_of(1))
        assert before.pending
        signal.raise_signal(signal.SIGUSR1)
        assert own.keys() != []
        assert before.written
        assert own.put_record(record_of(2)).written


def test_a_search_that_asks_whether_to_stop_writes_what_is_due(path, clock):
    with gamwarm.open(path) as store, store.independent(flush_seconds=30) as own:
        outcome = own.put_record(record_of(1))
        with own.fit(plain_fit()) as fit:
            assert outcome.pending
            clock.now += 31.0
            assert not fit.should_stop()
            assert outcome.written


def test_the_time_counts_from_the_last_flush(path, clock):
    with gamwarm.open(path) as store, store.independent(flush_seconds=30) as own:
        first = own.put_record(record_of(1))
        clock.now += 20.0
        second = own.put_record(record_of(2))
        clock.now += 10.0
        own.keys()
        assert first.written
        assert second.written


def test_waiting_for_ever_is_allowed(path, clock):
    with gamwarm.open(path) as store, store.independent(float("inf"), 10**9) as own:
        outcome = own.put_record(record_of(1))
        clock.now += 1e9
        assert own.keys() == [exact_key_of(1)]
        assert outcome.pending


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"flush_seconds": -1.0}, InvalidInput),
        ({"flush_seconds": "soon"}, InvalidType),
        ({"flush_entries": 0}, InvalidInput),
        ({"flush_entries": 2.5}, InvalidType),
    ],
)
def test_a_pace_that_is_none_is_refused_by_name(path, arguments, kind):
    with gamwarm.open(path) as store, pytest.raises(kind, match=next(iter(arguments))):
        store.independent(**arguments)


# -- look-ups --------------------------------------------------------------------------------------


def test_look_ups_see_ones_own_waiting_puts_as_if_they_were_filed(own, path):
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    own.put_record(record_of(1, 7.0))
    kept = own.keep(parent, result_of(parent))

    def seen():
        exact, transfer = own.start_for(parent), own.start_for(child)
        return [
            own.get_record(exact_key_of(1)).objective,
            own.get_artifact(parent.descriptor.key).fit_key,
            str(exact.source),
            exact.entry,
            str(transfer.source),
            transfer.parent,
            [v.tobytes() for v in (transfer.start.rho, *transfer.start.block_beta)],
            str(own.start_for(child, parent=kept.artifact.entry_id).source),
            own.keys(),
            sorted(own.entry_ids()),
            len(own),
            own.explain(parent).hit,
        ]

    waiting = seen()
    assert in_file(path) == set()
    own.flush()
    assert seen() == waiting
    assert waiting[2:6] == ["exact", kept.record.entry_id, "transfer", kept.artifact.entry_id]


def test_waiting_puts_and_the_files_entries_are_ranked_together(own, path):
    worse, better = (record_of(1, v, kind="checkpoint", converged=False) for v in (5.0, 3.0))
    with gamwarm.open(path, on_error="raise") as other:
        other.put_record(better)
        other.put_artifact(artifact_of(n_rows=100))

    outcome = own.put_record(worse)
    own.put_artifact(artifact_of(n_rows=50))

    assert own.get_record(exact_key_of(1)).objective == 3.0
    assert own.get_artifact(artifact_of().descriptor.key).summary.n_rows == 100
    assert len(own) == 3
    assert own.flush() == 1
    assert not outcome.written
    assert "a better checkpoint" in outcome.reason
    assert len(own) == len(in_file(path)) == 3


def test_a_waiting_final_replaces_the_files_final_in_look_ups_and_then_in_the_file(own, path):
    with gamwarm.open(path, engine="tests", on_error="raise") as other:
        other.put_record(record_of(1, 5.0))
    own.put_record(record_of(1, 9.0))

    assert own.get_record(exact_key_of(1)).objective == 9.0
    assert len(own) == len(own.entry_ids()) == 1
    own.flush()
    assert own.get_record(exact_key_of(1)).objective == 9.0
    assert own.entry_ids() == in_file(path)


def test_what_others_have_written_meanwhile_is_seen(own, path):
    fit = plain_fit()
    assert own.start_for(fit).source == "cold"
    with gamwarm.open(path, on_error="raise") as other:
        other.keep(fit, result_of(fit))

    assert own.start_for(fit).source == "exact"


def test_what_is_put_counts_not_what_the_caller_makes_of_it_afterwards(own):
    record = record_of(1, attributes={"site": "north"})
    own.put_record(record)
    record.attributes["site"] = "south"

    own.flush()
    assert own.get_record(exact_key_of(1)).attributes == {"site": "north"}


def test_putting_the_same_again_waits_for_the_same_write(own):
    fit = plain_fit()
    outcomes = []
    for _ in range(3):
        kept = own.keep(fit, result_of(fit))
        outcomes += [kept.record, kept.artifact]

    assert own.pending == 2
    assert all(o.pending for o in outcomes)
    own.flush()
    assert all(o.written for o in outcomes)
    assert own.keep(fit, result_of(fit)).record.written, "in the file already"


def test_what_a_gate_refuses_does_not_wait(own):
    outcome = own.put_record(record_of(1, rho=[float("nan"), 0.0]))

    assert not outcome.pending
    assert outcome.reason
    assert own.pending == 0


def test_a_fit_in_progress_checkpoints_and_keeps_through_the_buffer(path, monkeypatch):
    from gamwarm.store import fit as fits

    now = [0.0]
    monkeypatch.setattr(fits, "time", type("time", (), {"monotonic": staticmethod(lambda: now[0])}))
    fit = plain_fit()
    with gamwarm.open(path) as store, store.independent() as own:
        with own.fit(fit, each=True) as going:
            now[0] += 3.0
            point = going.checkpoint(result_of(fit, 5.0, converged=False))
            assert point.pending
            assert own.start_for(fit).reason == "a checkpoint of this fit"
            kept = going.keep(result_of(fit, 4.0))
        assert own.start_for(fit).reason == "this fit's own answer"
    assert point.written
    assert kept.record.written


puts = st.tuples(
    st.sampled_from(["own", "other"]),
    st.integers(1, 2),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from(["final", "checkpoint"]),
    st.sampled_from(["tests", "rival"]),
)


# An entry that another process filed meanwhile, pushed out by one's own first put and put back by
# the second.
@example([("own", 1, 1.0, "final", "rival"), ("own", 1, 1.0, "final", "tests"), ("other", 1, 1.0, "final", "tests")], 1)
@given(st.lists(puts, max_size=10), st.integers(1, 2))
def test_a_flush_changes_no_answer(tmp_path_factory, steps, keep_last):
    path = tmp_path_factory.mktemp("law") / "fits.h5"
    with (
        gamwarm.open(path, engine="tests", on_error="raise", keep_last=keep_last) as store,
        store.independent(flush_entries=100) as own,
    ):
        for writer, key, value, kind, engine in steps:
            record = record_of(key, value, kind=kind, converged=kind == "final", producer=Producer(engine, ""))
            (own if writer == "own" else store).put_record(record)

        def answers():
            found = [own.get_record(exact_key_of(key)) for key in (1, 2)]
            told = [None if r is None else (r.objective, r.kind, r.producer) for r in found]
            return told, own.keys(), sorted(own.entry_ids()), len(own)

        before = answers()
        own.flush()
        assert answers() == before
        assert set(before[2]) == store.entry_ids()


# -- transactions and upkeep -----------------------------------------------------------------------


def test_a_transaction_writes_what_waits_first_and_its_own_puts_when_it_ends(own, path):
    waiting = own.put_record(record_of(1))
    with own.transaction():
        assert waiting.written
        inside = own.put_record(record_of(2))
        assert inside.pending
        assert len(in_file(path)) == 1
    assert inside.written
    assert len(in_file(path)) == 2


def test_a_transaction_that_is_undone_takes_nothing_with_it_that_waited(own, path):
    waiting = own.put_record(record_of(1))
    with pytest.raises(ValueError, match="a bad day"), own.transaction():
        inside = own.put_record(record_of(2))
        raise ValueError("a bad day")
    assert waiting.written
    assert not inside.written
    assert not inside.pending
    assert own.keys() == [exact_key_of(1)]


@pytest.mark.parametrize("call", ["verify", "compact", "pin", "evict", "merge"])
def test_what_looks_after_the_file_writes_what_waits_first(own, path, tmp_path, call):
    with gamwarm.open(tmp_path / "other.h5") as other:
        other.put_record(record_of(7))
    outcome = own.put_record(record_of(1))
    arguments = {"pin": [outcome.entry_id], "evict": [10**9], "merge": [tmp_path / "other.h5"]}.get(call, [])

    getattr(own, call)(*arguments)

    assert outcome.written
    assert outcome.entry_id in in_file(path)


def test_it_cannot_begin_or_write_inside_a_transaction_that_holds_the_lock(path):
    with gamwarm.open(path, on_error="raise") as store:
        with store.transaction(), pytest.raises(InvalidInput, match="leave the block first"):
            store.independent()
        with store.independent(flush_seconds=0.0, flush_entries=1) as own:
            with store.transaction():
                outcome = own.put_record(record_of(1))
                assert own.keys() == [exact_key_of(1)], "a flush that is due waits for the end of the transaction"
                assert outcome.pending
                with pytest.raises(InvalidInput, match="leave that block first"):
                    own.flush()
            own.keys()
            assert outcome.written


def test_an_independent_store_has_no_independent_store_of_its_own(own):
    with pytest.raises(InvalidInput, match="use it directly"):
        own.independent()


# -- failing well ----------------------------------------------------------------------------------


def test_a_flush_that_fails_under_warn_gives_up_what_waited_with_one_warning(path, monkeypatch, caplog):
    with gamwarm.open(path) as store, store.independent() as own:
        outcomes = [own.put_record(record_of(k)) for k in range(3)]
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            full_disk(patch)
            assert own.flush() == 0
            late = own.put_record(record_of(9))
            own.flush()
        assert "No space left" in own.disabled_reason
        assert store.disabled_reason is None
        assert own.start_for(plain_fit()).source == "cold"
        for outcome in outcomes:
            assert not outcome.written
            assert not outcome.pending
            assert "No space left" in outcome.reason
        assert not late.pending
    assert len(caplog.records) == 1
    assert in_file(path) == set()


def test_a_flush_that_fails_under_raise_leaves_everything_waiting_for_the_next(own, path, monkeypatch):
    outcomes = [own.put_record(record_of(k)) for k in range(3)]
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(StoreUnavailable, match="No space left"):
            own.flush()
        assert all(o.pending for o in outcomes)
    assert own.flush() == 3
    assert all(o.written for o in outcomes)


def test_a_close_that_cannot_write_raises_and_says_so_in_the_outcomes(path, monkeypatch):
    with gamwarm.open(path, on_error="raise") as store:
        own = store.independent()
        outcome = own.put_record(record_of(1))
        with monkeypatch.context() as patch:
            full_disk(patch)
            with pytest.raises(StoreUnavailable, match="No space left"):
                own.close()
        assert not outcome.pending
        assert not outcome.written
        assert "closed before" in outcome.reason
        with pytest.raises(StoreClosed):
            own.flush()


def test_a_store_that_is_off_has_independent_stores_that_are_off(tmp_path, monkeypatch):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        with monkeypatch.context() as patch:
            full_disk(patch)
            store.put_record(record_of(1))
        with store.independent() as own:
            assert own.disabled_reason == store.disabled_reason
            assert own.start_for(plain_fit()).source == "cold"
            assert not own.put_record(record_of(1)).pending


def test_a_read_only_store_reads_independently_and_keeps_nothing(path):
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    with gamwarm.open(path, "r") as store, store.independent() as own:
        assert own.get_record(exact_key_of(1)).objective == 1.0
        outcome = own.put_record(record_of(2))
        assert not outcome.pending
        assert "reading only" in outcome.reason


def test_the_original_store_may_be_closed_first(path):
    with gamwarm.open(path) as store:
        own = store.independent()
    outcome = own.put_record(record_of(1))
    own.close()
    assert outcome.written


# -- campaigns, time, processes --------------------------------------------------------------------


def test_a_frozen_view_stays_frozen_in_independent_mode(path):
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    with gamwarm.open(path, engine="tests") as store:
        first = store.keep(parent, result_of(parent)).artifact.entry_id
        with store.frozen().independent() as own:
            bigger = carrier_fit(range(37), n=90)
            own.keep(bigger, result_of(bigger))
            own.flush()
            assert own.start_for(child).parent == first
            assert str(own.start_for(bigger).source) == "exact"
        assert store.start_for(child).parent != first


def test_evictions_of_its_own_spare_the_parents_of_its_campaign(path):
    parent = carrier_fit(range(37))
    with gamwarm.open(path, engine="tests") as store:
        first = store.keep(parent, result_of(parent)).artifact.entry_id
        with store.frozen().independent() as own:
            own.evict(0)
            assert own.entry_ids() == {first}


def test_the_signals_that_the_store_hears_stop_its_independent_stores(path):
    with gamwarm.open(path) as store, store.walltime(), store.independent() as own:
        assert not own.should_stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert own.should_stop()
        assert own.time_left() == store.time_left()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_files_its_own_puts_and_leaves_those_of_its_parent_alone(path):
    with gamwarm.open(path, on_error="raise") as store, store.independent() as own:
        own.put_record(record_of(1))
        child = os.fork()
        if child == 0:
            good = own.pending == 0 and own.keys() == [] and own.flush() == 0
            outcome = own.put_record(record_of(2))
            good = good and outcome.pending and own.flush() == 1 and outcome.written
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert own.pending == 1
        assert own.get_record(exact_key_of(2)) is not None
    assert len(in_file(path)) == 2


PROGRAM = """
import sys
import gamwarm
from tests.support.stores import record_of
own = gamwarm.open(sys.argv[1]).independent(**eval(sys.argv[2]))
for k in range(int(sys.argv[3]), int(sys.argv[4])):
    outcome = own.put_record(record_of(k))
print("put", flush=True)
"""


def run(path, pace, first, last, then="", **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + then, str(path), repr(pace), str(first), str(last)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(job):
    job.communicate(timeout=100)
    return job.returncode


def test_a_program_that_ends_without_closing_has_written_what_waited(path):
    assert finished(run(path, {}, 0, 5)) == 0
    assert len(in_file(path)) == 5


def test_a_killed_process_loses_only_what_it_was_never_told_is_written(path):
    job = run(path, {"flush_entries": 4}, 0, 10, "import time; time.sleep(100)")
    try:
        assert job.stdout.readline() == "put\n"
    finally:
        job.kill()
        job.communicate()
    with gamwarm.open(path, on_error="raise") as store:
        assert store.verify().ok
        assert store.keys() == [exact_key_of(k) for k in range(8)]


def test_tasks_of_an_array_share_one_file_and_lose_nothing(path):
    tasks = [run(path, {"flush_entries": 7}, 100 * k, 100 * k + 30, "own.close()") for k in range(4)]
    assert [finished(task) for task in tasks] == [0] * 4
    with gamwarm.open(path, on_error="raise") as store:
        assert store.verify().ok
        assert store.keys() == sorted(exact_key_of(100 * k + i) for k in range(4) for i in range(30))
        # Thirty puts in flushes of seven are five transactions, not thirty.
        assert store.generation <= 1 + 4 * 5


def test_shards_of_tasks_merged_in_any_order_and_twice_are_the_union(tmp_path):
    tasks = [run(tmp_path / f"shard-{k}.h5", {}, 10 * k, 10 * k + 15, "own.close()") for k in range(3)]
    assert [finished(task) for task in tasks] == [0] * 3
    contents = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1, 0)), ("c", (1, 1, 2, 0))):
        with gamwarm.open(tmp_path / f"{name}.h5", on_error="raise") as store:
            with store.independent() as own:
                own.put_record(record_of(99))
                for k in order:
                    own.merge(tmp_path / f"shard-{k}.h5")
            contents.append((store.entry_ids(), [store.get_record(exact_key_of(k)).created for k in range(35)]))
            assert store.verify().ok
    union = set().union(*(in_file(tmp_path / f"shard-{k}.h5") for k in range(3)))
    assert len(union) == 35
    assert all(ids > union for ids, _ in contents)
    assert contents[0] == contents[1] == contents[2]


def test_look_ups_cost_no_check_the_buffer_that_grows_with_it(own):
    """A put among many waiting ones asks for its own key only; decoding all of them each time would
    be quadratic.
    """
    for k in range(60):
        own.put_record(record_of(k))
    began = buffered.decode
    count = [0]

    def counted(encoded):
        count[0] += 1
        return began(encoded)

    buffered.decode = counted
    try:
        assert own.get_record(exact_key_of(3)).objective == 1.0
        own.start_for(plain_fit())
    finally:
        buffered.decode = began
    assert count[0] <= 2


def test_an_entry_that_waits_is_encoded_once(own, path, monkeypatch):
    encoded = []
    for section, kind in KINDS.items():
        counted = replace(kind, encode=lambda entry, genuine=kind.encode: encoded.append(entry) or genuine(entry))
        monkeypatch.setitem(KINDS, section, counted)

    outcomes = [own.put_record(record_of(1)), own.put_artifact(artifact_of())]
    own.flush()

    assert all(outcome.written for outcome in outcomes)
    assert len(encoded) == 2
    assert in_file(path) == {outcome.entry_id for outcome in outcomes}
