"""How a store of one's own writes: puts are buffered and written together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gamwarm.entries import BufferedEntries
from gamwarm.parallel import SERIAL
from gamwarm.store.collective import Ranks
from gamwarm.store.transactions import Writes

__all__ = ["OwnRanks", "OwnWrites"]

T = TypeVar("T")


class OwnRanks(Ranks):
    """A single process, which writes what is due before each access to the file."""

    def __init__(self, path: Path, mode: str, on_error: str, parent: Ranks, parent_writes: Writes) -> None:
        super().__init__(SERIAL, path, mode, on_error)
        self.entries: BufferedEntries | None = None
        self.disabled_reason = parent.disabled_reason
        self._parent, self._parent_writes = parent, parent_writes

    def _is_due(self) -> bool:
        # The parent store holds the file's lock during its own transaction.
        if self.entries is None or self._parent_writes.in_transaction:
            return False
        return self.entries.is_due(urgent=self.is_ending())

    def is_ending(self) -> bool:
        return super().is_ending() or self._parent.is_ending()

    def time_left(self) -> float:
        return min(super().time_left(), self._parent.time_left())

    def _loss(self) -> str:
        n = 0 if self.entries is None else self.entries.n_pending
        return f"; {n} entries that waited are lost" if n else ""

    def flush_if_due(self) -> None:
        if self._is_due():
            self.flush()

    def flush(self) -> int:
        return 0 if self.entries is None else self.entries.flush()

    def at_root(self, operation: str, act: Callable[[], T], fallback: T, *, even_off: bool = False) -> T:
        def act_when_nothing_is_due() -> T:
            self.flush_if_due()
            return act()

        value = super().at_root(operation, act_when_nothing_is_due, fallback, even_off=even_off)
        if self.disabled_reason is not None and self.entries is not None:
            self.entries.discard_pending(f"the store is off: {self.disabled_reason}")
        return value


class OwnWrites(Writes):
    """Buffered puts, outside of transactions."""

    ranks: OwnRanks

    def run(self, operation: str, act: Callable[[], T], fallback: T) -> T:
        if self.in_transaction:
            return super().run(operation, act, fallback)

        def put() -> T:
            self.refuse_read_only()
            value = act()
            self.ranks.flush_if_due()
            return value

        with self.lock:
            return self.ranks.at_root(operation, put, fallback)
