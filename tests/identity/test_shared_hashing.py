"""Ranks share the leaves of one design; no number of them changes a digest, and none waits for a
rank that failed.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from gamwarm.errors import CollectiveError, UnkeyableFit
from gamwarm.identity import exact_key, matrix_digest
from gamwarm.problem import BlockwiseFitOptions, ParameterBlockSpec
from tests.support.problems import NamedFamily, Rows, block, fit_problem, small_problem, wave
from tests.support.thread_ranks import on_ranks


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 4096, 4097, 5 * 4096, 5 * 4096 + 1])
def test_any_number_of_ranks_gives_the_serial_digest_and_deals_the_leaves(size, n):
    matrix = wave(n, 2, 1)
    sources = [Rows(matrix) for _ in range(size)]

    digests = on_ranks(size, lambda comm: matrix_digest(sources[comm.rank], comm))

    leaves = -(-n // 4096)
    assert digests == [matrix_digest(matrix)] * size
    asked = [chunk for s in sources for chunk in s.asked]
    assert set(asked) == {(i * 4096, min((i + 1) * 4096, n)) for i in range(leaves)}
    assert leaves < size or len(asked) == leaves
    assert max(len(s.asked) for s in sources) <= -(-leaves // size)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_sparse_leaves_are_dealt_too(form):
    matrix = wave(20_000, 3, 2)
    matrix[np.abs(matrix) < 0.8] = 0.0
    matrix = sparse.csr_array(matrix).asformat(form)

    assert on_ranks(3, lambda comm: matrix_digest(matrix, comm)) == [matrix_digest(matrix)] * 3


@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_ranks_gives_the_serial_key(size):
    family, specs, options = small_problem(1, labels=True)
    serial = exact_key(family, specs, options, engine="reference")

    assert on_ranks(size, lambda c: exact_key(family, specs, options, engine="reference", comm=c)) == [serial] * size


def test_a_problem_keeps_the_key_that_ranks_computed_together():
    problems = [fit_problem([ParameterBlockSpec("mean", Rows(wave(9000, 2, 1)))]) for _ in range(2)]

    keys = on_ranks(2, lambda comm: problems[comm.rank].shared_key(comm))

    assert keys == [problem.key for problem in problems]
    assert sum(len(problem.specs[0].design.asked) for problem in problems) == 3


def test_an_opt_out_on_every_rank_is_an_answer():
    _, specs, options = small_problem(1)
    family = NamedFamily("gaussian", None)

    outcomes = on_ranks(3, lambda comm: exact_key(family, specs, options, engine="reference", comm=comm))

    assert all(isinstance(outcome, UnkeyableFit) for outcome in outcomes)


def failing(rank, comm, **changes):
    """The key of the small problem, with one rank's argument changed."""
    family, specs, options = small_problem(1)
    arguments = {"family": family, "specs": specs, "options": options} | (changes if comm.rank == rank else {})
    return exact_key(
        arguments["family"], arguments["specs"], arguments["options"], engine=arguments.get("engine", "r"), comm=comm
    )


class Unknown:
    """A penalty kind with no place in the key."""

    dim, precision_label, fixed_log_lambda = 4, None, None

    def to_dense(self):
        return np.eye(4)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": NamedFamily("gaussian", None)}, "opted out"),
        ({"family": NamedFamily("gaussian", "another response")}, "key"),
        ({"specs": []}, "at least one block"),
        ({"specs": small_problem(1)[1][:1]}, "number of blocks"),
        ({"specs": [block("mean", 4, n=50, penalties=[Unknown()]), small_problem(1)[1][1]]}, "Unknown"),
        ({"specs": [block("mean", 5, n=50), small_problem(1)[1][1]]}, "same matrix"),
        ({"options": BlockwiseFitOptions(outer_tol=1e-3)}, "key"),
        ({"options": None}, "NoneType"),
        ({"engine": ""}, "engine"),
    ],
)
def test_ranks_that_describe_different_fits_all_hear_of_it(rank, changes, said):
    outcomes = on_ranks(3, lambda comm: failing(rank, comm, **changes))

    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 3
    assert said in str(outcomes[1 if rank == 0 else 0])
    assert len({outcome.rank for outcome in outcomes}) == 1


class Torn:
    """A row source that cannot be read beyond its first leaf."""

    shape = (9000, 2)

    def row_chunk(self, start, stop):
        if start:
            raise OSError("tape is gone")
        return np.ones((stop - start, 2))


def test_a_leaf_that_no_rank_can_read_makes_the_fit_unkeyable_everywhere():
    specs = [ParameterBlockSpec("mean", Torn())]

    outcomes = on_ranks(
        3, lambda comm: exact_key(NamedFamily(), specs, BlockwiseFitOptions(), engine="reference", comm=comm)
    )

    assert [type(outcome) for outcome in outcomes] == [UnkeyableFit] * 3
    assert all("'mean'" in str(outcome) and "tape is gone" in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("torn", [0, 1, 2])
def test_a_design_that_one_rank_alone_cannot_read_is_an_error_on_all_that_names_it(torn):
    def key(comm):
        specs = [ParameterBlockSpec("mean", Torn() if comm.rank == torn else np.ones((9000, 2)))]
        return exact_key(NamedFamily(), specs, BlockwiseFitOptions(), engine="reference", comm=comm)

    outcomes = on_ranks(3, key)

    if torn == 0:  # its share is the one leaf that it can read: there was no failure to see
        assert len(set(outcomes)) == 1
        return
    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 3
    assert {outcome.rank for outcome in outcomes} == {torn}
    assert all("tape is gone" in outcome.cause for outcome in outcomes)


def test_a_leaf_that_one_rank_cannot_read_ends_the_digest_everywhere():
    outcomes = on_ranks(3, lambda comm: matrix_digest(Torn(), comm))

    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 3
    assert {outcome.rank for outcome in outcomes} == {1}
    assert all("tape is gone" in outcome.cause for outcome in outcomes)


@pytest.mark.parametrize("rows", [3, 4096, 9000, 40000])
@pytest.mark.parametrize("rank", [0, 2])
def test_ranks_that_hold_different_arrays_of_one_shape_are_reported(rows, rank):
    outcomes = on_ranks(3, lambda comm: matrix_digest(wave(rows, 2, 1 + (comm.rank == rank)), comm))

    assert [type(outcome) for outcome in outcomes] == [CollectiveError] * 3


def test_more_ranks_than_leaves_hash_leaves_again_and_compare_them():
    sources = [Rows(wave(5000, 2, 1 + (rank == 4))) for rank in range(5)]

    same = on_ranks(4, lambda comm: matrix_digest(sources[comm.rank], comm))
    other = on_ranks(5, lambda comm: matrix_digest(sources[comm.rank], comm))

    assert same == [matrix_digest(wave(5000, 2, 1))] * 4
    assert [type(outcome) for outcome in other] == [CollectiveError] * 5
