"""Designs that ranks share and designs spread over them: the serial names, fair shares,
communicators freed.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

from tests.mpi import rows_bodies as bodies

RANKS = [1, 2, 4, pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="session")
def job(mpiexec, tmp_path_factory):
    @cache
    def launch(n):
        return mpiexec(n, bodies.everything, tmp_path_factory.mktemp("rows"), timeout=100)

    def answers(n, body):
        return [answer[body.__name__] for answer in launch(n)]

    return answers


@pytest.mark.parametrize("n", RANKS)
def test_a_digest_is_the_serial_one_however_many_ranks_hold_or_share_the_rows(job, n):
    assert [a["wrong"] for a in job(n, bodies.digests_at_every_edge)] == [[]] * n


@pytest.mark.parametrize("n", RANKS)
def test_no_rank_hashes_more_leaves_of_a_shared_design_than_its_share(job, n):
    answers = job(n, bodies.digests_at_every_edge)

    for shares in zip(*(a["leaves"] for a in answers), strict=True):
        leaves = shares[0][1]
        assert max(asked for asked, _ in shares) <= math.ceil(leaves / n)
        assert leaves < n or sum(asked for asked, _ in shares) == leaves


@pytest.mark.parametrize("n", RANKS)
def test_distributed_rows_are_hashed_where_they_live_and_only_boundary_rows_travel(job, n):
    for answer in job(n, bodies.digests_at_every_edge):
        assert answer["rows"]
        assert all(hashed == expected for hashed, expected in answer["rows"])
        assert all(sent == expected for sent, expected in answer["sent"])
    if n > 1:
        assert any(sent for a in job(n, bodies.digests_at_every_edge) for sent, _ in a["sent"])


@pytest.mark.parametrize("n", RANKS)
def test_an_indexed_design_has_its_serial_names_however_many_ranks_hold_or_share_it(job, n):
    for answer in job(n, bodies.indexed_digests):
        assert answer["wrong"] == []
        assert answer["names"] == [answer["serial"]] * 2


@pytest.mark.parametrize("n", RANKS)
def test_a_distributed_fit_has_the_names_starts_and_entries_of_the_plain_one(job, n):
    answers = job(n, bodies.a_distributed_fit_in_the_store)

    for answer in answers:
        assert {k: v for k, v in answer.items() if k != "hashed"} == {
            k: v for k, v in answers[0].items() if k != "hashed"
        }
        assert answer["names"] == answer["serial names"]
        assert answer["ids"] == answer["serial ids"]
        assert [answer[name]["source"] for name in ("cold", "again", "plain", "transfer")] == [
            "cold",
            "exact",
            "exact",
            "transfer",
        ]
        assert answer["kept"][0]["written"]
        assert answer["kept"][1]["written"]
        assert answer["why"] == ["family fingerprint"]
    # By the fit itself, by the other fit on the same rows, and by nothing else.
    assert sum(a["hashed"] for a in answers) == 2 * (2 * bodies.LEAF + 5)


@pytest.mark.parametrize("n", [2, 4, pytest.param(3, marks=pytest.mark.long)])
def test_distributed_rows_in_the_wrong_call_are_refused_in_text_and_no_one_waits(job, n):
    for answer in job(n, bodies.misuse_of_distributed_rows):
        for name in ("serial store", "serial keep"):
            assert answer[name]["type"] == "InvalidInput"
            assert "open the store with comm=" in answer[name]["text"]
        for name in ("each", "each keep"):
            assert answer[name]["type"] == "CollectiveError"
            assert "each=True" in answer[name]["cause"]
        for name in ("reversed digest", "reversed key", "halves"):
            assert answer[name]["type"] == "CollectiveError"
            assert "the communicator of its DistributedRows" in answer[name]["cause"]
        assert answer["after"] == "cold"


@pytest.mark.parametrize("n", RANKS)
def test_projections_are_dealt_to_ranks_and_equal_the_serial_ones_bit_by_bit(job, n):
    answers = job(n, bodies.projections_of_a_fold)

    for answer in answers:
        assert answer["together"] == answer["each"] == answer["serial"] == answers[0]["serial"]
        assert answer["together"]["source"] == "transfer"
        assert len(answer["local"]) == 2, "one fit per rank is projected by its rank alone"
        assert len(answer["dealt"]) <= math.ceil(2 / n) + (n == 1)
    assert sorted(tuple(shape) for a in answers for shape in a["dealt"]) == [(4, 4), (40, 35)]


@pytest.mark.parametrize("n", RANKS)
def test_communicators_are_freed_by_every_way_out(job, n):
    for rank, answer in enumerate(job(n, bodies.communicators_that_are_freed)):
        for way, (_, made, freed) in answer.items():
            assert made == freed >= 1, way
        raised = {way: name for way, (name, _, _) in answer.items()}
        assert raised["left_by_an_exception_of_one_rank"] == ("ValueError" if rank == n - 1 else "CollectiveError")
        assert raised["closed_inside_a_transaction_by_one_rank"] is not None
        assert raised["closed"] is raised["left_in_order"] is None


@pytest.mark.long
def test_more_stores_can_be_opened_in_vain_than_mpi_has_communicators(mpiexec, tmp_path):
    assert mpiexec(2, bodies.more_stores_than_communicators, tmp_path, timeout=300) == [2300, 2300]


@pytest.mark.parametrize("n", RANKS)
def test_a_rank_may_keep_busy_what_its_node_leaves_it(job, n):
    for answer in job(n, bodies.cores_of_a_rank):
        fair = max(1, answer["usable"] // n)
        assert answer["first"] == answer["again"] == fair
        assert 1 <= answer["alone"] <= answer["usable"]
