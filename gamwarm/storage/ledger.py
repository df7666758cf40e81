"""What every entry says of its fit: how it began and what it took. Read portion by portion, vectors left encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gamwarm.records import Cost, Lineage, Producer
from gamwarm.storage.codec import RECORDS, DamagedEntry
from gamwarm.storage.layout import FileView

__all__ = ["LedgerLine", "LedgerPortion", "ledger_portion"]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry's account of its fit.

    Attributes
    ----------
    kind : str
        ``final``, ``checkpoint`` or ``artifact``.
    entry_id : str
    fit_key : str or None
        Exact key of the fit; None for an artifact that does not tell.
    family : str or None
        Of an artifact: its structural key, else its strict descriptor key.
    n_rows : int
    producer : Producer
    lineage : Lineage or None
    cost : Cost or None
    """

    kind: str
    entry_id: str
    fit_key: str | None
    family: str | None
    n_rows: int
    producer: Producer
    lineage: Lineage | None
    cost: Cost | None


@dataclass(frozen=True)
class LedgerPortion:
    """The lines of some keys, and how many of their entries are damaged."""

    lines: list[LedgerLine]
    damaged: int = 0


def ledger_portion(view: FileView, *, section: str, keys: Sequence[str]) -> LedgerPortion:
    """Read the entries of some keys, seals checked."""
    lines: list[LedgerLine] = []
    damaged = 0
    for key in keys:
        for path in view.entry_paths(section, key):
            try:
                lines.append(_line(section, key, view.read(section, path).meta))
            except DamagedEntry:
                damaged += 1
    return LedgerPortion(lines, damaged)


def _line(section: str, key: str, meta: dict[str, Any]) -> LedgerLine:
    try:
        lineage, cost = meta["lineage"], meta["cost"]
        is_record = section == RECORDS
        return LedgerLine(
            kind=str(meta["kind"]) if is_record else "artifact",
            entry_id=str(meta["entry_id"]),
            fit_key=key if is_record else meta["fit_key"],
            family=None if is_record else meta["structural_key"] or key,
            n_rows=int(meta["n_rows"]),
            producer=Producer(**meta["producer"]),
            lineage=None if lineage is None else Lineage(**{**lineage, "terms": ()}),
            cost=None if cost is None else Cost(**cost),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedEntry(f"its text does not describe an entry ({error})") from error
