"""Why a fit was not found: which components differ from the nearest stored fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gamwarm.display import NotebookTable, short, visible
from gamwarm.entries import EntryStore, StoredRecord
from gamwarm.errors import InvalidInput
from gamwarm.identity import Components, FitProblem, Label, component_labels
from gamwarm.interrupts import deliver
from gamwarm.records import BlockRecord
from gamwarm.store.lookup import Request, answer, exact_answer, start_from

__all__ = ["Difference", "Explanation", "Subject", "compare_records", "explain_request"]


class Difference(str):
    """One thing that differs between a fit and a stored one: a string with its kind.

    Attributes
    ----------
    what : str
        ``design``, ``offset``, ``penalty``, ``number of penalties``, ``null-space dims``, ``initial
        log lambdas``, ``block``, ``order of blocks``, ``option``, ``family kind``, ``family
        fingerprint`` or ``engine``.
    block : str or None
        Name of the block, if it belongs to one.
    name : str or None
        Name of the option.
    number : int or None
        Which penalty of the block, from 0.
    """

    __slots__ = ("block", "name", "number", "what")
    what: str
    block: str | None
    name: str | None
    number: int | None

    def __new__(
        cls, what: str, block: str | None = None, name: str | None = None, number: int | None = None, detail: str = ""
    ) -> Difference:
        text = what if name is None else f"{what} {name!r}"
        text = text if number is None else f"{text} {number}"
        text = text if block is None else f"{text} {block!r}" if what == "block" else f"block {block!r}: {text}"
        made = super().__new__(cls, f"{text} ({detail})" if detail else text)
        made.what, made.block, made.name, made.number = what, block, name, number
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return _difference, (str(self), self.what, self.block, self.name, self.number)


def _difference(text: str, what: str, block: str | None, name: str | None, number: int | None) -> Difference:
    made = str.__new__(Difference, text)
    made.what, made.block, made.name, made.number = what, block, name, number
    return made


@dataclass(frozen=True)
class Explanation(NotebookTable):
    """Whether a fit is in the file and, if not, what differs from the nearest one that is.

    Attributes
    ----------
    hit : bool
        The file holds this very fit.
    key : str or None
        Exact key; None for an unkeyable fit.
    nearest : str or None
        Entry id of the stored record that differs least (of a hit: the record itself).
    nearest_key : str or None
        Its exact key.
    differences : list of Difference
        Readable strings; each has ``what``, ``block``, ``name`` (of an option) and ``number`` (of a
        penalty).
    reason : str
    start : str
        On a miss with a parent in the file: what the fit would start from and, term by term, what
        matches and what does not (`StartReport.summary`).
    """

    hit: bool
    key: str | None = None
    nearest: str | None = None
    nearest_key: str | None = None
    differences: list[Difference] = field(default_factory=list)
    reason: str = ""
    start: str = ""

    def __repr__(self) -> str:
        head = "exact" if self.hit else "miss"
        return f"<Explanation: {visible(f'{head}, {self.reason}')}>"

    def _facts(self) -> list[tuple[str, str]]:
        stored = "" if self.nearest is None else f"{short(self.nearest)}, key {short(self.nearest_key)}"
        outcome = ("exact hit" if self.hit else "miss", self.reason)
        begun = [("" if i else "would start", line.strip()) for i, line in enumerate(self.start.splitlines())]
        return [outcome, ("this entry" if self.hit else "nearest entry", stored), *begun]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        return ("differs from the nearest entry in",), [(each,) for each in self.differences]

    def __str__(self) -> str:
        head = "exact" if self.hit else "miss"
        lines = [f"{head}: {self.reason}", *(f"  {d}" for d in self.differences), *self.start.splitlines()]
        return "\n".join(map(visible, lines))


@dataclass(frozen=True)
class Subject:
    """The fit that is to be explained, in plain values (it travels to rank 0)."""

    request: Request
    components: Components
    sizes: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, request: Request, problem: FitProblem) -> Subject:
        """Return the request of ``problem`` and the components for the comparison."""
        return cls(request, problem.components, {s.name: (s.n_rows, s.width) for s in problem.specs})


def explain_request(entries: EntryStore, fit: Subject, problem: FitProblem) -> Explanation:
    """Say whether the file holds a fit and, if not, what differs from the nearest that it holds and
    what it would start from.
    """
    request = fit.request
    found = answer(entries, request)
    if found.record is not None:
        return Explanation(True, request.key, found.record.entry_id, request.key, reason=found.reason)
    start = "" if found.artifact is None else start_from(problem, request.key, found).summary()
    reason = exact_answer(entries, request).reason
    looked, best, differences = 0, None, list[Difference]()
    mine = component_labels(fit.components, request.block_names)
    for key in entries.keys():  # noqa: SIM118 - not a mapping
        deliver()
        stored = entries.find_record(key, request.producer)
        if stored is None or key == request.key:
            continue
        looked += 1
        these = _differences(request.block_names, fit.sizes, mine, stored.record)
        if these is not None and (best is None or _rank(these, stored) < _rank(differences, best)):
            best, differences = stored, these
    if best is None:
        told = f"none of the {looked} stored fits has stored components" if looked else "no fit is stored"
        return Explanation(False, request.key, reason=f"{reason}; {told}", start=start)
    what = f"{len(differences)} difference{'' if len(differences) == 1 else 's'} from the nearest stored fit"
    return Explanation(
        False,
        request.key,
        best.entry_id,
        best.record.key,
        differences,
        f"{reason}; {what} {best.entry_id[:12]}",
        start,
    )


def _rank(differences: list[Difference], stored: StoredRecord) -> tuple[int, int, str]:
    """Fewest differences, then newest."""
    return len(differences), -(stored.record.created or 0), stored.entry_id


def compare_records(one: BlockRecord, other: BlockRecord) -> list[Difference] | None:
    """Return what differs between the fits of two records, in the order of the exact key.

    None if one of them does not tell what its fit was made of (records that were put by hand). In a
    detail, "here" is ``one``.
    """
    if one.components is None:
        return None
    names = tuple(one.block_names)
    try:
        mine = component_labels(one.components, names)
    except InvalidInput:
        return None
    sizes = {name: (one.n_rows, width) for name, width in zip(names, one.block_dims, strict=True)}
    return _differences(names, sizes, mine, other)


def _differences(
    names: Sequence[str], sizes: Mapping[str, tuple[int, int]], mine: Mapping[Label, int], record: BlockRecord
) -> list[Difference] | None:
    """Return what differs, in the order of the exact key; None if the record does not tell."""
    if record.components is None:
        return None
    try:
        theirs = component_labels(record.components, record.block_names)
    except InvalidInput:
        return None
    other_names = tuple(record.block_names)
    common = [name for name in names if name in other_names]
    found = _of(mine, theirs, None, lambda label: label.what != "option")
    for name in names:
        if name not in common:
            found.append(Difference("block", name, detail="not in the stored fit"))
            continue
        found += _block_differences(mine, theirs, name, _sizes(sizes[name], record, name))
    found += [Difference("block", name, detail="in the stored fit only") for name in other_names if name not in common]
    if common != [name for name in other_names if name in common]:
        found.append(Difference("order of blocks"))
    return found + _of(mine, theirs, None, lambda label: label.what == "option")


def _sizes(here: tuple[int, int], record: BlockRecord, name: str) -> str:
    there = (record.n_rows, record.block_dims[list(record.block_names).index(name)])
    return "" if here == there else f"{here[0]} x {here[1]} here, {there[0]} x {there[1]} there"


def _block_differences(
    mine: Mapping[Label, int], theirs: Mapping[Label, int], name: str, sizes: str
) -> list[Difference]:
    found = []
    counts = [sum(x.block == name and x.what == "penalty" for x in side) for side in (mine, theirs)]
    for difference in _of(mine, theirs, name, lambda _: True):
        is_design = difference.what == "design" and sizes
        found.append(Difference("design", name, detail=sizes) if is_design else difference)
    if counts[0] != counts[1]:
        detail = f"{counts[0]} here, {counts[1]} there"
        found.append(Difference("number of penalties", name, detail=detail))
    return found


def _of(
    mine: Mapping[Label, int], theirs: Mapping[Label, int], block: str | None, pick: Callable[[Label], bool]
) -> list[Difference]:
    """Return the labels of a block (None: the fit itself) on both sides that differ."""
    return [
        Difference(label.what, label.block, label.name, label.number)
        for label, digest in mine.items()
        if label.block == block and pick(label) and theirs.get(label, digest) != digest
    ]
