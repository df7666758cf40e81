"""The communicator protocol and its serial stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from gamwarm.errors import InvalidType

__all__ = ["SERIAL", "Communicator", "SerialCommunicator", "as_communicator", "share"]

T = TypeVar("T")


@runtime_checkable
class Communicator(Protocol):
    """What gamwarm needs of a group of ranks. Every method but `rank` and `size` is collective."""

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

    def duplicate(self) -> SerialCommunicator:
        return self

    def free(self) -> None:
        return None


SERIAL = SerialCommunicator()


def as_communicator(comm: Any) -> Communicator:
    """Return ``comm`` behind the protocol: None is serial, mpi4py's are wrapped, a `Communicator` stays."""
    if comm is None:
        return SERIAL
    if isinstance(comm, Communicator):
        return comm
    if hasattr(comm, "Get_rank"):
        from gamwarm.parallel.mpi import MpiCommunicator  # noqa: PLC0415 - serial use never imports mpi4py

        return MpiCommunicator(comm)
    raise InvalidType(f"comm is {type(comm).__name__}; give an mpi4py communicator, or None for serial")


def share(total: int, comm: Communicator) -> range:
    """Return this rank's contiguous share of ``total`` items: at most ceil(total / size) of them."""
    return range(comm.rank * total // comm.size, (comm.rank + 1) * total // comm.size)
