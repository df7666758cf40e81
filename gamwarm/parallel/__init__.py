"""Ranks behind one small interface: a serial stand-in, mpi4py where a communicator is given,
agreement on errors.
"""

from gamwarm.parallel.adapt import as_communicator
from gamwarm.parallel.agreement import agree, already_agreed, mark_agreed, tell, work_dealt
from gamwarm.parallel.communicator import (
    SERIAL,
    Communicator,
    SerialCommunicator,
    cores_each,
    deal,
    share,
    usable_cores,
)

__all__ = [
    "SERIAL",
    "Communicator",
    "SerialCommunicator",
    "agree",
    "already_agreed",
    "as_communicator",
    "cores_each",
    "deal",
    "mark_agreed",
    "share",
    "tell",
    "usable_cores",
    "work_dealt",
]
