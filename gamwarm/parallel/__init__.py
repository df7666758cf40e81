"""Ranks behind one interface: a serial stand-in or mpi4py, and agreement on errors."""

from gamwarm.parallel.adapt import as_communicator
from gamwarm.parallel.agreement import agree, already_agreed, broadcast_failure, mark_agreed, run_distributed
from gamwarm.parallel.communicator import (
    SERIAL,
    Communicator,
    SerialCommunicator,
    assign_by_cost,
    cores_each,
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
    "assign_by_cost",
    "broadcast_failure",
    "cores_each",
    "mark_agreed",
    "run_distributed",
    "share",
    "usable_cores",
]
