"""Which artifacts a look-up tries as parents, in which order: tables of candidates, and the rule.

A look-up reads a few tables, however many artifacts there are: `stored_index.StoredIndex` has those
of a file, an `Index` is the same in memory. Both follow from the artifacts (`Place`) and say
nothing that these do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from gamwarm.encoding import Encoded, EntrySummary, is_descriptor_key, is_entry_id, is_time

__all__ = [
    "CANDIDATE_BYTES",
    "MODEL_BYTES",
    "RECENT_BYTES",
    "RECENT_ROWS",
    "RELATED_ROWS",
    "TABLE_ROWS",
    "BothIndexes",
    "Candidate",
    "CandidateSource",
    "Index",
    "Model",
    "Place",
    "Wanted",
    "candidates",
    "with_model",
    "with_row",
]

TABLE_ROWS: Final = 8
"""Artifacts in a stored table. If all are damaged, a look-up reads every artifact of the key."""
RELATED_ROWS: Final = 32
"""Models in a stored list of related ones; the newest stay."""
RECENT_ROWS: Final = 32
RECENT_BYTES: Final = 176


class Candidate(NamedTuple):
    """A row of a table. The larger one is the better parent: usable, most rows, newest."""

    usable: bool
    n_rows: int
    created: int
    entry_id: str
    key: str

    @property
    def path(self) -> str:
        """Where it lies in its section."""
        return f"{self.key}/{self.entry_id}"

    def text(self) -> str:
        """Return the row as stored: texts sort as candidates do."""
        return f"{self.usable:d} {self.n_rows:019d} {self.created:019d} {self.entry_id} {self.key}"

    @classmethod
    def parse(cls, text: str) -> Candidate | None:
        """Return the row of a text; None if it is none."""
        usable, n_rows, created, entry_id, key = _parts(text, 5)
        if usable not in ("0", "1") or not (_is_count(n_rows) and _is_count(created) and is_time(int(created))):
            return None
        if not (is_entry_id(entry_id) and is_descriptor_key(key)):
            return None
        return cls(usable == "1", int(n_rows), int(created), entry_id, key)


class Model(NamedTuple):
    """A row of a list of related models: a structural key, else the strict one."""

    created: int
    is_structural: bool
    key: str

    def text(self) -> str:
        """Return the row as stored."""
        return f"{self.created:019d} {self.is_structural:d} {self.key}"

    @classmethod
    def parse(cls, text: str) -> Model | None:
        """Return the row of a text; None if it is none."""
        created, is_structural, key = _parts(text, 3)
        if is_structural not in ("0", "1") or not (_is_count(created) and is_descriptor_key(key)):
            return None
        return cls(int(created), is_structural == "1", key)


CANDIDATE_BYTES: Final = len(Candidate(True, 0, 0, "0" * 32, "0" * 64).text())
MODEL_BYTES: Final = len(Model(0, True, "0" * 64).text())


def _parts(text: str, count: int) -> list[str]:
    parts = text.split(" ")
    return parts if len(parts) == count else [""] * count


def _is_count(text: str) -> bool:
    return len(text) == 19 and text.isascii() and text.isdigit() and int(text) < 2**63


class Wanted(NamedTuple):
    """What a look-up wants a parent for.

    Attributes
    ----------
    strict_key : str
    structural_key : str or None
    width : int, optional
        Total reduced width; None: any is as good.
    related : dict
        Names of the lists of models that have a term in common with the fit (`relation_keys`), with
        the outer coordinates of that term. Empty: no model of other terms is wanted.
    """

    strict_key: str
    structural_key: str | None
    width: int | None = None
    related: Mapping[str, int] = MappingProxyType({})


class CandidateSource(Protocol):
    """Where candidates are from; every list has the best first."""

    def strict(self, key: str) -> list[Candidate]:
        """Return those of a strict key."""

    def widths(self, key: str) -> Iterable[int]:
        """Return the total reduced widths that artifacts of a structural key have."""

    def structural(self, key: str, width: int) -> list[Candidate]:
        """Return those of a structural key and reduced width."""

    def related(self, name: str) -> list[Model]:
        """Return the models of a list."""


def candidates(source: CandidateSource, wanted: Wanted) -> Iterator[Candidate]:
    """Yield artifacts in the order in which a fit should try them as its parent.

    Of its own strict key; of its structural key, the nearest reduced width first; of models of the
    same family with other terms, the most outer coordinates in common first. Among equals as
    `Candidate` compares.
    """
    yield from source.strict(wanted.strict_key)
    if wanted.structural_key is not None:
        yield from _by_width(source, wanted.structural_key, wanted.width)
    own = {wanted.strict_key, wanted.structural_key}
    common: dict[tuple[bool, str], int] = {}
    for name, coordinates in wanted.related.items():
        for model in source.related(name):
            if model.key not in own:
                place = model.is_structural, model.key
                common[place] = common.get(place, 0) + coordinates
    for count in sorted(set(common.values()), reverse=True):
        best: list[Candidate] = []
        for (is_structural, key), coordinates in common.items():
            if coordinates == count:
                best += _by_width(source, key, None) if is_structural else source.strict(key)
        yield from sorted(best, reverse=True)


def _by_width(source: CandidateSource, key: str, width: int | None) -> Iterator[Candidate]:
    gaps: dict[int, list[int]] = {}
    for each in source.widths(key):
        gaps.setdefault(0 if width is None else abs(each - width), []).append(each)
    for _, alike in sorted(gaps.items()):
        yield from sorted((row for each in alike for row in source.structural(key, each)), reverse=True)


class Place(NamedTuple):
    """What the index says of one artifact."""

    row: Candidate
    structural_key: str | None
    width: int
    model: Model
    related: tuple[str, ...]
    fit_key: str | None

    @classmethod
    def of(cls, entry: Encoded, said: EntrySummary | None = None) -> Place:
        """``said``: its summary, where it is known."""
        said = said or entry.summary()
        usable = said.converged and said.objective is not None
        row = Candidate(usable, said.n_rows, said.created, said.entry_id, entry.key)
        structural = said.structural_key
        model = Model(said.created, structural is not None, structural or entry.key)
        return cls(row, structural, said.reduced_width, model, entry.relations(), said.fit_key)


def with_row(rows: list[Candidate], row: Candidate, most: int | None = TABLE_ROWS) -> list[Candidate]:
    """Return a table with a row, in the place of one of the same entry."""
    return sorted([row, *(each for each in rows if each.entry_id != row.entry_id)], reverse=True)[:most]


def with_model(models: list[Model], model: Model) -> list[Model]:
    """Return a list of models, newest first, with one more; one already there keeps its time."""
    if any(known[1:] == model[1:] and known.created <= model.created for known in models):
        return models
    others = [known for known in models if known[1:] != model[1:]]
    return sorted([model, *others], reverse=True)[:RELATED_ROWS]


class Index:
    """The index in memory: of waiting entries, of one moment of the file, or rebuilt.

    Parameters
    ----------
    most : int, optional
        Rows of a table; None: all.
    """

    def __init__(self, most: int | None = TABLE_ROWS) -> None:
        self._most = most
        self.tables: dict[str, list[Candidate]] = {}
        """By strict key."""
        self.by_width: dict[str, dict[int, list[Candidate]]] = {}
        """By structural key."""
        self.models: dict[str, list[Model]] = {}
        """By relation."""

    def add(self, entry: Encoded, said: EntrySummary | None = None) -> Place:
        """Add an artifact; return what the index says of it. ``said``: its summary, if known."""
        place = Place.of(entry, said)
        row = place.row
        self.tables[row.key] = with_row(self.tables.get(row.key, []), row, self._most)
        if place.structural_key is not None:
            tables = self.by_width.setdefault(place.structural_key, {})
            tables[place.width] = with_row(tables.get(place.width, []), row, self._most)
        for name in place.related:
            self.models[name] = with_model(self.models.get(name, []), place.model)
        return place

    def strict(self, key: str) -> list[Candidate]:
        """See `CandidateSource`."""
        return self.tables.get(key, [])

    def widths(self, key: str) -> Iterable[int]:
        """See `CandidateSource`."""
        return self.by_width.get(key, {})

    def structural(self, key: str, width: int) -> list[Candidate]:
        """See `CandidateSource`."""
        return self.by_width.get(key, {}).get(width, [])

    def related(self, name: str) -> list[Model]:
        """See `CandidateSource`."""
        return self.models.get(name, [])


class BothIndexes:
    """Two sources as one."""

    def __init__(self, one: CandidateSource, other: CandidateSource) -> None:
        self._both = (one, other)

    def strict(self, key: str) -> list[Candidate]:
        """See `CandidateSource`."""
        return sorted({row for each in self._both for row in each.strict(key)}, reverse=True)

    def widths(self, key: str) -> Iterable[int]:
        """See `CandidateSource`."""
        return {width for each in self._both for width in each.widths(key)}

    def structural(self, key: str, width: int) -> list[Candidate]:
        """See `CandidateSource`."""
        return sorted({row for each in self._both for row in each.structural(key, width)}, reverse=True)

    def related(self, name: str) -> list[Model]:
        """See `CandidateSource`."""
        return sorted({model for each in self._both for model in each.related(name)}, reverse=True)
