"""What became of a put."""

from __future__ import annotations

from dataclasses import dataclass

from gamwarm.display import short, visible
from gamwarm.interrupts import cause

__all__ = ["Pending", "PutOutcome", "rolled_back"]


@dataclass
class PutOutcome:
    """Whether an entry is on disk.

    Attributes
    ----------
    written : bool
        The transaction that holds the entry is on disk (or the same entry already was).
    pending : bool
        The entry is pending until the end of its transaction; this object is settled then.
    reason : str
        Why it was not written; or a remark.
    entry_id : str or None
        None if it was refused before it had one.
    """

    written: bool = False
    pending: bool = False
    reason: str = ""
    entry_id: str | None = None

    def __str__(self) -> str:
        state = "written" if self.written else "pending" if self.pending else "not written"
        entry = "" if self.entry_id is None else f" as {short(self.entry_id)}"
        return f"{state}{entry}: {visible(self.reason)}" if self.reason else f"{state}{entry}"

    def settle(self, *, written: bool, reason: str = "") -> None:
        """End a pending state."""
        if self.pending:
            self.pending = False
            self.written = written
            self.reason = reason or self.reason


class Pending:
    """Outcomes that one event settles: the end of a transaction, or a flush."""

    def __init__(self) -> None:
        self._outcomes: list[PutOutcome] = []

    def add(self, outcome: PutOutcome) -> None:
        """Have an outcome settled with the others, if it is pending."""
        if outcome.pending:
            self._outcomes.append(outcome)

    def ids(self) -> set[str]:
        """Return the entry ids that are pending."""
        return {outcome.entry_id for outcome in self._outcomes if outcome.entry_id is not None}

    def settle(self, *, written: bool, reason: str = "") -> None:
        """End the pending state of all."""
        for outcome in self._outcomes:
            outcome.settle(written=written, reason=reason)
        self._outcomes.clear()


def rolled_back(error: BaseException) -> str:
    """Return why the puts of a transaction that ``error`` ended are not written."""
    origin = cause(error)
    return f"the transaction was rolled back by {type(origin).__name__}" + (f": {origin}" if str(origin) else "")
