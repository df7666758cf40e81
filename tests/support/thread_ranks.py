"""Ranks played by threads of this process: the communicator protocol without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["ThreadCommunicator", "on_ranks"]

T = TypeVar("T")

_PATIENCE_SECONDS = 20.0  # a rank that waits longer fails its test instead of hanging it


class _Board:
    def __init__(self, size: int) -> None:
        self.slots: list[Any] = [None] * size
        self.living = [0] * size
        self.barrier = threading.Barrier(size, timeout=_PATIENCE_SECONDS)


class ThreadCommunicator:
    """One rank of a group of threads. Counts its exchanges, and the bytes it sent to single
    ranks.
    """

    is_serial = False

    def __init__(self, rank: int, board: _Board) -> None:
        self.rank = rank
        self.size = len(board.slots)
        self.exchanges = 0
        self.sent = 0
        self._board = board

    def allgather(self, value: T) -> list[T]:
        self.exchanges += 1
        self._board.slots[self.rank] = value
        self._board.barrier.wait()
        gathered = list(self._board.slots)
        self._board.barrier.wait()
        return gathered

    def bcast(self, value: T | None) -> T:
        received: Any = self.allgather(value)[0]
        return received  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T] | None:
        gathered = self.allgather(value)
        return gathered if self.rank == 0 else None

    def scatter(self, values: Sequence[T] | None) -> T:
        items: Any = self.allgather(values)[0]
        return items[self.rank]  # type: ignore[no-any-return]

    def exchange(self, outgoing: Mapping[int, Any], incoming: Mapping[int, int]) -> dict[int, memoryview]:
        everybody = self.allgather({rank: bytes(data) for rank, data in outgoing.items()})
        self.sent += sum(len(memoryview(data).cast("B")) for data in outgoing.values())
        meant = {rank: sent[self.rank] for rank, sent in enumerate(everybody) if self.rank in sent}
        assert {rank: len(data) for rank, data in meant.items()} == dict(incoming), "somebody expects other bytes"
        return {rank: memoryview(data) for rank, data in meant.items()}

    def cores(self) -> int:
        return 1

    def is_congruent(self, other: object) -> bool:
        return isinstance(other, ThreadCommunicator) and other._board is self._board

    def duplicate(self) -> ThreadCommunicator:
        self._board.living[self.rank] += 1
        return self

    def free(self) -> None:
        self._board.living[self.rank] -= 1

    @property
    def living(self) -> int:
        """Duplicates of this rank that have not been freed."""
        return self._board.living[self.rank]


def on_ranks(size: int, function: Callable[[ThreadCommunicator], T]) -> list[T | Exception]:
    """Run ``function`` on every rank at once; return, by rank, what it returned or raised."""
    board = _Board(size)

    def run(rank: int) -> T | Exception:
        try:
            return function(ThreadCommunicator(rank, board))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
