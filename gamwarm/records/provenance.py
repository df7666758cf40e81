"""Who made an entry, what it started from, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Final

from gamwarm.checks import as_finite_float, as_int, as_str, as_tuple
from gamwarm.display import brief_repr, counted, short
from gamwarm.errors import GamwarmError, InvalidInput, InvalidKey
from gamwarm.version import __version__

__all__ = [
    "COLD_RUN",
    "LATEST",
    "Cost",
    "Lineage",
    "Producer",
    "Provenance",
    "StartSource",
    "attributes_of_cold_run",
    "check_entry_id",
    "cold_objective_of",
    "cold_run_of",
    "facts_of_making",
]


class StartSource(StrEnum):
    """Where a start came from."""

    EXACT = "exact"
    TRANSFER = "transfer"
    COLD = "cold"


class Provenance(StrEnum):
    """What a term of a start holds of its parent."""

    PROJECTED = "projected"
    RHO_ONLY = "rho-only"
    COLD = "cold"


LATEST: Final = 253_370_764_800_000_000
"""UTC microseconds of the beginning of the year 9999: no entry is made later."""


def check_entry_id(value: object) -> str:
    """Return ``value`` if it is an entry id (32 lower-case hex digits), else raise `InvalidKey`."""
    if not isinstance(value, str) or len(value) != 32 or any(c not in "0123456789abcdef" for c in value):
        raise InvalidKey(
            f"{brief_repr(value)} is not an entry id; expected 32 lower-case hex digits, as `gamwarm show` prints it"
        )
    return value


@dataclass(frozen=True)
class Producer:
    """The build that wrote an entry.

    Parameters
    ----------
    engine, engine_version : str
        Empty: unknown.
    gamwarm_version : str
        Default: this one.
    """

    engine: str = ""
    engine_version: str = ""
    gamwarm_version: str = __version__

    def __post_init__(self) -> None:
        for name in ("engine", "engine_version", "gamwarm_version"):
            as_str(getattr(self, name), f"producer {name}", empty=True)

    @property
    def build(self) -> str:
        """Engine and version in one string; empty if unknown."""
        return f"{self.engine} {self.engine_version}".strip()

    def is_same_build(self, other: Producer | None) -> bool:
        """Whether both name one engine and version; gamwarm's own version does not count."""
        return (
            other is not None
            and self.engine != ""
            and (self.engine, self.engine_version) == (other.engine, other.engine_version)
        )


@dataclass(frozen=True)
class Cost:
    """What a fit took. Seconds are not part of an entry's content.

    Parameters
    ----------
    evaluations : int
        Outer objective values.
    outer_iterations, inner_iterations : int
    hessian_formations : int
        Formations of X'WX over all rows.
    seconds : float
        Wall time.
    for_children : int
        Of the Hessian formations, those that served later fits only (the outer Hessian that a
        parent keeps, group seeds).
    seconds_for_children : float
        Of the seconds, those spent on these formations. 0 if unknown: then their share counts.
    """

    evaluations: int = 0
    outer_iterations: int = 0
    inner_iterations: int = 0
    hessian_formations: int = 0
    seconds: float = field(default=0.0, compare=False)
    for_children: int = 0
    seconds_for_children: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        for name in ("evaluations", "outer_iterations", "inner_iterations", "hessian_formations", "for_children"):
            object.__setattr__(self, name, as_int(getattr(self, name), f"cost {name}"))
        for name in ("seconds", "seconds_for_children"):
            object.__setattr__(self, name, as_finite_float(getattr(self, name), f"cost {name}", minimum=0.0))

    @property
    def own(self) -> Cost:
        """What the fit took for itself: every display and every comparison uses this."""
        if not (self.for_children or self.seconds_for_children):
            return self
        formations = max(self.hessian_formations - self.for_children, 0)
        seconds = max(self.seconds - self.seconds_for_children, 0.0)
        if not self.seconds_for_children and self.hessian_formations:
            seconds *= formations / self.hessian_formations
        return Cost(self.evaluations, self.outer_iterations, self.inner_iterations, formations, seconds)

    @property
    def counts_work(self) -> bool:
        """Whether the engine counted anything but seconds."""
        return bool(self.evaluations or self.outer_iterations or self.inner_iterations or self.hessian_formations)

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __str__(self) -> str:
        extra = f" (and {self.for_children:,} for later fits)" if self.for_children else ""
        own, parts = self.own, []
        if own.evaluations or not own.hessian_formations:
            parts.append(counted(own.evaluations, "evaluation"))
        if own.hessian_formations or extra:  # an engine that does not count them has none
            parts.append(f"{counted(own.hessian_formations, 'Hessian formation')}{extra}")
        return ", ".join([*parts, f"{own.seconds:.3g} s"])

    @property
    def work(self) -> str:
        """What the fit took for itself, in the best unit that its engine counts."""
        own = self.own
        return counted(
            own.hessian_formations or own.evaluations, "Hessian formation" if own.hessian_formations else "evaluation"
        )


COLD_RUN: Final = "cold_"
"""Beginning of the attributes that say what the same fit took cold."""
_COLD_OBJECTIVE: Final = f"{COLD_RUN}objective"
_COLD_RUN: Final = ("evaluations", "outer_iterations", "inner_iterations", "hessian_formations", "seconds")


def attributes_of_cold_run(cost: Cost, objective: float | None = None) -> dict[str, int | float]:
    """Return the attributes by which a fit's entries state what the same fit took and gave cold."""
    told = {COLD_RUN + name: getattr(cost.own, name) for name in _COLD_RUN}
    return told if objective is None else {**told, _COLD_OBJECTIVE: objective}


def cold_run_of(attributes: Mapping[str, str | int | float]) -> Cost | None:
    """Read `attributes_of_cold_run`; None where they are absent, or not of that form."""
    try:
        return Cost(**{name: attributes[COLD_RUN + name] for name in _COLD_RUN})  # type: ignore[arg-type]
    except (KeyError, GamwarmError):
        return None


def cold_objective_of(attributes: Mapping[str, str | int | float]) -> float | None:
    """Return the objective of the cold run; None if the attributes do not tell it."""
    told = attributes.get(_COLD_OBJECTIVE)
    return float(told) if isinstance(told, int | float) and abs(told) < inf else None


@dataclass(frozen=True)
class Lineage:
    """What a kept fit started from.

    Parameters
    ----------
    source : {"exact", "transfer", "cold"}
    entry : str, optional
        Entry id of the record or artifact it started from.
    terms : tuple of (str, str)
        Block name and provenance, for transfers.
    consumed : bool, optional
        Whether the engine said that it used the start; None if it did not say.
    """

    source: StartSource | str
    entry: str | None = None
    terms: tuple[tuple[str, str], ...] = ()
    consumed: bool | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "source", StartSource(self.source))
            terms = tuple(
                (as_str(n, "lineage block name"), Provenance(p)) for n, p in as_tuple(self.terms, "lineage terms")
            )
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"lineage: {error}") from None
        object.__setattr__(self, "terms", terms)
        if self.entry is not None:
            check_entry_id(self.entry)


def facts_of_making(
    producer: Producer | None, lineage: Lineage | None, cost: Cost | None, created: int | None
) -> list[tuple[str, str]]:
    """Describe who made an entry, from what, at what cost and when (UTC)."""
    start = ""
    if lineage is not None:
        start = str(lineage.source) if lineage.entry is None else f"{lineage.source} from {short(lineage.entry)}"
    spent = "" if cost is None else str(cost)
    when = "" if created is None else f"{datetime.fromtimestamp(created / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
    engine = "" if producer is None else producer.build
    return [("engine", engine), ("start", start), ("cost", spent), ("made", when)]
