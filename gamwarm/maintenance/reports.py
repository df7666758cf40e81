"""Reports of operations on a whole file: verify, compact, merge, salvage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gamwarm.display import NotebookTable
from gamwarm.entries import Problem

__all__ = ["CompactReport", "MergeReport", "SalvageReport", "Verdict", "VerifyReport"]


class Verdict(StrEnum):
    """What `verify` makes of a file: nothing wrong, wrong and repaired, or wrong."""

    SOUND = "sound"
    REPAIRED = "repaired"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class VerifyReport(NotebookTable):
    """What `verify` found.

    Attributes
    ----------
    problems : tuple of Problem
        What is wrong and stays so.
    entries : int
        Entries verified.
    nbytes : int
        Payload bytes read.
    repaired : tuple of Problem
        What was wrong and has been repaired: a journal that had to be replayed on opening, running
        totals, the index.
    complete : bool
        False if the progress callback ended the walk; the verdict then covers the verified entries.
    """

    problems: tuple[Problem, ...]
    entries: int
    nbytes: int
    repaired: tuple[Problem, ...] = ()
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether every entry was verified and nothing is wrong now."""
        return self.complete and not self.problems

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return Verdict.DAMAGED
        return Verdict.REPAIRED if self.repaired else Verdict.SOUND

    def __repr__(self) -> str:
        partly = "" if self.complete else ", ended early"
        return f"<VerifyReport: {self.verdict}, {self.entries} entries, {len(self.problems)} problems{partly}>"

    def _facts(self) -> list[tuple[str, str]]:
        ended = "" if self.complete else "early, by the progress callback"
        entries = f"{self.entries}, {self.nbytes:,} bytes"
        return [("verdict", str(self.verdict)), ("entries", entries), ("ended", ended)]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        wrong = [("wrong", each.place, each.reason) for each in self.problems]
        return ("", "where", "what"), wrong + [("repaired", each.place, each.reason) for each in self.repaired]


@dataclass(frozen=True)
class CompactReport:
    """What `compact` gave back.

    Attributes
    ----------
    bytes_before, bytes_after : int
        Size of the file.
    entries : int
        Entries copied, damaged ones that could be copied included.
    lost : tuple of Problem
        Entries so damaged that HDF5 could not copy them; they are not in the file any more.
    reason : str
        Why nothing was done; else empty.
    """

    bytes_before: int = 0
    bytes_after: int = 0
    entries: int = 0
    lost: tuple[Problem, ...] = ()
    reason: str = ""

    @property
    def bytes_freed(self) -> int:
        return self.bytes_before - self.bytes_after


@dataclass(frozen=True)
class MergeReport:
    """What `merge` took over.

    Attributes
    ----------
    added : tuple of str
        Entry ids that this file did not hold before and holds now, sorted.
    seen : int
        Whole entries of the source.
    superseded : int
        Of these, records not kept because a newer final or a better checkpoint of their fit is.
    problems : tuple of Problem
        Damaged entries of the source (skipped), and keys of this file that damage keeps from being
        written.
    reason : str
        Why nothing was done; else empty.
    """

    added: tuple[str, ...] = ()
    seen: int = 0
    superseded: int = 0
    problems: tuple[Problem, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class SalvageReport:
    """What `salvage` brought to safety.

    Attributes
    ----------
    copied : tuple of str
        Entry ids in the new file, sorted.
    problems : tuple of Problem
        What could not be reached, or failed its digests.
    into : str
        Path of the new file; empty if none was made.
    reason : str
        Why nothing was done; else empty.
    """

    copied: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    into: str = ""
    reason: str = ""
