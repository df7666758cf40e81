"""A cache of decoded artifacts.

With each goes the place and the stored seal, which covers every stored byte: the stored seal shows
whether the entry is unchanged, so commits do not matter. Not locked: who puts takes turns.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["CACHE_BYTES", "DecodedCache"]

CACHE_BYTES: Final = 32 * 1024 * 1024
"""Bytes that are kept, about; the least recently used goes first."""

K = TypeVar("K")
V = TypeVar("V")


class DecodedCache(Generic[K, V]):
    """Values by key.

    Parameters
    ----------
    limit : int
        Limit of the bytes passed to `keep`.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._nbytes = 0

    def get(self, key: K) -> V | None:
        """Return the value of a key."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def keep(self, key: K, value: V, nbytes: int) -> None:
        """Keep a value that takes so many bytes."""
        before = self._values.get(key)
        self._nbytes += nbytes - (0 if before is None else before[1])
        self._values[key] = value, nbytes
        while self._nbytes > self._limit:
            self._nbytes -= self._values.popitem(last=False)[1][1]
