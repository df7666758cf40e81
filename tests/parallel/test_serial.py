"""Without a communicator there is one rank, no message and no mpi4py; work is dealt fairly."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidType
from gamwarm.parallel import SERIAL, Communicator, as_communicator, share
from tests.support.thread_ranks import on_ranks


def test_the_stand_in_is_a_communicator_of_one():
    assert isinstance(SERIAL, Communicator)
    assert (SERIAL.rank, SERIAL.size, SERIAL.is_serial) == (0, 1, True)
    assert SERIAL.allgather("x") == SERIAL.gather("x") == ["x"]
    assert SERIAL.bcast("x") == SERIAL.scatter(["x"]) == "x"
    assert SERIAL.duplicate() is SERIAL
    SERIAL.free()
    assert SERIAL.allgather(1) == [1]


def test_none_is_serial_and_a_communicator_stays_itself():
    assert as_communicator(None) is SERIAL
    assert as_communicator(SERIAL) is SERIAL
    assert on_ranks(2, lambda comm: as_communicator(comm) is comm) == [True, True]


@pytest.mark.parametrize("value", [0, "world", object()])
def test_what_is_no_communicator_is_refused(value):
    with pytest.raises(InvalidType, match="mpi4py communicator, or None"):
        as_communicator(value)


def test_serial_use_never_imports_mpi4py():
    program = (
        "import sys, numpy, gamwarm.transfer, gamwarm.identity\n"
        "gamwarm.identity.matrix_digest(numpy.eye(3))\n"
        "assert not any(name.split('.')[0] == 'mpi4py' for name in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


@given(st.integers(0, 500), st.integers(1, 40))
def test_shares_cover_everything_once_in_order_and_fairly(total, size):
    shares = on_shares(total, size)

    assert [i for part in shares for i in part] == list(range(total))
    assert max(map(len, shares)) == -(-total // size)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def on_shares(total, size):
    class Rank:
        def __init__(self, rank):
            self.rank, self.size = rank, size

    return [share(total, Rank(rank)) for rank in range(size)]
