"""From a frozen parent every fold gives the same bits, in any order and on any number of ranks,
seeds included.
"""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm
from gamwarm.engine import fit
from tests.support.models import USUAL, columns, model
from tests.support.thread_ranks import on_ranks

DATA = columns(200, groups=6)
GROUPS = sorted(set(DATA["group"]))


def bits(done):
    return done.result.objective, done.result.rho.tobytes(), *(b.tobytes() for b in done.result.block_beta)


def campaign(path, order, comm=None):
    """Fit a parent and, from a view frozen there, the folds in this order, one per rank and
    round.
    """
    bound = model("poisson", DATA)
    size, rank = (1, 0) if comm is None else (comm.size, comm.rank)
    found = {}
    with gamwarm.open(path, comm=comm) as store:
        parent = fit(bound.case() if rank == 0 else None, options=USUAL, store=store, each=True, group_seeds="group")
        view = store.frozen()
        for first in range(0, len(order), size):
            label = order[first + rank] if first + rank < len(order) else None
            case = None if label is None else bound.case(DATA["group"] != label)
            done = fit(case, options=USUAL, store=view, each=True, leave_out=label)
            if label is not None:
                assert done.start.seeds == "used"
                found[label] = bits(done)
    return found, None if parent.result is None else bits(parent)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return campaign(tmp_path_factory.mktemp("serial") / "s.gamwarm", GROUPS)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_folds_does_not_move_a_bit(serial, seed, tmp_path):
    order = list(np.random.default_rng(seed).permutation(GROUPS))

    found, _ = campaign(tmp_path / "s.gamwarm", order)

    assert found == serial[0]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_number_of_ranks_does_not_move_a_bit(serial, size, tmp_path):
    parts = on_ranks(size, lambda comm: campaign(tmp_path / "s.gamwarm", GROUPS, comm))

    assert {label: b for found, _ in parts for label, b in found.items()} == serial[0]
    assert parts[0][1] == serial[1]
