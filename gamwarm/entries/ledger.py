"""What every entry says of its fit: how it began and what it took.

Kept apart from the heads, which are text that no seal was checked for: sums are made of whole entries alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gamwarm.entries.codec import RECORDS, SECTIONS, DamagedEntry
from gamwarm.entries.layout import FileView
from gamwarm.entries.scan import each_entry, key_of, places_in_order
from gamwarm.records import Cost, Lineage, Producer

if TYPE_CHECKING:
    from gamwarm.entries.store import EntryStore

__all__ = ["LedgerLine", "read_ledger"]


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


def read_ledger(store: EntryStore) -> Iterator[LedgerLine | None]:
    """Yield the line of every entry, records before artifacts; None for a damaged one."""
    store.flush()
    for section in SECTIONS:
        yield from each_entry(store, section, places_in_order(store, section), _line_if_whole)


def _line_if_whole(view: FileView, section: str, path: str) -> LedgerLine | None:
    try:
        return _line(section, key_of(path), view.read(section, path).meta)
    except DamagedEntry:
        return None


def _line(section: str, key: str, meta: dict[str, Any]) -> LedgerLine:
    lineage, cost = meta["lineage"], meta["cost"]
    is_record = section == RECORDS
    try:
        return LedgerLine(
            kind=meta["kind"] if is_record else "artifact",
            entry_id=meta["entry_id"],
            fit_key=key if is_record else meta["fit_key"],
            family=None if is_record else meta["structural_key"] or key,
            n_rows=meta["n_rows"],
            producer=Producer(**meta["producer"]),
            lineage=None if lineage is None else Lineage(**{**lineage, "terms": ()}),
            cost=None if cost is None else Cost(**cost),
        )
    except (TypeError, ValueError) as error:
        raise DamagedEntry(f"its text does not describe an entry ({error})") from error
