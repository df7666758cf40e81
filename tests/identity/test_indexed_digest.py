"""Indexed designs: the digest is that of the distinct rows and the index, on any ranks, by any
integer type, never expanded.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gamwarm import DistributedRows, FitProblem, IndexedDesign, ParameterBlockSpec, exact_key, family, matrix_digest
from gamwarm.errors import CollectiveError, InvalidInput, InvalidType, UnkeyableFit
from gamwarm.problem import BlockwiseFitOptions
from tests.support.oracle import plain_digest, plain_indexed_digest, plain_sparse_digest
from tests.support.problems import NamedFamily, Rows, small_problem, wave
from tests.support.thread_ranks import on_ranks

LEAF = 1048576
TYPES = ["i1", "u1", "i2", "<u4", ">i4", "i8", ">i8", "u8"]
EDGE = st.sampled_from([0, 0, 1, LEAF - 1, LEAF, LEAF + 1]) | st.integers(0, 100)


def index_of(n, m):
    return (np.arange(n) * 7 + 3) % m


def is_digest_of(rows, index):
    return plain_indexed_digest(plain_digest(rows), rows.shape, index)


def part_of(index, counts, rank):
    start = sum(counts[:rank])
    return index[start : start + counts[rank]]


def all_or_raise(outcomes):
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


@given(st.integers(1, 9), st.integers(0, 4), st.integers(0, 300), st.sampled_from(TYPES), st.booleans(), st.data())
def test_the_digest_is_that_of_the_protocol_for_any_integer_type_and_memory_order(m, p, n, dtype, backwards, data):
    index = data.draw(st.lists(st.integers(0, m - 1), min_size=n, max_size=n))
    given_index = np.array(index, dtype=dtype)
    if backwards:
        given_index = np.array(index[::-1], dtype=dtype)[::-1]
    rows = wave(m, p, 1)

    assert matrix_digest(IndexedDesign(rows, given_index)) == is_digest_of(rows, index)
    assert matrix_digest(IndexedDesign(np.asfortranarray(rows), index)) == is_digest_of(rows, index)


@pytest.mark.parametrize("n", [LEAF - 1, LEAF, LEAF + 1, 2 * LEAF + 5])
def test_the_digest_is_that_of_the_protocol_at_the_edges_of_leaves(n):
    rows, index = wave(11, 2, 4), index_of(n, 11)

    assert matrix_digest(IndexedDesign(rows, index.astype("i1"))) == is_digest_of(rows, index)
    assert matrix_digest(IndexedDesign(rows, index)) == is_digest_of(rows, index)


@settings(max_examples=25)
@given(st.lists(EDGE, min_size=1, max_size=4), st.sampled_from(["dense", "sparse"]))
def test_any_split_over_ranks_gives_the_digest_of_the_intact_index(counts, form):
    rows = np.where(wave(7, 3, 2) > 0.0, wave(7, 3, 2), 0.0)
    whole = index_of(sum(counts), 7)
    distinct = rows if form == "dense" else sparse.csr_array(rows)
    serial = matrix_digest(IndexedDesign(distinct, whole))

    def digest(comm):
        mine = part_of(whole, counts, comm.rank).astype(TYPES[comm.rank])
        spread = DistributedRows(IndexedDesign(distinct, mine), comm)
        return matrix_digest(spread), matrix_digest(IndexedDesign(distinct, whole), comm), spread.traffic, spread.start

    answers = all_or_raise(on_ranks(len(counts), digest))

    assert {a for one, two, _, _ in answers for a in (one, two)} == {serial}
    assert sum(traffic.rows_hashed for _, _, traffic, _ in answers) == len(whole)
    for (_, _, traffic, start), count in zip(answers, counts, strict=True):
        to_next_leaf = min(-(-start // LEAF) * LEAF - start, count)
        assert (traffic.rows_sent, traffic.bytes_sent) == (to_next_leaf, 8 * to_next_leaf)


def test_a_rank_without_rows_need_not_know_the_distinct_ones():
    rows, index = wave(5, 2, 1), index_of(40, 5)

    def digest(comm):
        mine = IndexedDesign(rows, index) if comm.rank == 1 else np.zeros((0, 0) if comm.rank else (0, 2))
        spread = DistributedRows(mine, comm)
        return spread.distinct, spread.shape, matrix_digest(spread)

    assert on_ranks(3, digest) == [(5, (40, 2), is_digest_of(rows, index))] * 3


def test_ranks_that_hold_other_distinct_rows_are_reported_so_on_every_rank():
    def of(rows_of):
        def digest(comm):
            return matrix_digest(DistributedRows(rows_of(comm.rank), comm))

        return [str(outcome) for outcome in on_ranks(2, digest) if isinstance(outcome, CollectiveError)]

    assert len(of(lambda rank: IndexedDesign(wave(5, 2, rank), [0, 1]))) == 2
    assert all(
        "an index of 6 rows, rank 0 an index of 5" in e for e in of(lambda r: IndexedDesign(wave(5 + r, 2, 1), [0]))
    )
    assert len(of(lambda rank: IndexedDesign(wave(5, 2, 1), [0]) if rank else wave(3, 2, 1))) == 2


@pytest.mark.parametrize("n", [90, 2 * LEAF])
def test_ranks_that_hold_other_indices_of_one_length_are_reported_so(n):
    def digest(comm):
        return matrix_digest(IndexedDesign(wave(5, 2, 1), index_of(n, 5 - comm.rank).astype("i1")), comm)

    assert all(isinstance(outcome, CollectiveError) for outcome in on_ranks(2, digest))


def test_dense_sparse_and_indexed_designs_of_one_matrix_have_names_of_their_own():
    rows, index = np.eye(4), index_of(30, 4)
    forms = [
        rows[index],
        sparse.csr_array(rows[index]),
        IndexedDesign(rows, index),
        IndexedDesign(sparse.csr_array(rows), index),
        IndexedDesign(rows[::-1], 3 - index),  # the same matrix, its distinct rows in another order
        IndexedDesign(np.vstack([rows, rows[:1]]), index),  # with a row that no index names
    ]

    assert len({matrix_digest(form) for form in forms}) == len(forms)
    for form in forms[2:]:
        assert np.array_equal(form.to_dense(), rows[index])
        assert matrix_digest(Rows(form.to_dense())) == matrix_digest(rows[index])


@given(st.permutations(range(6)))
def test_distinct_rows_permuted_with_their_index_stand_for_the_same_matrix_under_another_name(order):
    rows, index = wave(6, 3, 1), index_of(50, 6)
    places = np.argsort(order)
    permuted = IndexedDesign(rows[np.array(order)], places[index])

    assert np.array_equal(permuted.to_dense(), rows[index])
    assert (matrix_digest(permuted) == is_digest_of(rows, index)) == (list(order) == list(range(6)))


def test_sparse_distinct_rows_are_named_in_their_canonical_form():
    entries = (np.array([1, 2, 3, 0], dtype="i1"), (np.array([0, 0, 2, 1]), np.array([1, 1, 0, 0])))
    doubled = sparse.coo_array(entries, shape=(3, 2))
    rows = plain_sparse_digest(*entries[1], entries[0], (3, 2))

    design = IndexedDesign(doubled, [2, 0, 0])

    assert matrix_digest(design) == plain_indexed_digest(rows, (3, 2), [2, 0, 0])
    assert design.to_dense().tolist() == [[3.0, 0.0], [0.0, 3.0], [0.0, 3.0]]
    assert doubled.nnz == 4
    for form in ("csr", "csc", "bsr", "lil", "dok"):
        assert matrix_digest(IndexedDesign(doubled.asformat(form), [2, 0, 0])) == matrix_digest(design)


def test_naming_takes_no_memory_of_the_size_of_the_design():
    design = IndexedDesign(np.ones((200, 400)), np.zeros(200_000, dtype="i2"))
    tracemalloc.start()
    try:
        matrix_digest(design)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_what_the_owner_of_distinct_rows_writes_later_does_not_reach_the_design():
    owned = wave(4, 2, 1)
    view = owned[:]
    view.flags.writeable = False
    before = is_digest_of(owned, [0, 1])
    design = IndexedDesign(view, [0, 1])
    matrix_digest(design)
    owned[:] = 5.0

    assert matrix_digest(design) == before
    with pytest.raises(ValueError, match="WRITEABLE"):
        design.rows.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        design.rows[0, 0] = 1.0


def test_an_index_written_to_between_two_fits_gives_the_second_another_key():
    index = np.array([0, 1, 2, 1])

    def key():
        model, (spec, *_), options = small_problem(1)
        spec = ParameterBlockSpec(spec.name, IndexedDesign(wave(3, 2, 1), index))
        return exact_key(model, [spec], options, engine="tests")

    first = key()
    index[0] = 2

    assert key() != first


def test_an_index_written_to_afterwards_that_names_no_row_makes_the_fit_unkeyable_in_text():
    index = np.array([0, 1, 2, 1], dtype="i4")
    problem = FitProblem(
        NamedFamily("y:1"),
        [ParameterBlockSpec("s(x)", IndexedDesign(wave(3, 2, 1), index))],
        BlockwiseFitOptions(),
        engine="tests",
    )
    index[2] = -1

    with pytest.raises(UnkeyableFit, match=r"s\(x\).*index is -1 at position 2; there are 3 distinct rows, 0 to 2"):
        _ = problem.key


def test_a_number_at_fault_in_a_later_leaf_is_named_by_its_place_in_the_intact_index():
    index = np.zeros(2 * LEAF, dtype="i1")
    design = IndexedDesign(wave(3, 2, 1), index)
    index[LEAF + 70_000] = 9

    with pytest.raises(InvalidInput, match=f"index is 9 at position {LEAF + 70_000}"):
        matrix_digest(design)


@pytest.mark.parametrize(
    ("rows", "index", "error", "words"),
    [
        (np.eye(3), [0, 3], InvalidInput, "index is 3 at position 1; there are 3 distinct rows, 0 to 2"),
        (np.eye(3), np.array([2, -1], dtype="i1"), InvalidInput, "index is -1 at position 1"),
        (np.eye(3), np.array([2, 2**64 - 1], dtype="u8"), InvalidInput, "index is 18446744073709551615 at position 1"),
        (np.zeros((300, 1)), np.array([2, -1], dtype="i1"), InvalidInput, "index is -1 at position 1"),
        (np.zeros((0, 3)), [0], InvalidInput, "names row 0 at position 0; there are no distinct rows"),
        (np.eye(3), [0.0, 1.0], InvalidType, "index has element type float64"),
        (np.eye(3), [True, False, True], InvalidType, "index has element type bool"),
        (np.eye(3), np.array(["a"]), InvalidType, "index has element type <U1"),
        (np.eye(3), np.array([0, None]), InvalidType, "index has element type object"),
        (np.eye(3), np.zeros(0), InvalidType, "index has element type float64"),
        (np.eye(3), [[0], [1]], InvalidInput, r"index has shape \(2, 1\); expected \(n,\)"),
        (np.eye(3), 1, InvalidInput, r"index has shape \(\)"),
        (np.eye(3), [[0], [1, 2]], InvalidInput, "index is ragged"),
        (np.eye(3), np.ma.masked_array([0, 1], [0, 1]), InvalidType, "index is a masked array"),
        (np.ones(3), [0], InvalidInput, r"rows have shape \(3,\); expected \(m, p\)"),
        (np.array([[1.0, np.nan]]), [0], InvalidInput, r"rows hold a non-finite number at \[0, 1\] \(nan\)"),
        (np.array([[1.0], [-np.inf]]), [0], InvalidInput, r"rows hold a non-finite number at \[1, 0\] \(-inf\)"),
        (sparse.csr_array(np.diag([1.0, np.nan])), [0], InvalidInput, r"a non-finite number at \[1, 1\] \(nan\)"),
        (np.ones((2, 2), dtype=complex), [0], InvalidType, "rows has element type complex128"),
        (np.array([[2**53 + 1]]), [0], InvalidType, "integer 9007199254740993, which binary64 cannot hold"),
        (sparse.csr_array(np.array([[2**53 + 1]])), [0], InvalidType, "integer 9007199254740993"),
        (np.ma.masked_array(np.eye(2)), [0], InvalidType, "rows is a masked array"),
        ([[1.0]], [0], InvalidType, "rows are list; give a NumPy array or a SciPy sparse matrix"),
        (IndexedDesign(np.eye(2), [0]), [0], InvalidType, "rows are IndexedDesign"),
    ],
)  # fmt: skip
def test_what_is_no_indexed_design_is_refused_with_the_place_at_fault(rows, index, error, words):
    with pytest.raises(error, match=words):
        IndexedDesign(rows, index)


def test_an_indexed_design_without_rows_needs_no_distinct_ones():
    assert matrix_digest(IndexedDesign(np.zeros((0, 3)), [])) == is_digest_of(np.zeros((0, 3)), [])
    assert IndexedDesign(np.eye(3), ()).shape == (0, 3)


def test_a_family_is_named_by_an_indexed_design_as_by_any_other_value():
    rows, index = np.eye(3), [0, 2, 1, 1]
    forms = [IndexedDesign(rows, index), IndexedDesign(rows, index[::-1]), rows[index], sparse.csr_array(rows[index])]
    prints = [family("tests.indexed", x=form).persistent_warm_start_fingerprint((), None) for form in forms]

    assert len(set(prints)) == 4
    spread = family("tests.indexed", x=DistributedRows(IndexedDesign(rows, np.array(index, dtype="u1")), None))
    assert spread.persistent_warm_start_fingerprint((), None) == prints[0]
