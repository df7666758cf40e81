"""What became of a put."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PutOutcome"]


@dataclass
class PutOutcome:
    """Whether an entry is on disk.

    Attributes
    ----------
    written : bool
        The transaction that holds the entry is on disk (or the same entry already was).
    pending : bool
        The entry waits for the end of the transaction around it; this object is settled then.
    reason : str
        Why it was not written; or a remark.
    entry_id : str or None
        None for what was refused before it had one.
    """

    written: bool = False
    pending: bool = False
    reason: str = ""
    entry_id: str | None = None

    def settle(self, *, written: bool, reason: str = "") -> None:
        """End a pending state."""
        if self.pending:
            self.pending = False
            self.written = written
            self.reason = reason or self.reason
