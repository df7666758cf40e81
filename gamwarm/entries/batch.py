"""Entries of one key that are copied between files, and problems of those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from gamwarm.display import visible
from gamwarm.encoding import Encoded

__all__ = ["Batch", "Problem"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file."""

    place: str
    reason: str

    def __str__(self) -> str:
        return visible(f"{self.place}: {self.reason}")


@dataclass(frozen=True)
class Batch:
    """The entries of one key of some file, on their way into another."""

    section: str
    key: str
    entries: list[Encoded]
    pinned: set[str] = field(default_factory=set)
    damaged: list[Problem] = field(default_factory=list)
