"""Whatever a caller passes as ``comm``, behind the protocol."""

from __future__ import annotations

from typing import Any

from gamwarm.errors import InvalidType
from gamwarm.parallel.communicator import SERIAL, Communicator

__all__ = ["as_communicator"]


# Classes that passed the protocol's check, which is slower than most calls.
_communicators: set[type] = {type(SERIAL)}


def as_communicator(comm: Any) -> Communicator:
    """Return ``comm`` behind the protocol: None is serial, mpi4py's are wrapped.

    Raises
    ------
    InvalidInput
        ``COMM_NULL``, a communicator that was freed, or MPI does not run (any more).
    InvalidType
        An intercommunicator, or no communicator at all.
    """
    if comm is None:
        return SERIAL
    if type(comm) in _communicators:
        return comm  # type: ignore[no-any-return]
    if hasattr(comm, "Get_rank") and hasattr(comm, "Dup"):  # asked first: its properties end a process without MPI
        from gamwarm.parallel.mpi import MpiCommunicator  # noqa: PLC0415 - serial use never imports mpi4py

        return MpiCommunicator(comm)
    if isinstance(comm, Communicator):
        _communicators.add(type(comm))
        return comm
    raise InvalidType(f"comm is {type(comm).__name__}; give an mpi4py communicator, or None for serial")
