"""What starts have saved: one fit compared with its parent, and totals over the file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from gamwarm.entries import EntrySummary
from gamwarm.records import Cost, StartSource
from gamwarm.transfer import StartReport

__all__ = ["Saving", "Savings", "Session", "SourceSavings", "add_up", "saving_of"]

log = logging.getLogger("gamwarm")
T = TypeVar("T", "Saving", Cost)
_NAMES_AND_NUMBERS = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\w.+-]*")


@dataclass(frozen=True)
class Saving:
    """What a start saved, by estimate: the baseline's cost less the fit's own; may be negative.

    Attributes
    ----------
    evaluations, outer_iterations, inner_iterations, hessian_formations : int
        Work that the baseline did only for later fits (`Cost.for_children`) does not count.
    seconds : float
        The baseline's are scaled by the rows, where it had more of them than the fit, and by the
        formations that count.
    """

    evaluations: int = 0
    outer_iterations: int = 0
    inner_iterations: int = 0
    hessian_formations: int = 0
    seconds: float = 0.0

    def __add__(self, other: Saving) -> Saving:
        return _sum(self, other)

    def __str__(self) -> str:
        return (
            f"{_many(self.evaluations, 'evaluation')}, {_many(self.hessian_formations, 'Hessian formation')}, "
            f"{self.seconds:.3g} s"
        )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if abs(count) == 1 else 's'}"


def difference(baseline: Cost, baseline_rows: int, own: Cost, rows: int) -> Saving:
    """Return what ``own`` saved against ``baseline``; only seconds if one counts no work."""
    share = rows / baseline_rows if 0 < rows < baseline_rows else 1.0
    formations = baseline.hessian_formations - baseline.for_children
    if baseline.for_children:
        share *= formations / baseline.hessian_formations
    seconds = baseline.seconds * share - own.seconds
    if not (_counts(baseline) and _counts(own)):
        return Saving(seconds=seconds)
    return Saving(
        baseline.evaluations - own.evaluations,
        baseline.outer_iterations - own.outer_iterations,
        baseline.inner_iterations - own.inner_iterations,
        formations - (own.hessian_formations - own.for_children),
        seconds,
    )


def _counts(cost: Cost) -> bool:
    """Whether the engine counted anything: the store alone knows seconds only."""
    return any(count for name, count in vars(cost).items() if name != "seconds")


def spent(checkpoint: Cost) -> Saving:
    """Return what going on from a checkpoint saves: what had been spent before it."""
    formations = checkpoint.hessian_formations - checkpoint.for_children
    share = formations / checkpoint.hessian_formations if checkpoint.for_children else 1.0
    return Saving(
        checkpoint.evaluations,
        checkpoint.outer_iterations,
        checkpoint.inner_iterations,
        formations,
        checkpoint.seconds * share,
    )


def saving_of(start: StartReport | None, own: Cost | None, rows: int) -> Saving | None:
    """Return what a fit's start saved against its parent; None if one tells no cost."""
    if start is None or start.source == StartSource.COLD or start.entry_cost is None or own is None:
        return None
    if start.is_checkpoint:
        return spent(start.entry_cost)
    return difference(start.entry_cost, start.entry_rows, own, rows)


@dataclass(frozen=True)
class SourceSavings:
    """The fits that began in one way.

    Attributes
    ----------
    fits : int
    refused : int
        Of these, fits whose engine said that it did not use the start (its guard threw it out,
        say).
    cost : Cost
        What they took together, where their cost is known.
    estimated : int
        Fits whose own cost and that of the entry they started from are known.
    saved : Saving
        Sum over these, against the entry they started from.
    estimated_cold : int
        Fits for which the file also holds a cold fit of the same key, or of the same terms.
    saved_cold : Saving
        Sum over these, against that cold fit.
    """

    fits: int = 0
    refused: int = 0
    cost: Cost = field(default_factory=Cost)
    estimated: int = 0
    saved: Saving = field(default_factory=Saving)
    estimated_cold: int = 0
    saved_cold: Saving = field(default_factory=Saving)


@dataclass(frozen=True)
class Savings:
    """What starts have saved, added up over a file. Estimates: the fits were not also run cold.

    Attributes
    ----------
    by_source : mapping of {"exact", "transfer", "cold"} to SourceSavings
        Converged fits in the file, each once. A fit resumed from its checkpoint is "exact".
    session : SourceSavings
        Exact hits of this store object (on all its ranks) that came out as stored: they write
        nothing, so the file does not count them.
    unfinished : int
        Fits of which the file holds a checkpoint and no answer. Not counted above.
    without_lineage : int
        Kept fits that do not say how they began (records put by hand).
    damaged : int
        Entries that cannot be read, and are not counted.
    refused : int
        Converged results that this store object was given and that a gate refused, as record or as
        artifact: no later fit finds them.
    reason : str
        Why nothing was read; else empty.
    """

    by_source: Mapping[str, SourceSavings] = field(default_factory=dict)
    session: SourceSavings = field(default_factory=SourceSavings)
    unfinished: int = 0
    without_lineage: int = 0
    damaged: int = 0
    refused: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        every = {str(source): self.by_source.get(source, SourceSavings()) for source in StartSource}
        object.__setattr__(self, "by_source", MappingProxyType(every))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple((vars(self) | {"by_source": dict(self.by_source)}).values())

    @property
    def total(self) -> Saving:
        """Estimated savings of the file's fits and this session's hits, against parents."""
        parts = [*self.by_source.values(), self.session]
        return sum((part.saved for part in parts), Saving())

    def __str__(self) -> str:
        if self.reason:
            return f"savings: {self.reason}"
        lines = [f"saved, by estimate: {self.total}"]
        for name, part in [*self.by_source.items(), ("exact hits of this session", self.session)]:
            if part.fits:
                lines.append(f"  {name}: {_line(part)}")
        left = (("unfinished", self.unfinished), ("without lineage", self.without_lineage), ("damaged", self.damaged))
        lines += [f"  {what}: {count}, not counted" for what, count in left if count]
        if self.refused:
            lines.append(f"  not stored in this session: {_many(self.refused, 'converged fit')}; the log says why")
        return "\n".join(lines)


def _line(part: SourceSavings) -> str:
    text = f"{_many(part.fits, 'fit')}, {_many(part.cost.hessian_formations, 'Hessian formation')}, "
    text += f"{part.cost.seconds:.3g} s"
    if part.refused:
        text += f"; {_many(part.refused, 'start')} not used"
    if part.estimated:
        text += f"; saved {part.saved} against the fit each started from ({part.estimated} known)"
    if part.estimated_cold:
        text += f"; {part.saved_cold} against a cold fit ({part.estimated_cold} known)"
    return text


def _one_more(
    part: SourceSavings, cost: Cost | None, *, refused: bool, saved: Saving | None, saved_cold: Saving | None = None
) -> SourceSavings:
    return SourceSavings(
        fits=part.fits + 1,
        refused=part.refused + refused,
        cost=part.cost if cost is None else _sum(part.cost, cost),
        estimated=part.estimated + (saved is not None),
        saved=part.saved if saved is None else part.saved + saved,
        estimated_cold=part.estimated_cold + (saved_cold is not None),
        saved_cold=part.saved_cold if saved_cold is None else part.saved_cold + saved_cold,
    )


def _sum(a: T, b: T) -> T:
    return type(a)(**{name: value + getattr(b, name) for name, value in vars(a).items()})


class Session:
    """What one store object has seen: repeated exact hits, refused answers, and warnings given.

    Attributes
    ----------
    refused : int
        Converged results of which a gate refused the record or the artifact.
    """

    def __init__(self) -> None:
        self._so_far = SourceSavings()
        self.refused = 0
        self._said: set[str] = set()

    def refuse(self, where: str, what: str, reason: str) -> None:
        """Count an answer that a gate refused; warn once a reason, whatever names are in it."""
        self.refused += 1
        self.say_once(
            _NAMES_AND_NUMBERS.sub("", reason), f"{where}: the {what} of a converged fit is not stored: {reason}"
        )

    def say_once(self, kind: str, message: str) -> None:
        """Warn the first time that a kind of message is met; log it at debug later."""
        first = kind not in self._said
        self._said.add(kind)
        more = " (the next of this kind are logged at level debug)" if first else ""
        log.log(logging.WARNING if first else logging.DEBUG, "%s%s", message, more)

    def count(self, cost: Cost | None, saved: Saving | None) -> None:
        """Count one."""
        self._so_far = _one_more(self._so_far, cost, refused=False, saved=saved)

    def so_far(self) -> SourceSavings:
        """Return the sum."""
        return self._so_far


@dataclass(frozen=True)
class _CostRow:
    """Cost and rows of a fit that others are measured against."""

    cost: Cost
    rows: int
    is_checkpoint: bool = False


class _Baselines:
    """What fits may be measured against, by entry, by key and by family of fits."""

    def __init__(self, lines: Iterable[EntrySummary]) -> None:
        self._by_entry: dict[str, _CostRow] = {}
        self._family_of: dict[str, str] = {}
        self._cold_of_key: dict[str, list[_CostRow]] = {}
        self._cold_of_family: dict[str, list[_CostRow]] = {}
        cold: list[tuple[str, _CostRow]] = []
        for line in lines:
            family = (line.structural_key or line.key) if line.kind == "artifact" else None
            if line.fit_key is not None and family is not None:
                self._family_of[line.fit_key] = family
            if line.cost is None:
                continue
            told = _CostRow(line.cost, line.n_rows, line.kind == "checkpoint")
            self._by_entry[line.entry_id] = told
            is_cold = line.lineage is not None and line.lineage.source == StartSource.COLD
            if is_cold and not told.is_checkpoint and line.fit_key is not None:
                cold.append((line.fit_key, told))
        for key, told in cold:
            self._cold_of_key.setdefault(key, []).append(told)
            family = self._family_of.get(key)
            if family is not None:
                self._cold_of_family.setdefault(family, []).append(told)

    def against_entry(self, line: EntrySummary) -> Saving | None:
        """Return the saving against the entry that the fit started from."""
        if line.cost is None or line.lineage is None or line.lineage.entry is None:
            return None
        told = self._by_entry.get(line.lineage.entry)
        if told is None:
            return None
        return spent(told.cost) if told.is_checkpoint else difference(told.cost, told.rows, line.cost, line.n_rows)

    def against_cold(self, line: EntrySummary) -> Saving | None:
        """Return the saving against this key's cold fit, else these terms' nearest in rows."""
        if line.cost is None or line.fit_key is None:
            return None
        known = self._cold_of_key.get(line.fit_key)
        if known is None:
            known = self._cold_of_family.get(self._family_of.get(line.fit_key, ""), [])
        if not known:
            return None
        # Of several equally near the cheapest: an estimate should not flatter.
        told = min(known, key=lambda t: (abs(t.rows - line.n_rows), t.cost.hessian_formations, t.cost.evaluations))
        return difference(told.cost, told.rows, line.cost, line.n_rows)


def add_up(ledger: Iterable[EntrySummary | None], session: SourceSavings, refused: int = 0) -> Savings:
    """Add up the costs in a file.

    A converged fit is stored twice, as record and as artifact: entries of one key, build, lineage
    and cost are one fit.
    """
    lines: list[EntrySummary] = []
    damaged = 0
    for each in ledger:
        if each is None:
            damaged += 1
        else:
            lines.append(each)
    baselines = _Baselines(lines)
    by_source = {str(source): SourceSavings() for source in StartSource}
    without_lineage = 0
    finished: set[str] = set()
    for line in _fits_once(lines):
        if line.fit_key is not None:
            finished.add(line.fit_key)
        if line.lineage is None:
            without_lineage += 1
            continue
        source = StartSource(line.lineage.source)
        warm = source != StartSource.COLD
        by_source[source] = _one_more(
            by_source[source],
            line.cost,
            refused=line.lineage.consumed is False,
            saved=baselines.against_entry(line) if warm else None,
            saved_cold=baselines.against_cold(line) if warm else None,
        )
    unfinished = {line.fit_key for line in lines if line.kind == "checkpoint"} - finished
    return Savings(by_source, session, len(unfinished), without_lineage, damaged, refused)


def _fits_once(lines: Iterable[EntrySummary]) -> Iterator[EntrySummary]:
    """Yield one line per converged fit; records come before artifacts."""
    seen: set[object] = set()
    for line in lines:
        if line.kind == "checkpoint":
            continue
        start = line.lineage and (line.lineage.source, line.lineage.entry, line.lineage.consumed)
        this = (line.fit_key or line.entry_id, line.producer, start, line.cost)
        if this not in seen:
            seen.add(this)
            yield line
