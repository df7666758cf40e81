"""Records decoded before, as long as the file has not moved since.

One state of the file at a time: whatever moves (header, inode, size or mtime, as the readers compare them) empties the
cache, so that a hit is what a read of the file would have given. Records are handed out as private copies over
immutable bytes. Not locked: its owner takes turns.
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
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._nbytes = 0

    def __contains__(self, key: object) -> bool:
        """Whether a value is kept under a key, of whatever state: if not, the state need not be looked at."""
        return key in self._values

    def get(self, state: S | None, key: K) -> V | None:
        """Return the value kept under a key if it is of this state."""
        found = self._values.get(key)
        if found is None or state is None or state != self._state:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, state: S | None, key: K, value: V, nbytes: int) -> None:
        """Keep a value read in one state (None: of no state that lasts) and forget those of others."""
        if state is None:
            return
        if state != self._state:
            self.clear()
            self._state = state
        self._nbytes += nbytes - self._values.get(key, (None, 0))[1]
        self._values[key] = value, nbytes
        while self._nbytes > self._limit:
            self._nbytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._values.clear()
        self._nbytes, self._state = 0, None
