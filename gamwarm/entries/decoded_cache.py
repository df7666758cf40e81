"""Records decoded before, as long as the file has not moved since.

One state of the file at a time: whatever moves (header, inode, size or mtime, as the readers compare them) empties the
cache, so that a hit is what a read of the file would have given. Records are handed out as private copies over
immutable bytes. Not locked: who puts takes turns.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["CACHE_BYTES", "StateCache"]

CACHE_BYTES: Final = 32 * 1024 * 1024
"""Bytes that are kept, about; what was not asked for longest goes first."""

S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")


class StateCache(Generic[S, K, V]):
    """Values by key, all of one state.

    Parameters
    ----------
    limit : int
        Bytes kept at most, by what `put` is told.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._state: S | None = None
        self._values: OrderedDict[K, tuple[V, S, int]] = OrderedDict()
        self._nbytes = 0

    def get(self, key: K) -> tuple[V, S] | None:
        """Return what is kept under a key and the state that it is of. Needs no turn."""
        found = self._values.get(key)
        if found is None:
            return None
        try:  # noqa: SIM105 - suppress costs as much as the look-up
            self._values.move_to_end(key)
        except KeyError:
            pass  # another thread has emptied the cache since
        return found[0], found[1]

    def put(self, state: S | None, key: K, value: V, nbytes: int) -> None:
        """Keep a value read in one state (None: of no state that lasts) and forget those of others."""
        if state is None:
            return
        if state != self._state:
            self.clear()
            self._state = state
        before = self._values.get(key)
        self._nbytes += nbytes - (0 if before is None else before[2])
        self._values[key] = value, state, nbytes
        while self._nbytes > self._limit:
            self._nbytes -= self._values.popitem(last=False)[1][2]

    def clear(self) -> None:
        self._values.clear()
        self._nbytes, self._state = 0, None
