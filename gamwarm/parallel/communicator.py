"""The communicator protocol and its serial stand-in."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = [
    "SERIAL",
    "Communicator",
    "SerialCommunicator",
    "assign_by_cost",
    "cores_each",
    "share",
    "usable_cores",
]

# How launchers tell a rank how many of them run on its node.
_SIBLINGS = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")

T = TypeVar("T")


@runtime_checkable
class Communicator(Protocol):
    """What gamwarm needs of ranks. All is collective but `rank`, `size` and `is_congruent`."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def is_serial(self) -> bool:
        """True for the stand-in used when no communicator was given."""
        ...

    def allgather(self, value: T) -> list[T]: ...

    def bcast(self, value: T | None) -> T:
        """Return rank 0's value on every rank."""
        ...

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on rank 0, None elsewhere."""
        ...

    def scatter(self, values: Sequence[T] | None) -> T:
        """Return to each rank its item of rank 0's sequence."""
        ...

    def exchange(self, outgoing: Mapping[int, Any], incoming: Mapping[int, int]) -> dict[int, memoryview]:
        """Send bytes to some ranks and return those that others sent here.

        Parameters
        ----------
        outgoing : mapping of rank to contiguous bytes
        incoming : mapping of rank to int
            How many bytes each sender sends; both sides know beforehand.
        """
        ...

    def cores(self) -> int:
        """Processor cores that one rank may keep busy on its node; cached by the first call."""
        ...

    def is_congruent(self, other: Communicator) -> bool:
        """Whether ``other`` has the same ranks in the same order. Local."""
        ...

    def duplicate(self) -> Communicator: ...

    def free(self) -> None: ...


class SerialCommunicator:
    """One rank that never communicates; ``comm=None`` becomes this, also under mpirun."""

    rank = 0
    size = 1
    is_serial = True

    def allgather(self, value: T) -> list[T]:
        return [value]

    def bcast(self, value: T | None) -> T:
        return value  # type: ignore[return-value]

    def gather(self, value: T) -> list[T] | None:
        return [value]

    def scatter(self, values: Sequence[T] | None) -> T:
        assert values is not None
        return values[0]

    def exchange(self, outgoing: Mapping[int, Any], incoming: Mapping[int, int]) -> dict[int, memoryview]:
        return {rank: memoryview(outgoing[rank]).cast("B") for rank in incoming}

    def cores(self) -> int:
        mine = usable_cores()
        return cores_each(mine, [mine])

    def is_congruent(self, other: Communicator) -> bool:
        return other.size == 1

    def duplicate(self) -> SerialCommunicator:
        return self

    def free(self) -> None:
        return None


SERIAL = SerialCommunicator()


def share(total: int, comm: Communicator) -> range:
    """Return this rank's contiguous share of ``total`` items, at most ceil(total / size)."""
    return range(comm.rank * total // comm.size, (comm.rank + 1) * total // comm.size)


def assign_by_cost(costs: Sequence[float], size: int) -> list[int]:
    """Return which rank does each piece of work: the dearest first, to the least loaded.

    Depends on the arguments alone, so ranks that know the costs agree without a message.
    """
    loads = [0.0] * size
    dealt = [0] * len(costs)
    for item in sorted(range(len(costs)), key=lambda i: -costs[i]):
        rank = loads.index(min(loads))
        dealt[item] = rank
        loads[rank] += costs[item]
    return dealt


def usable_cores() -> frozenset[int]:
    """Return the processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cores_each(mine: Collection[int], on_node: Sequence[Collection[int]]) -> int:
    """Return how many cores a rank may keep busy without taking another's.

    Parameters
    ----------
    mine : collection of int
        Cores that this rank may run on.
    on_node : sequence of collections of int
        The same of every rank of the communicator on this node. Ranks that are bound to cores of
        their own have those; of ranks that may run anywhere each has its share.
    """
    there = len(frozenset[int]().union(*on_node))
    return min(len(mine), max(1, there // max(len(on_node), _siblings())))


def _siblings() -> int:
    """Return the job's processes on this node, according to its launcher; 1 without one."""
    told = [os.environ.get(name, "") for name in _SIBLINGS]
    return max([1, *(int(text) for text in told if text.isdecimal())])
