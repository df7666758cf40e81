"""What an entry says of itself without its vectors: taken from its text here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from gamwarm.records import COLD_RUN, GROUP, Cost, Lineage, Producer, Provenance, StartSource

__all__ = [
    "EntrySummary",
    "cost_fields",
    "cost_of",
    "key_of",
    "lineage_of",
    "producer_of",
    "shared",
    "summary_of_all",
]

Label = str | int | float
_NOTHING: Final[Mapping[str, Label]] = MappingProxyType({})


def key_of(path: str) -> str:
    """Return the key that a path in a section belongs to."""
    return path.split("/", 1)[0]


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """One entry as its text describes it.

    A summary alone says nothing about the seal: lists use only texts; an entry that is used is
    fully read and verified.

    Attributes
    ----------
    section, path : str
        Its path in the file is ``/<section>/<path>``.
    entry_id : str
    kind : str
        ``final``, ``checkpoint`` or ``artifact``.
    created : int
        UTC microseconds.
    producer : Producer
    lineage : Lineage or None
        None where the fit did not look its start up.
    cost : Cost or None
    attributes : dict
        The user's own.
    n_rows, n_outer, width : int
        Rows, outer coordinates (of artifacts: of their curvature) and coefficients.
    reduced_width : int
        Coefficients without those that the gauge removes, if known.
    objective : float or None
    converged : bool
    blocks : tuple of str
        Names of the blocks, or of the artifact's terms.
    family : str or None
        Family kind; None for records, which do not hold it.
    fit_key : str or None
        Exact key of the fit: of a record its own, of an artifact the one that it names.
    structural_key : str or None
        Of an artifact: the structural descriptor key that it is indexed by.
    iteration : int or None
        Of a record: outer iterations so far.
    """

    section: str
    path: str
    entry_id: str
    kind: str
    created: int
    producer: Producer
    lineage: Lineage | None
    cost: Cost | None
    attributes: Mapping[str, Label]
    n_rows: int
    n_outer: int
    width: int
    reduced_width: int
    objective: float | None
    converged: bool
    blocks: tuple[str, ...]
    family: str | None = None
    fit_key: str | None = None
    structural_key: str | None = None
    iteration: int | None = None

    @property
    def key(self) -> str:
        """Exact key, or of an artifact its strict descriptor key."""
        return key_of(self.path)

    @property
    def label(self) -> str:
        """What a person calls the fit: the group it leaves out, else its attributes; or empty."""
        if GROUP in self.attributes:
            return str(self.attributes[GROUP])
        own = ((name, value) for name, value in self.attributes.items() if not name.startswith(COLD_RUN))
        return ", ".join(f"{name}={value}" for name, value in own)

    @property
    def place(self) -> str:
        """Its path in the file."""
        return f"/{self.section}/{self.path}"

    @property
    def source(self) -> StartSource | None:
        """What the fit started from; None if unknown."""
        return None if self.lineage is None else StartSource(self.lineage.source)

    @property
    def parent(self) -> str | None:
        """Entry id that the fit started from."""
        return None if self.lineage is None else self.lineage.entry

    def as_json(self) -> dict[str, Any]:
        """Return the fields that lists show, as JSON holds them."""
        return {
            "key": self.key,
            "entry_id": self.entry_id,
            "kind": self.kind,
            "created": self.created,
            "n_rows": self.n_rows,
            "objective": self.objective,
            "converged": self.converged,
            "blocks": list(self.blocks),
            "producer": dict(vars(self.producer)),
            "lineage": None if self.lineage is None else dict(vars(self.lineage)),
            "cost": None if self.cost is None else cost_fields(self.cost),
            "attributes": dict(self.attributes),
        }


def summary_of_all(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a summary that are common to all kinds of entry."""
    return {
        "entry_id": meta["entry_id"],
        "created": meta["created"],
        "producer": producer_of(**meta["producer"]),
        "lineage": lineage_of(meta["lineage"]),
        "cost": cost_of(meta["cost"]),
        "attributes": meta["attributes"] or _NOTHING,
        "n_rows": meta["n_rows"],
        "n_outer": meta["n_outer"],
        "objective": meta["objective"],
        "converged": meta["converged"],
    }


# -- parts that every kind of entry has, from a text that has been checked -------------------------
#
# Not by the constructors, which would check all of it again: every scan goes through here.

_SOURCES: Final = {str(source): source for source in StartSource}
_WITHOUT_CHILDREN: Final = {"for_children": 0, "seconds_for_children": 0.0}
_PROVENANCES: Final = {str(provenance): provenance for provenance in Provenance}


@lru_cache(maxsize=64)
def producer_of(engine: str, engine_version: str, gamwarm_version: str) -> Producer:
    """Return a producer; one object for all entries of a build."""
    return Producer(engine, engine_version, gamwarm_version)


def lineage_of(stored: Mapping[str, Any] | None) -> Lineage | None:
    """Return a lineage from its part of a text."""
    if stored is None:
        return None
    lineage = object.__new__(Lineage)
    fields = vars(lineage)
    fields["source"] = _SOURCES[stored["source"]]
    fields["entry"] = stored["entry"]
    fields["terms"] = shared(tuple([(name, _PROVENANCES[provenance]) for name, provenance in stored["terms"]]))
    fields["consumed"] = stored["consumed"]
    return lineage


def cost_of(stored: Mapping[str, Any] | None) -> Cost | None:
    """Return a cost from its part of a text."""
    if stored is None:
        return None
    cost = object.__new__(Cost)
    vars(cost).update(_WITHOUT_CHILDREN, **stored)
    return cost


def cost_fields(cost: Cost) -> dict[str, Any]:
    """Return a cost as a text holds it; work for children only where there was some."""
    return {name: value for name, value in vars(cost).items() if value or name not in _WITHOUT_CHILDREN}


@lru_cache(maxsize=4096)
def shared(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return one object for all equal values: a list holds a million summaries of alike fits."""
    return value
