"""Rows that live on several ranks are hashed where they live: the plain array's bits, and only
boundary rows travel.
"""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gamwarm import DistributedRows, Fingerprinter, FitProblem, ParameterBlockSpec, exact_key, matrix_digest
from gamwarm.errors import CollectiveError, InvalidInput, InvalidType, UnkeyableFit
from gamwarm.problem import BlockwiseFitOptions
from tests.support.oracle import plain_digest
from tests.support.problems import NamedFamily, Rows, small_problem, wave
from tests.support.thread_ranks import on_ranks

LEAF = 4096
EDGE = st.sampled_from([0, 0, 1, 2, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF])
COUNTS = st.lists(EDGE | st.integers(0, 3 * LEAF), min_size=1, max_size=5)


def part_of(matrix, counts, rank):
    start = sum(counts[:rank])
    return matrix[start : start + counts[rank]]


def spread(comm, matrix, counts):
    return DistributedRows(part_of(matrix, counts, comm.rank), comm)


def all_or_raise(outcomes):
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


@settings(max_examples=40)
@given(COUNTS, st.sampled_from([0, 1, 3]), st.sampled_from(["C", "F", "f4", "i8", "lazy", "mixed"]))
def test_any_rows_per_rank_give_the_digest_of_the_plain_array(counts, p, form):
    whole = np.round(wave(sum(counts), p, 3) * 1000.0)
    whole[::7] = -0.0

    def digest(comm):
        kind = ["C", "F", "f4", "i8"][comm.rank % 4] if form == "mixed" else form
        mine = part_of(whole, counts, comm.rank)
        mine = {"C": np.array, "F": np.asfortranarray, "lazy": Rows}.get(kind, lambda m: m.astype(kind))(mine)
        rows = DistributedRows(mine, comm)
        return matrix_digest(rows), matrix_digest(rows, comm), rows.traffic, comm.sent

    answers = all_or_raise(on_ranks(len(counts), digest))

    assert {a for one, two, _, _ in answers for a in (one, two)} == {plain_digest(whole)}
    # Twice: no row is hashed on two ranks, and what travels are rows of leaves that straddle ranks,
    # to one rank each.
    starts = np.cumsum([0, *counts])
    boundary = [min(-(-int(a) // LEAF) * LEAF, int(b)) - int(a) for a, b in pairwise(starts)]
    assert [t.rows_sent for _, _, t, _ in answers] == [2 * rows for rows in boundary]
    assert [sent for *_, sent in answers] == [t.bytes_sent for _, _, t, _ in answers]
    assert [t.bytes_sent for _, _, t, _ in answers] == [8 * p * t.rows_sent for _, _, t, _ in answers]
    assert sum(t.rows_hashed for _, _, t, _ in answers) == 2 * sum(counts)
    for held, (_, _, t, _) in zip(counts, answers, strict=True):
        assert t.rows_hashed == 2 * held - t.rows_sent + t.rows_received
        assert t.rows_received <= 2 * (LEAF - 1)


@pytest.mark.parametrize("n", [0, 1, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 2 * LEAF + 1, 5 * LEAF - 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_sizes_around_every_leaf_edge_cut_evenly(n, size):
    whole = wave(n, 2, n)
    counts = [(r + 1) * n // size - r * n // size for r in range(size)]

    assert on_ranks(size, lambda c: matrix_digest(spread(c, whole, counts))) == [matrix_digest(whole)] * size


@pytest.mark.parametrize("p", [257, 2**20, 2**20 + 1])
def test_wide_rows_shorten_the_leaves_of_distributed_rows_too(p):
    step = max(1, 8388608 // (8 * p))
    whole = np.broadcast_to(np.arange(step + 2.0)[:, None], (step + 2, p))

    answers = on_ranks(3, lambda c: matrix_digest(spread(c, whole, [1, step, 1])))

    assert answers == [matrix_digest(whole)] * 3


def test_one_leaf_over_many_ranks_with_empty_ones_between_is_hashed_by_the_first_that_has_rows():
    counts = [0, 10, 0, 5, 0, 1, 0]
    whole = wave(16, 3, 5)

    def run(comm):
        rows = spread(comm, whole, counts)
        return matrix_digest(rows), rows.traffic.rows_hashed, rows.traffic.rows_sent, rows.traffic.rows_received

    answers = all_or_raise(on_ranks(7, run))

    assert [a[0] for a in answers] == [matrix_digest(whole)] * 7
    assert [a[1] for a in answers] == [0, 16, 0, 0, 0, 0, 0]
    assert [a[2] for a in answers] == [0, 0, 0, 5, 0, 1, 0]
    assert [a[3] for a in answers] == [0, 6, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("empty", [np.zeros((0, 3)), np.zeros((0, 0)), np.zeros(0)])
def test_a_rank_without_rows_need_not_know_their_width(empty):
    whole = wave(9, 3, 1)

    def run(comm):
        rows = DistributedRows(empty if comm.rank != 1 else whole, comm)
        return rows.shape, rows.counts, matrix_digest(rows)

    assert on_ranks(3, run) == [((9, 3), (0, 9, 0), matrix_digest(whole))] * 3


def test_signalling_nans_and_negative_zeros_travel_unchanged():
    whole = wave(LEAF + 20, 2, 1)
    whole[LEAF + 3 :, 0] = -0.0
    whole[LEAF + 5, 1] = np.array([0x7FF0000000000001], dtype=np.uint64).view(np.float64)[0]

    assert on_ranks(2, lambda c: matrix_digest(spread(c, whole, [LEAF + 2, 18]))) == [plain_digest(whole)] * 2


def test_without_a_communicator_one_rank_holds_all_rows():
    whole = wave(5000, 2, 1)
    rows = DistributedRows(whole, None)

    assert matrix_digest(rows) == matrix_digest(whole)
    assert (rows.start, rows.stop, rows.traffic.rows_hashed, rows.traffic.bytes_sent) == (0, 5000, 5000, 0)


def problem_on(comm, specs, counts, *, offset=False):
    """The same blocks, their rows spread; offsets too on request."""
    spread_specs = [
        ParameterBlockSpec(
            spec.name,
            spread(comm, spec.design, counts),
            offset=spread(comm, spec.offset, counts) if offset else spec.offset,
            penalties=spec.penalties,
            nullspace_dims=spec.nullspace_dims,
            initial_log_lambdas=spec.initial_log_lambdas,
        )
        for spec in specs
    ]
    family, _, options = small_problem(1)
    return FitProblem(family, spread_specs, options, engine="r")


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("counts", [[50], [20, 30], [0, 49, 1], [13, 0, 37, 0]])
def test_a_fit_with_distributed_rows_has_the_names_and_components_of_the_plain_fit(counts, offset):
    family, specs, options = small_problem(1)
    plain = FitProblem(family, specs, options, engine="r")

    def names(comm):
        shared, alone = (problem_on(comm, specs, counts, offset=offset) for _ in range(2))
        direct = exact_key(family, alone.specs, options, engine="r", comm=None)
        with_comm = exact_key(family, alone.specs, options, engine="r", comm=comm)
        assert shared.shared_key(comm) == alone.key == direct == with_comm
        return alone.key, alone.components, alone.descriptor.key, alone.structural_key, alone.n_rows, alone.block_dims

    expected = (plain.key, plain.components, plain.descriptor.key, plain.structural_key, 50, (4, 3))
    assert all_or_raise(on_ranks(len(counts), names)) == [expected] * len(counts)


def test_a_long_distributed_offset_is_hashed_chunk_by_chunk():
    whole = wave(300_000, 1, 1).ravel()

    def run(comm):
        fp = Fingerprinter()
        fp.write_f64_array(spread(comm, whole, [1, 200_000, 0, 99_999]))
        return fp.hexdigest()

    fp = Fingerprinter()
    fp.write_f64_array(whole)
    assert on_ranks(4, run) == [fp.hexdigest()] * 4


def test_a_rank_reads_its_own_rows_by_their_global_numbers_and_no_others():
    whole = wave(30, 2, 1)

    def run(comm):
        rows = spread(comm, whole, [10, 0, 20])
        assert rows.row_chunk(5, 5).shape == (0, 2)
        if comm.rank == 2:
            np.testing.assert_array_equal(rows.row_chunk(12, 15), whole[12:15])
        with pytest.raises(InvalidInput, match=f"not all on rank {comm.rank}, which holds"):
            rows.row_chunk(8, 12)
        with pytest.raises(InvalidInput, match="not all on rank"):
            rows.row_chunk(29, 31)
        return rows.start, rows.stop, rows.shape

    assert on_ranks(3, run) == [(0, 10, (30, 2)), (10, 10, (30, 2)), (10, 30, (30, 2))]


def test_rows_that_are_nowhere_intact_are_no_array_and_cannot_be_pickled():
    rows = DistributedRows(wave(5, 2, 1), None)

    for misuse in (np.asarray, np.ascontiguousarray, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidType, match="local_rows"):
            misuse(rows)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(
    ("local", "said"),
    [
        (np.zeros((5, 3)), "one width"),
        (np.zeros(5), "one width"),
        (np.zeros((0, 3)), "one width"),
        (sparse.csr_array(np.eye(2)), "sparse"),
        (np.zeros((5, 2), dtype=complex), "complex128"),
        (np.zeros((5, 2, 1)), "expected (n, p)"),
        ([[1.0, 2.0]], "list"),
        (np.ma.masked_array(np.zeros((2, 2))), "masked"),
    ],
)
def test_rows_that_one_rank_cannot_bring_are_refused_on_all_of_them(rank, local, said):
    outcomes = on_ranks(3, lambda c: DistributedRows(local if c.rank == rank else np.zeros((4, 2)), c))

    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 3
    assert all(said in str(outcome) for outcome in outcomes)
    assert len({outcome.rank for outcome in outcomes}) == 1


def test_an_offset_that_is_not_finite_on_one_rank_is_refused_on_all():
    outcomes = on_ranks(2, lambda c: DistributedRows(np.array([1.0, np.nan if c.rank else 2.0]), c))

    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 2
    assert {outcome.rank for outcome in outcomes} == {1}


@pytest.mark.parametrize("torn", [0, 1, 2])
@pytest.mark.parametrize("at", ["head", "body"])
def test_rows_that_their_rank_cannot_read_make_the_fit_unkeyable_everywhere(torn, at):
    class Torn(Rows):
        def row_chunk(self, start, stop):
            if (start == 0) == (at == "head"):
                raise OSError("the tape is torn")
            return super().row_chunk(start, stop)

    def design(comm):
        rows = wave(LEAF + 10, 2, 1)
        return DistributedRows(Torn(rows) if comm.rank == torn else rows, comm)

    def key(comm):
        specs = [ParameterBlockSpec("mean", design(comm))]
        return exact_key(NamedFamily(), specs, BlockwiseFitOptions(), engine="r", comm=comm)

    digests = on_ranks(3, lambda c: matrix_digest(design(c)))
    keys = on_ranks(3, key)

    assert [type(e) for e in digests] == [CollectiveError] * 3
    assert {e.rank for e in digests} == {torn}
    assert [type(e) for e in keys] == [UnkeyableFit] * 3
    assert all("'mean'" in str(e) and f"rank {torn}" in str(e) and "the tape is torn" in str(e) for e in keys)


def test_integers_that_binary64_rounds_are_refused_wherever_they_are():
    whole = np.ones((LEAF + 10, 2), dtype=np.int64)
    whole[LEAF + 3] = 2**53 + 1

    outcomes = on_ranks(2, lambda c: matrix_digest(spread(c, whole, [LEAF + 1, 9])))

    assert {(type(e), e.rank) for e in outcomes} == {(CollectiveError, 1)}
    assert all(str(2**53 + 1) in e.cause for e in outcomes)


class OtherRanks:
    """A communicator of as many ranks that is not the rows' own."""

    def __init__(self, comm):
        self.comm = comm

    def __getattr__(self, name):
        return getattr(self.comm, name)

    def is_congruent(self, other):
        return False


@pytest.mark.parametrize("call", ["digest", "key"])
def test_another_communicator_than_the_rows_own_is_refused_in_text_that_help(call):
    def run(comm):
        rows = spread(comm, wave(20, 2, 1), [12, 8])
        rows.comm = OtherRanks(comm)
        if call == "digest":
            return matrix_digest(rows, comm)
        specs = [ParameterBlockSpec("mean", rows)]
        return exact_key(NamedFamily(), specs, BlockwiseFitOptions(), engine="r", comm=comm)

    outcomes = on_ranks(2, run)

    assert [type(e) for e in outcomes] == [CollectiveError] * 2
    assert all("pass the communicator of its DistributedRows" in str(e) for e in outcomes)


def test_ranks_that_bring_different_distributed_matrices_are_reported():
    def run(comm):
        one, two = spread(comm, wave(20, 2, 1), [12, 8]), spread(comm, wave(20, 2, 1), [8, 12])
        return matrix_digest(two if comm.rank else one)

    outcomes = on_ranks(2, run)

    assert [type(e) for e in outcomes] == [CollectiveError] * 2
    assert all("another matrix" in str(e) for e in outcomes)


def test_blocks_on_different_ranks_and_offsets_of_another_length_are_refused():
    def run(comm):
        one, two = (spread(comm, wave(20, 2, k), [12, 8]) for k in (1, 2))
        with pytest.raises(InvalidInput, match=r"offset is distributed rows of shape \(4,\); expected \(20,\)"):
            ParameterBlockSpec("mean", one, offset=DistributedRows(np.zeros(2), comm))
        two.comm = OtherRanks(comm)
        one.comm = OtherRanks(comm)
        family, _, options = small_problem(1)
        with pytest.raises(InvalidInput, match="lie on different ranks"):
            FitProblem(family, [ParameterBlockSpec("a", one), ParameterBlockSpec("b", two)], options, engine="r")

    all_or_raise(on_ranks(2, run))


def test_a_vector_is_no_design():
    with pytest.raises(InvalidInput, match=r"shape \(3,\)"):
        ParameterBlockSpec("mean", DistributedRows(np.zeros(3), None))
