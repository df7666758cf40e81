"""What there is to know of an entry without its vectors: for lists, reports and choices over a whole file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from gamwarm.entries.codec import ARTIFACTS, RECORDS, SECTIONS, DamagedEntry
from gamwarm.entries.layout import FileView
from gamwarm.entries.scan import each_entry, key_of, places, places_in_order
from gamwarm.entries.store import EntryStore

__all__ = ["EntryHead", "FitOfRecord", "find_fit_of_record", "read_heads"]

_NOTHING: Final[Mapping[str, str | int | float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EntryHead:
    """One entry as its text describes it. Not checked against its seal: what is used is checked when it is read whole.

    Attributes
    ----------
    section, path, key : str
        ``/<section>/<path>`` is where it lies; ``key`` its exact key, or of an artifact its strict descriptor key.
    entry_id : str
    kind : str
        ``final``, ``checkpoint`` or ``artifact``.
    created : int
        UTC microseconds.
    engine, engine_version, gamwarm_version : str
    family : str or None
        Family kind; None for records, which do not hold it.
    fit_key : str or None
        Exact key of the fit: of a record its own, of an artifact the one that it names.
    blocks : tuple of str
        Names of the blocks, or of the artifact's terms.
    n_rows, n_outer, width : int
        Rows, outer coordinates (of artifacts: of their curvature) and coefficients.
    objective : float or None
    converged : bool
    source : str or None
        ``exact``, ``transfer`` or ``cold``; None where the fit did not look its start up.
    parent : str or None
        Entry id that the fit started from.
    consumed : bool or None
        Whether the engine said that it used the start.
    terms : tuple of (str, str)
        Block name and provenance, for transfers.
    cost : tuple of numbers or None
        Evaluations, outer and inner iterations, Hessian formations (but those that served later fits only), seconds.
    attributes : dict
        The user's own.
    """

    section: str
    path: str
    key: str
    entry_id: str
    kind: str
    created: int
    engine: str
    engine_version: str
    gamwarm_version: str
    family: str | None
    fit_key: str | None
    blocks: tuple[str, ...]
    n_rows: int
    n_outer: int
    width: int
    objective: float | None
    converged: bool
    source: str | None
    parent: str | None
    consumed: bool | None
    terms: tuple[tuple[str, str], ...]
    cost: tuple[int, int, int, int, float] | None
    attributes: Mapping[str, str | int | float]

    @property
    def place(self) -> str:
        """Where it lies in the file."""
        return f"/{self.section}/{self.path}"

    @property
    def producer(self) -> str:
        """Engine and version in one string; empty if unknown."""
        return f"{self.engine} {self.engine_version}".strip()


def read_heads(store: EntryStore) -> tuple[list[EntryHead], list[str]]:
    """Return the heads of all entries in order of section, key and path, and where those lie that cannot be read."""
    heads: list[EntryHead] = []
    damaged: list[str] = []
    for section in SECTIONS:
        for found in each_entry(store, section, places_in_order(store, section), _head_or_place):
            if isinstance(found, str):
                damaged.append(found)
            else:
                heads.append(found)
    return heads, damaged


@dataclass(frozen=True, slots=True)
class FitOfRecord:
    """What a record's entry id leads to.

    Attributes
    ----------
    is_record : bool
        Whether a record of that id is in the file.
    artifact_id : str or None
        Newest artifact of the same fit.
    """

    is_record: bool
    artifact_id: str | None


def find_fit_of_record(store: EntryStore, entry_id: str) -> FitOfRecord:
    """Find the artifact of the fit that a record is of. Reads the text of entries until it has met the record."""
    waiting = [_head(e.section, f"{e.key}/{e.entry_id}", e.meta) for e in store.waiting()]

    def heads(section: str) -> Iterator[EntryHead]:
        yield from (head for head in waiting if head.section == section)
        found = each_entry(store, section, places(store, section), _head_or_place)
        yield from (head for head in found if isinstance(head, EntryHead))

    key = next((head.key for head in heads(RECORDS) if head.entry_id == entry_id), None)
    if key is None:
        return FitOfRecord(False, None)
    of_fit = [head for head in heads(ARTIFACTS) if head.fit_key == key]
    newest = max(of_fit, key=lambda head: (head.created, head.entry_id), default=None)
    return FitOfRecord(True, None if newest is None else newest.entry_id)


def _head_or_place(view: FileView, section: str, path: str) -> EntryHead | str:
    try:
        return _head(section, path, view.read_meta(section, path))
    except DamagedEntry:
        return f"/{section}/{path}"


def _head(section: str, path: str, meta: dict[str, Any]) -> EntryHead:
    is_record = section == RECORDS
    key = key_of(path)
    producer, lineage, cost = meta["producer"], meta["lineage"] or {}, meta["cost"]
    return EntryHead(
        section=section,
        path=path,
        key=key,
        entry_id=str(meta["entry_id"]),
        kind=intern(meta["kind"]) if is_record else "artifact",
        created=int(meta["created"]),
        engine=intern(producer["engine"]),
        engine_version=intern(producer["engine_version"]),
        gamwarm_version=intern(producer["gamwarm_version"]),
        family=None if is_record else intern(meta["descriptor"]["family_kind"]),
        fit_key=key if is_record else meta["fit_key"],
        blocks=_shared(tuple(meta["blocks"] if is_record else [term["name"] for term in meta["terms"]])),
        n_rows=int(meta["n_rows"]),
        n_outer=int(meta["n_outer"]),
        width=sum(meta["widths"]) if is_record else sum(t["raw_width"] for t in meta["terms"]),
        objective=None if meta["objective"] is None else float(meta["objective"]),
        converged=bool(meta["converged"]),
        source=lineage.get("source"),
        parent=lineage.get("entry"),
        consumed=lineage.get("consumed"),
        terms=_shared(tuple((name, intern(provenance)) for name, provenance in lineage.get("terms", ()))),
        cost=None if cost is None else _cost(cost),
        attributes=meta["attributes"] or _NOTHING,
    )


def _cost(cost: dict[str, Any]) -> tuple[int, int, int, int, float]:
    formations = cost["hessian_formations"] - cost.get("for_children", 0)
    return cost["evaluations"], cost["outer_iterations"], cost["inner_iterations"], formations, cost["seconds"]


@lru_cache(maxsize=4096)
def _shared(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return one object for all equal values: a million heads of alike fits are held at once."""
    return value
