"""mpi4py behind the communicator protocol. The only module that imports mpi4py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from mpi4py import MPI

__all__ = ["MpiCommunicator"]

T = TypeVar("T")


class MpiCommunicator:
    """A group of MPI ranks.

    Lower-case (pickling) calls only: what travels is one small tuple or one entry per call, never a design.
    """

    is_serial = False

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    @property
    def rank(self) -> int:
        return int(self._comm.Get_rank())

    @property
    def size(self) -> int:
        return int(self._comm.Get_size())

    def allgather(self, value: T) -> list[T]:
        gathered: list[T] = self._comm.allgather(value)
        return gathered

    def bcast(self, value: T | None) -> T:
        received: Any = self._comm.bcast(value, root=0)
        return received  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T] | None:
        gathered: list[T] | None = self._comm.gather(value, root=0)
        return gathered

    def scatter(self, values: Sequence[T] | None) -> T:
        received: Any = self._comm.scatter(values, root=0)
        return received  # type: ignore[no-any-return]

    def duplicate(self) -> MpiCommunicator:
        """A communicator of our own, so that our messages never meet the caller's."""
        return MpiCommunicator(self._comm.Dup())

    def free(self) -> None:
        if not MPI.Is_finalized():
            self._comm.Free()


def world() -> MpiCommunicator:
    """Return all ranks of the job."""
    return MpiCommunicator(MPI.COMM_WORLD)
