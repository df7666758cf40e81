"""Which of several records is meant, and which are kept: the rules as laws."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm import Producer, RecordKind
from gamwarm.encoding.ranking import retained, select_record

ME, OTHER, UNKNOWN = Producer("me", "1"), Producer("me", "2"), Producer("")


@dataclass(frozen=True)
class Entry:
    kind: RecordKind
    objective: float | None
    producer: Producer
    created: int
    entry_id: str

    @property
    def is_own_final(self) -> bool:
        return self.kind is RecordKind.FINAL and self.producer is ME


def entry(kind, objective, producer=ME, created=1, entry_id="a"):
    return Entry(RecordKind(kind), objective, producer, created, entry_id)


# Few values, so that ties happen.
objectives = st.none() | st.sampled_from([-1.0, 0.0, 1.0, 1.0 + 1e-13, 1e6, 1e6 * (1 + 1e-13)])
entries = st.lists(
    st.builds(
        Entry,
        st.sampled_from(list(RecordKind)),
        objectives,
        st.sampled_from([ME, OTHER, UNKNOWN]),
        st.integers(0, 4),
        st.text("ab", min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda e: e.entry_id,
)


def when(e):
    return e.created, e.entry_id


@given(entries)
def test_a_final_of_this_producer_beats_all_newest_first(found):
    own = [e for e in found if e.is_own_final]
    if own:
        assert select_record(found, ME) == max(own, key=when)


@given(entries)
def test_without_a_final_of_this_producer_all_count_as_checkpoints(found):
    others = [e for e in found if not e.is_own_final]
    as_checkpoints = [Entry(RecordKind.CHECKPOINT, e.objective, e.producer, e.created, e.entry_id) for e in others]
    if others:
        assert select_record(others, ME).entry_id == select_record(as_checkpoints, ME).entry_id


@given(entries)
def test_one_with_an_objective_beats_one_without(found):
    others = [e for e in found if not e.is_own_final]
    if any(e.objective is not None for e in others):
        assert select_record(others, ME).objective is not None


@given(entries)
def test_the_lowest_objective_wins_and_ties_go_to_the_newest(found):
    others = [e for e in found if not e.is_own_final]
    valued = [e for e in others if e.objective is not None]
    if valued:
        chosen = select_record(others, ME)
        lowest = min(e.objective for e in valued)
        tied = [e for e in valued if e.objective <= lowest + 1e-12 * max(1.0, abs(lowest))]
        assert chosen == max(tied, key=when)


@given(entries)
def test_without_any_objective_the_newest_wins(found):
    none = [Entry(RecordKind.CHECKPOINT, None, e.producer, e.created, e.entry_id) for e in found]

    assert select_record(none, ME) == max(none, key=when)


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)

    assert select_record(shuffled, ME) == select_record(found, ME)
    assert set(retained(shuffled, 1)) == set(retained(found, 1))


@given(entries)
def test_a_look_up_without_a_producer_ranks_nothing_as_foreign(found):
    finals = [e for e in found if e.kind is RecordKind.FINAL]
    if finals:
        assert select_record(found, None) == max(finals, key=when)


@given(entries, st.integers(1, 3))
def test_a_key_keeps_its_newest_finals_and_one_checkpoint(found, keep_last):
    kept = retained(found, keep_last)

    finals = [e for e in found if e.kind is RecordKind.FINAL]
    assert [e for e in kept if e.kind is RecordKind.FINAL] == sorted(finals, key=when, reverse=True)[:keep_last]
    assert sum(e.kind is RecordKind.CHECKPOINT for e in kept) == min(1, len(found) - len(finals))
    assert set(kept) <= set(found)


@given(entries)
def test_what_is_kept_answers_every_builds_look_up_by_the_newest_final_or_best_checkpoint(found):
    kept = retained(found, 1)

    assert select_record(kept, None) == select_record(found, None)


def test_nothing_is_no_record():
    assert select_record([], ME) is None
    assert retained([], 1) == []


@pytest.mark.parametrize(("foreign", "mine"), [(OTHER, "checkpoint"), (UNKNOWN, "checkpoint")])
def test_a_foreign_final_with_the_lower_objective_beats_ones_own_checkpoint(foreign, mine):
    found = [entry("final", 1.0, foreign), entry(mine, 2.0, ME, 2, "b")]

    assert select_record(found, ME) == found[0]


def test_a_final_with_a_higher_objective_is_still_the_answer():
    found = [entry("final", 9.0, ME), entry("checkpoint", 1.0, ME, 2, "b"), entry("final", 0.0, OTHER, 3, "c")]

    assert select_record(found, ME) == found[0]


def test_a_producer_without_an_engine_has_no_finals_of_its_own():
    found = [entry("final", 9.0, UNKNOWN), entry("checkpoint", 1.0, ME, 2, "b")]

    assert select_record(found, UNKNOWN) == found[1]


def test_the_gamwarm_version_does_not_make_a_final_foreign():
    found = [entry("final", 9.0, Producer("me", "1", "0.0.1")), entry("checkpoint", 1.0, ME, 2, "b")]

    assert select_record(found, ME) == found[0]
