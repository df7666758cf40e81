"""What starts have saved: the only arithmetic of it, for every display."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gamwarm.display import NotebookTable, counted
from gamwarm.entries import EntrySummary
from gamwarm.records import Cost, StartSource, cold_run_of
from gamwarm.transfer import StartReport

__all__ = [
    "Basis",
    "ComparedFit",
    "Saving",
    "Savings",
    "Session",
    "SourceSavings",
    "add_up",
    "compare_costs",
    "saving_of",
    "total_of",
]

log = logging.getLogger("gamwarm")
_NAMES_AND_NUMBERS = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\w.+-]*")
LEAST_SECONDS: Final = 1e-3
"""A fit that took less says nothing about the time of a formation."""


@dataclass(frozen=True)
class Saving:
    """What a start saved: the cost of a cold fit less the fit's own; may be negative.

    Attributes
    ----------
    evaluations, outer_iterations, inner_iterations, hessian_formations : int
    seconds : float
    """

    evaluations: int = 0
    outer_iterations: int = 0
    inner_iterations: int = 0
    hessian_formations: int = 0
    seconds: float = 0.0

    def __add__(self, other: Saving) -> Saving:
        return Saving(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def __str__(self) -> str:
        formations = [counted(self.hessian_formations, "Hessian formation")] if self.hessian_formations else []
        return ", ".join([counted(self.evaluations, "evaluation"), *formations, f"{self.seconds:.3g} s"])


class Basis(StrEnum):
    """What a fit is compared with, the best first."""

    AUDIT = "its own cold run"
    SAME_FIT = "a cold run of the same fit"
    SAME_MODEL = "the nearest cold fit of the same model"
    PARENT = "the fit it started from"
    CHECKPOINT = "its own checkpoint"

    @property
    def is_measured(self) -> bool:
        """Whether the same fit was also run cold."""
        return self in (Basis.AUDIT, Basis.SAME_FIT)


@dataclass(frozen=True)
class ComparedFit:
    """One converged fit of a file, and what it would have taken cold.

    Attributes
    ----------
    summary : EntrySummary
        Of its record, else of its artifact.
    own : Cost or None
        What it took, without the work for later fits.
    cold : Cost or None
        What it would have taken cold; of a fit that continued from a checkpoint, what both took.
    basis : Basis or None
        Where ``cold`` comes from; None for cold fits, and where nothing is known.
    """

    summary: EntrySummary
    own: Cost | None
    cold: Cost | None = None
    basis: Basis | None = None

    @property
    def saved(self) -> Saving | None:
        """The difference; None if it is unknown."""
        return None if self.own is None or self.cold is None else _less(self.cold, self.own)

    @property
    def times(self) -> float | None:
        """How many times the work a cold fit takes (seconds where work is not counted)."""
        if self.own is None or self.cold is None:
            return None
        cold, own = ((_work(cost) or cost.seconds) for cost in (self.cold, self.own))
        return cold / own if own else None


def _less(cold: Cost, own: Cost) -> Saving:
    """Return the difference; only seconds if one counts no work."""
    if not (cold.counts_work and own.counts_work):
        return Saving(seconds=cold.seconds - own.seconds)
    return _difference(cold, own)


def _work(cost: Cost) -> int:
    return cost.hessian_formations or cost.evaluations


def _seconds_of_work(cost: Cost) -> float | None:
    """Return the seconds per Hessian formation (or evaluation); None if the fit cannot tell."""
    return cost.seconds / _work(cost) if _work(cost) and cost.seconds >= LEAST_SECONDS else None


def _scaled(baseline: Cost, baseline_rows: int, rows: int, rate: float | None, rate_rows: int) -> Cost:
    """Return what a cold fit of ``rows`` rows takes by the example of ``baseline``.

    Its seconds are scaled by the rows, where it had more. They may include what only the first fit
    of a process takes (imports, caches, compilation): if other fits took less per formation
    (``rate``), their seconds count.
    """

    def share(of: int) -> float:
        return rows / of if 0 < rows < of else 1.0

    own = baseline.own
    seconds = own.seconds * share(baseline_rows)
    if rate is not None and _work(own):
        seconds = min(seconds, _work(own) * rate * share(rate_rows))
    return replace(own, seconds=seconds)


def saving_of(start: StartReport | None, cost: Cost | None, rows: int) -> Saving | None:
    """Return what a fit's start saved against its parent; None if one tells no cost."""
    if start is None or start.source == StartSource.COLD or start.entry_cost is None or cost is None:
        return None
    own = cost.own
    if start.is_checkpoint:
        return _less(start.entry_cost.own + own, own)
    rate = _seconds_of_work(own) if start.source == StartSource.TRANSFER else None
    return _less(_scaled(start.entry_cost, start.entry_rows, rows, rate, rows), own)


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
    compared : int
        Of these, fits for which the file tells what a cold fit takes.
    measured : int
        Of those, fits that were also run cold.
    own, cold : Cost
        Sums over the compared fits: what they took, and what they would have taken cold.
    """

    fits: int = 0
    refused: int = 0
    cost: Cost = field(default_factory=Cost)
    compared: int = 0
    measured: int = 0
    own: Cost = field(default_factory=Cost)
    cold: Cost = field(default_factory=Cost)

    @property
    def saved(self) -> Saving:
        """The difference."""
        return _difference(self.cold, self.own)

    def __add__(self, other: SourceSavings) -> SourceSavings:
        return SourceSavings(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def _difference(cold: Cost, own: Cost) -> Saving:
    return Saving(*(getattr(cold, name) - getattr(own, name) for name in vars(Saving())))


@dataclass(frozen=True)
class Savings(NotebookTable):
    """What starts have saved, added up over a file.

    A fit is compared with the best that the file knows (`Basis`): its own cold run, else the
    nearest cold fit of the same model. So no fit is said to have saved more than a cold fit of
    this file took. Seconds that only the first fit of a process takes and work for later fits are
    left out.

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
    def all(self) -> SourceSavings:
        """The sum over all sources and this session."""
        return sum(self.by_source.values(), self.session)

    @property
    def total(self) -> Saving:
        """Savings of the file's fits and this session's exact hits."""
        return self.all.saved

    @property
    def basis(self) -> str:
        """Whether the total was "measured", "in part measured" or "estimated"; empty: unknown."""
        every = self.all
        if not every.compared:
            return ""
        return "measured" if every.measured == every.compared else "in part measured" if every.measured else "estimated"

    def __repr__(self) -> str:
        return f"<Savings: {self.reason or self._total}>"

    @property
    def _total(self) -> str:
        return f"{self.total} ({self.basis})" if self.basis else "nothing that the file tells"

    @property
    def _parts(self) -> list[tuple[str, SourceSavings]]:
        every = [*self.by_source.items(), ("exact hits of this session", self.session)]
        return [(name, part) for name, part in every if part.fits]

    @property
    def _left_out(self) -> list[tuple[str, int]]:
        counts = (("unfinished", self.unfinished), ("without lineage", self.without_lineage), ("damaged", self.damaged))
        return [(what, count) for what, count in counts if count]

    def _facts(self) -> list[tuple[str, str]]:
        refused = f"{counted(self.refused, 'converged fit')} of this session; the log says why" if self.refused else ""
        saved = ("saved", "" if self.reason else self._total)
        left = [(what, f"{count}, not counted") for what, count in self._left_out]
        return [("nothing read", self.reason), saved, *left, ("not stored", refused)]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (name, str(part.fits), str(part.cost), str(part.saved) if part.compared else "unknown")
            for name, part in self._parts
        ]
        return ("start", "fits", "took", "saved"), rows

    def __str__(self) -> str:
        if self.reason:
            return f"savings: {self.reason}"
        lines = [f"saved: {self._total}", *(f"  {name}: {_line(part)}" for name, part in self._parts)]
        lines += [f"  {what}: {count}, not counted" for what, count in self._left_out]
        if self.refused:
            lines.append(f"  not stored in this session: {counted(self.refused, 'converged fit')}; the log says why")
        return "\n".join(lines)


def _line(part: SourceSavings) -> str:
    text = f"{counted(part.fits, 'fit')}, {part.cost}"
    if part.refused:
        text += f"; {counted(part.refused, 'start')} not used"
    if part.compared:
        known = "" if part.compared == part.fits else f" ({part.compared} known)"
        text += f"; saved {part.saved}{known}"
    return text


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
        """Count one exact hit."""
        one = SourceSavings(fits=1, cost=cost or Cost())
        if cost is not None and saved is not None:
            own = cost.own if cost.counts_work else Cost(seconds=cost.seconds)
            cold = Cost(*(getattr(own, name) + getattr(saved, name) for name in vars(saved)))
            one = replace(one, compared=1, own=own, cold=cold)
        self._so_far += one

    def so_far(self) -> SourceSavings:
        """Return the sum."""
        return self._so_far


@dataclass(frozen=True)
class _CostRow:
    """Cost and rows of a fit that others are measured against."""

    cost: Cost
    rows: int
    is_checkpoint: bool

    @property
    def work(self) -> tuple[int, int]:
        own = self.cost.own
        return own.hessian_formations, own.evaluations


class _FitsOfModel:
    """The cold fits of one model (or of one key), and how long its fits take per formation."""

    def __init__(self) -> None:
        self.cold: dict[int, _CostRow] = {}
        self._rows_of_cold: list[int] = []
        self._rates: list[tuple[float, int]] = []

    def add(self, told: _CostRow, source: StartSource) -> None:
        if source == StartSource.COLD:
            known = self.cold.get(told.rows)
            if known is None or told.work < known.work:
                self.cold[told.rows] = told
        rate = _seconds_of_work(told.cost.own)
        if source != StartSource.EXACT and rate is not None:
            self._rates.append((rate, told.rows))

    def close(self) -> None:
        """Sort, once all are added."""
        self._rows_of_cold = sorted(self.cold)
        self._rates.sort()

    def nearest_cold(self, rows: int) -> _CostRow | None:
        """Return the nearest in rows; of equally near ones the cheapest: estimates are modest."""
        at = bisect_left(self._rows_of_cold, rows)
        found = [self.cold[each] for each in self._rows_of_cold[max(at - 1, 0) : at + 1]]
        return min(found, key=lambda told: (abs(told.rows - rows), told.work), default=None)

    def rate_besides(self, told: _CostRow) -> tuple[float | None, int]:
        """Return the median of the other fits' seconds per formation, and that fit's rows."""
        rate = _seconds_of_work(told.cost.own)
        at = len(self._rates) if rate is None else bisect_left(self._rates, (rate, told.rows))
        skip = at < len(self._rates) and self._rates[at] == (rate, told.rows)
        count = len(self._rates) - skip
        if not count:
            return None, 0
        middle = (count - 1) // 2
        return self._rates[middle + (skip and middle >= at)]


class _Baselines:
    """What fits may be measured against, by entry, by key and by model."""

    def __init__(self, lines: Iterable[EntrySummary], fits: Iterable[EntrySummary]) -> None:
        self._by_entry: dict[str, _CostRow] = {}
        self._model_of: dict[str, str] = {}
        self._of_key: dict[str, _FitsOfModel] = {}
        self._of_model: dict[str, _FitsOfModel] = {}
        for line in lines:
            if line.kind == "artifact" and line.fit_key is not None:
                self._model_of[line.fit_key] = line.structural_key or line.key
            if line.cost is not None:
                self._by_entry[line.entry_id] = _CostRow(line.cost, line.n_rows, line.kind == "checkpoint")
        for line in fits:
            if line.cost is None or line.source is None or line.fit_key is None:
                continue
            told = _CostRow(line.cost, line.n_rows, False)
            self._of_key.setdefault(line.fit_key, _FitsOfModel()).add(told, line.source)
            self._of_model.setdefault(self._model(line.fit_key), _FitsOfModel()).add(told, line.source)
        for each in [*self._of_key.values(), *self._of_model.values()]:
            each.close()

    def _model(self, key: str) -> str:
        return self._model_of.get(key, key)

    def compare(self, line: EntrySummary) -> ComparedFit:
        """Return what is known of a fit's cost without its start."""
        own = None if line.cost is None else line.cost.own
        if own is None or line.lineage is None or line.source == StartSource.COLD:
            return ComparedFit(line, own)
        found = self._cold_cost(line, own)
        if found is None:
            return ComparedFit(line, own)
        cold, basis = found
        if not (cold.counts_work and own.counts_work):
            own, cold = Cost(seconds=own.seconds), Cost(seconds=cold.seconds)
        return ComparedFit(line, own, cold, basis)

    def _cold_cost(self, line: EntrySummary, own: Cost) -> tuple[Cost, Basis] | None:
        assert line.lineage is not None
        parent = None if line.lineage.entry is None else self._by_entry.get(line.lineage.entry)
        if parent is not None and parent.is_checkpoint:
            return parent.cost.own + own, Basis.CHECKPOINT
        audit = cold_run_of(line.attributes)
        if audit is not None:
            return audit, Basis.AUDIT
        nothing = _FitsOfModel()
        key = line.fit_key or ""
        model = self._of_model.get(self._model(key), nothing)
        of_key = self._of_key.get(key, nothing).nearest_cold(line.n_rows)
        for told, basis in (
            (of_key, Basis.SAME_FIT),
            (model.nearest_cold(line.n_rows), Basis.SAME_MODEL),
            (parent, Basis.PARENT),
        ):
            if told is not None:
                return _scaled(told.cost, told.rows, line.n_rows, *model.rate_besides(told)), basis
        return None


def compare_costs(lines: Sequence[EntrySummary]) -> list[ComparedFit]:
    """Return the converged fits of a file, each once, with what they would have taken cold.

    A fit is stored twice, as record and as artifact: entries of one key, build, lineage and cost
    are one fit.
    """
    fits = list(_fits_once(lines))
    baselines = _Baselines(lines, fits)
    return [baselines.compare(line) for line in fits]


def add_up(ledger: Iterable[EntrySummary | None], session: SourceSavings | None = None, refused: int = 0) -> Savings:
    """Add up the costs in a file; None stands for an entry that cannot be read."""
    lines: list[EntrySummary] = []
    damaged = 0
    for each in ledger:
        if each is None:
            damaged += 1
        else:
            lines.append(each)
    return total_of(lines, compare_costs(lines), session, refused, damaged)


def total_of(
    lines: Iterable[EntrySummary],
    fits: Iterable[ComparedFit],
    session: SourceSavings | None = None,
    refused: int = 0,
    damaged: int = 0,
) -> Savings:
    """Add up the `compare_costs` of a file's entries."""
    by_source = {str(source): SourceSavings() for source in StartSource}
    without_lineage = 0
    finished: set[str | None] = set()
    for fit in fits:
        line = fit.summary
        finished.add(line.fit_key)
        if line.lineage is None or line.source is None:
            without_lineage += 1
            continue
        one = SourceSavings(fits=1, refused=line.lineage.consumed is False, cost=line.cost or Cost())
        if fit.own is not None and fit.cold is not None and fit.basis is not None:
            one = replace(one, compared=1, measured=int(fit.basis.is_measured), own=fit.own, cold=fit.cold)
        by_source[line.source] += one
    unfinished = {line.fit_key for line in lines if line.kind == "checkpoint"} - finished
    return Savings(by_source, session or SourceSavings(), len(unfinished), without_lineage, damaged, refused)


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
