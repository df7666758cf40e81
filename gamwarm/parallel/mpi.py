"""mpi4py behind the communicator protocol. The only module that imports mpi4py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.parallel.communicator import Communicator, cores_each, usable_cores

__all__ = ["MpiCommunicator"]

T = TypeVar("T")


@lru_cache(maxsize=1)
def _cores_key() -> int:
    """What `cores` found stays on the communicator: asking again sends nothing."""
    return MPI.Comm.Create_keyval()


class MpiCommunicator:
    """A group of MPI ranks.

    Lower-case (pickling) calls but for `exchange`: what travels is one small tuple or one entry,
    never a design.
    """

    is_serial = False

    def __init__(self, comm: MPI.Comm) -> None:
        self._given = comm
        if isinstance(self._comm, MPI.Intercomm):
            raise InvalidType(
                "comm is an intercommunicator, whose ranks are of two groups; give a communicator of one group, "
                "for example comm.Merge()"
            )
        # They outlive MPI itself, and never change.
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())

    @property
    def _comm(self) -> MPI.Comm:
        # MPI ends the process on a call after MPI_Finalize, and calls a null communicator an error
        # without a type.
        if MPI.Is_finalized() or not MPI.Is_initialized():
            state = "has ended" if MPI.Is_finalized() else "was not started"
            raise InvalidInput(f"MPI {state}: use communicators, and close their stores, before MPI.Finalize()")
        if self._given == MPI.COMM_NULL:
            raise InvalidInput(
                "comm is COMM_NULL: it was freed, or this rank is not in its group; leave gamwarm's collective calls "
                "to the ranks that are"
            )
        return self._given

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

    def exchange(self, outgoing: Mapping[int, Any], incoming: Mapping[int, int]) -> dict[int, memoryview]:
        # A collective call: messages between two ranks could meet the caller's own.
        sends, receives = [np.zeros(self.size, dtype=np.int32) for _ in range(2)]
        parts = []
        for rank, data in sorted(outgoing.items()):
            parts.append(memoryview(data).cast("B"))
            sends[rank] = len(parts[-1])
        for rank, length in incoming.items():
            receives[rank] = length
        packed = parts[0] if len(parts) == 1 else b"".join(parts)
        received = bytearray(int(receives.sum()))
        self._comm.Alltoallv([packed, sends, MPI.BYTE], [received, receives, MPI.BYTE])
        ends = np.cumsum(receives)
        whole = memoryview(received)
        return {rank: whole[int(ends[rank]) - length : int(ends[rank])] for rank, length in incoming.items()}

    def cores(self) -> int:
        known: Any = self._comm.Get_attr(_cores_key())
        if known is None:
            node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
            try:
                mine = usable_cores()
                known = cores_each(mine, node.allgather(mine))
            finally:
                node.Free()
            self._comm.Set_attr(_cores_key(), known)
        return int(known)

    def is_congruent(self, other: Communicator) -> bool:
        if not isinstance(other, MpiCommunicator):
            return self.size == other.size == 1
        return MPI.Comm.Compare(self._comm, other._comm) in (MPI.IDENT, MPI.CONGRUENT)

    def duplicate(self) -> MpiCommunicator:
        """A communicator of our own, so that our messages never meet the caller's."""
        return MpiCommunicator(self._comm.Dup())

    def free(self) -> None:
        if not MPI.Is_finalized() and self._given != MPI.COMM_NULL:
            self._given.Free()


def world() -> MpiCommunicator:
    """Return all ranks of the job."""
    return MpiCommunicator(MPI.COMM_WORLD)
