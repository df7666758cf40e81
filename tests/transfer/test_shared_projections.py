"""Projections are dealt to ranks by cost and gathered: all ranks have the serial start, bit by bit,
and did a share.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamwarm.errors import CollectiveError
from gamwarm.identity import FitDescriptor
from gamwarm.parallel import assign_by_cost
from gamwarm.problem import Gauge
from gamwarm.transfer import TermContext, build_warm_start
from gamwarm.transfer import build as module
from gamwarm.transfer.project import project, projection_cost
from tests.support.entries import artifact, hex_of, term
from tests.support.thread_ranks import on_ranks


def case(widths, seed=0, *, coupled=False, missing=()):
    """Contexts, parent and gauge of terms of these (raw, reduced) widths."""
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=width) for width in widths]
    contexts = [TermContext(hex_of(i), [], b.shape[1], b, rng.normal(size=b.shape[0])) for i, b in enumerate(blocks)]
    terms = [
        term(i, raw_beta=rng.normal(size=raw), rho_for_term=[], reduced_width=reduced)
        for i, (raw, reduced) in enumerate(widths)
    ]
    gauge = Gauge.from_blocks(blocks)
    if coupled:
        lift = np.array(gauge.lift)
        lift[0, -1] = 0.5
        gauge = Gauge(lift, gauge.raw_starts, gauge.reduced_starts)
    for i in missing:
        contexts[i] = TermContext(contexts[i].identity, [], contexts[i].reduced_width)
    return contexts, artifact(*terms), gauge


def start_of(contexts, parent, gauge, comm=None):
    descriptor = FitDescriptor("gaussian", [c.identity for c in contexts])
    return build_warm_start(descriptor, contexts, [], parent, gauge=gauge, comm=comm)


def brief_repr(start):
    return [b.tobytes() for b in start.block_beta], start.terms, start.provenance


WIDTHS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=7).map(
    lambda pairs: [(reduced + extra, reduced) for extra, reduced in pairs]
)


@settings(max_examples=40)
@given(WIDTHS, st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 100))
def test_any_number_of_ranks_gives_the_serial_start_bit_by_bit(widths, size, coupled, missing, seed):
    coupled = coupled and widths[0][0] > 0 and sum(r for _, r in widths) > 0 and len(widths) > 1
    given_case = case(widths, seed, coupled=coupled, missing=[0] if missing else [])

    shared = on_ranks(size, lambda comm: brief_repr(start_of(*given_case, comm)))

    assert shared == [brief_repr(start_of(*given_case))] * size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_each_projection_is_made_once_and_no_rank_makes_more_than_its_share(size, monkeypatch):
    widths = [(40, 35), (20, 20), (20, 18), (12, 11), (12, 11), (8, 8), (3, 2)]
    given_case = case(widths)
    made: dict[int, list[float]] = {}
    monkeypatch.setattr(module, "project", lambda lift, target: made[id(lift)].append(1) or project(lift, target))
    made.update({id(context.gauge_block): [] for context in given_case[0]})

    def run(comm):
        before = comm.exchanges
        start_of(*given_case, comm)
        return comm.exchanges - before

    exchanges = on_ranks(size, run)

    assert [len(times) for times in made.values()] == [1] * len(widths)
    assert exchanges == [0 if size == 1 else 1] * size


@pytest.mark.parametrize("size", [2, 3])
def test_a_coupled_gauge_is_projected_by_one_rank_for_all(size, monkeypatch):
    given_case = case([(6, 5), (4, 4)], coupled=True)
    calls = []
    monkeypatch.setattr(module, "project", lambda lift, target: calls.append(lift.shape) or project(lift, target))

    starts = on_ranks(size, lambda comm: brief_repr(start_of(*given_case, comm)))

    assert calls == [(10, 9)]
    assert starts == [brief_repr(start_of(*given_case))] * size


@given(st.lists(st.floats(0.0, 1e9), max_size=40), st.integers(1, 12))
def test_work_is_dealt_intact_and_no_rank_gets_much_more_than_another(costs, size):
    dealt = assign_by_cost(costs, size)
    loads = [sum(c for c, r in zip(costs, dealt, strict=True) if r == rank) for rank in range(size)]

    assert len(dealt) == len(costs)
    assert set(dealt) <= set(range(size))
    assert max(loads) <= sum(costs) / size + max(costs, default=0.0) + 1e-6 * sum(costs)


def test_a_projection_costs_its_gram_matrix_and_its_solution():
    assert projection_cost(None) == projection_cost(np.zeros((5, 0))) == 0.0
    assert projection_cost(np.zeros((100, 10))) == 100 * 100 + 333


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_a_projection_that_fails_on_its_rank_is_a_collective_error_on_all(culprit, monkeypatch):
    given_case = case([(9, 9), (8, 8), (7, 7)])
    bad = given_case[0][culprit].gauge_block

    def failing(lift, target):
        if lift is bad:
            raise MemoryError("no room")
        return project(lift, target)

    monkeypatch.setattr(module, "project", failing)

    outcomes = on_ranks(3, lambda comm: start_of(*given_case, comm))

    assert [type(e) for e in outcomes] == [CollectiveError] * 3
    assert {(e.rank, e.cause) for e in outcomes} == {(culprit, "MemoryError: no room")}


@pytest.mark.parametrize("coupled", [False, True])
def test_ranks_with_different_gauges_are_reported(coupled):
    one = case([(9, 8), (8, 7)], coupled=coupled)
    other = case([(9, 8), (8, 7)], seed=1, coupled=coupled)

    outcomes = on_ranks(
        2, lambda comm: start_of(other[0] if comm.rank else one[0], one[1], (other, one)[1 - comm.rank][2], comm)
    )

    assert [type(e) for e in outcomes] == [CollectiveError] * 2
    assert all("different data" in str(e) for e in outcomes)
