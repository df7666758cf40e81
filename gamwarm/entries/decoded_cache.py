"""Entries decoded before, handed out again without reading them.

`DecodedCache` is for keys that name what is stored: an artifact by its place and its seal, which covers every stored
byte. One look at the seal tells whether it is still there, so commits do not matter.

`StateCache` is for answers of one state of the file: whatever moves (header, inode, size or mtime, as the readers
compare them) empties it, so that a hit is what a read of the file would have given.

What is handed out are private copies over immutable bytes. Not locked: who puts takes turns.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["CACHE_BYTES", "DecodedCache", "StateCache"]

CACHE_BYTES: Final = 32 * 1024 * 1024
"""Bytes that are kept, about; what was not asked for longest goes first."""

S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")


class DecodedCache(Generic[K, V]):
    """Values by key.

    Parameters
    ----------
    limit : int
        Bytes kept at most, by what `keep` is told.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._nbytes = 0

    def get(self, key: K) -> V | None:
        """Return what is kept under a key. Needs no turn."""
        found = self._values.get(key)
        if found is None:
            return None
        try:  # noqa: SIM105 - suppress costs as much as the look-up
            self._values.move_to_end(key)
        except KeyError:
            pass  # another thread has emptied the cache since
        return found[0]

    def keep(self, key: K, value: V, nbytes: int) -> None:
        """Keep a value that takes so many bytes."""
        before = self._values.get(key)
        self._nbytes += nbytes - (0 if before is None else before[1])
        self._values[key] = value, nbytes
        while self._nbytes > self._limit:
            self._nbytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._values.clear()
        self._nbytes = 0


class StateCache(Generic[S, K, V]):
    """Values by key, all of one state. The parameter is that of `DecodedCache`."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._state: S | None = None
        self._cache: DecodedCache[K, tuple[V, S]] = DecodedCache(limit)

    def get(self, key: K) -> tuple[V, S] | None:
        """Return what is kept under a key and the state that it is of. Needs no turn."""
        return self._cache.get(key)

    def put(self, state: S | None, key: K, value: V, nbytes: int) -> None:
        """Keep a value read in one state (None: of no state that lasts) and forget those of others."""
        if state is None:
            return
        if state != self._state:
            self._cache.clear()
            self._state = state
        self._cache.keep(key, (value, state), nbytes)
