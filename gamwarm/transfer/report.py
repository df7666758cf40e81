"""What a start holds, term by term, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gamwarm.checks import FloatArray
from gamwarm.display import NotebookTable, short, visible, wrapped
from gamwarm.records import ConstrainedWarmStart, Cost, Provenance, StartSource

__all__ = ["BetaOutcome", "RhoOutcome", "SlotReport", "StartReport", "TermReport", "TransferredStart"]


class RhoOutcome(StrEnum):
    """What became of a parent's smoothing parameter."""

    COPIED = "copied"
    CLAMPED = "clamped"
    PLATEAU = "plateau"
    TIED = "tied"
    DEFAULT = "default"


class BetaOutcome(StrEnum):
    """What became of a parent's coefficients."""

    PROJECTED = "projected"
    APPROXIMATE = "approximate"
    COLD = "cold"


class MatchKind(StrEnum):
    """What a term and its parent's have in common."""

    STRICT = "strict"
    """All that a term's identity holds, the reduced width too."""
    STRUCTURAL = "structural"
    """Everything that does not depend on the left-out rows: reduced width and null spaces."""
    NAME = "name"
    """Role, name, basis kind and number of smoothing parameters: the same smooth with another k.

    Coefficients of B-splines that say their degree and number of knots are resampled; of others the
    smoothing parameters are used.
    """


@dataclass(frozen=True)
class SlotReport:
    """One outer coordinate of one term."""

    slot: int
    outcome: RhoOutcome
    value: float
    reason: str = ""


@dataclass(frozen=True)
class TermReport:
    """One term of a transfer.

    Attributes
    ----------
    identity : str
        Strict identity of the child's term.
    provenance : {"projected", "rho-only", "cold"}
    rho, rho_reason
        The outcome furthest from plain copying among the term's slots, and why.
    slots : tuple of SlotReport
    beta, beta_reason
    residual : float, optional
        ``|T theta - (beta_raw - a)| / |beta_raw - a|`` of the projection.
    matched_by : {"strict", "structural", "name"}, optional
        How the parent's term was found; None: it has none.
    """

    identity: str
    provenance: Provenance
    rho: RhoOutcome
    rho_reason: str
    slots: tuple[SlotReport, ...]
    beta: BetaOutcome
    beta_reason: str
    residual: float | None = None
    matched_by: MatchKind | None = None


@dataclass(frozen=True, eq=False)
class TransferredStart(ConstrainedWarmStart):
    """A start built from a parent: active sets and cached inner mode are None.

    ``seeds`` says what became of ``leave_out``: "used", or why the parent's group seeds could not
    be; empty if no group was named. Where the parent has other terms, ``unmatched`` names those
    that this fit does not have, and ``partial_hessian`` is its outer Hessian, of shape (q, q), with
    NaN in rows and columns of coordinates that did not come from it (``curvature`` is None then).
    """

    provenance: tuple[Provenance, ...] = ()
    terms: tuple[TermReport, ...] = ()
    seeds: str = ""
    unmatched: tuple[str, ...] = ()
    partial_hessian: FloatArray | None = None

    @property
    def is_partial(self) -> bool:
        """Whether the parent has other terms than this fit."""
        return bool(self.unmatched) or any(term.matched_by in (None, MatchKind.NAME) for term in self.terms)


@dataclass(frozen=True, eq=False)
class StartReport(NotebookTable):
    """Where a fit begins and why.

    Attributes
    ----------
    source : {"exact", "transfer", "cold"}
    start : ConstrainedWarmStart or None
        None for cold.
    key : str or None
        Exact key; None for an unkeyable fit.
    parent : str or None
        Entry id of the artifact a transfer started from.
    reason : str
        Why this source and not a better one.
    terms : tuple of TermReport
        For transfers.
    entry : str or None
        Entry id of the record (exact) or artifact (transfer) it started from.
    entry_cost : Cost or None
        What that fit took: the baseline of the savings.
    entry_rows : int
        Rows that fit had.
    is_checkpoint : bool
        Whether that entry is where a search had stopped on its way (exact starts).
    names : tuple of str
        Block names, beside ``terms``.
    seeds : str
        Of a transfer with ``leave_out``: "used", or why the parent's group seeds were not; else
        empty.
    """

    source: StartSource
    start: ConstrainedWarmStart | None = None
    key: str | None = None
    parent: str | None = None
    reason: str = ""
    terms: tuple[TermReport, ...] = ()
    entry: str | None = None
    entry_cost: Cost | None = None
    entry_rows: int = 0
    is_checkpoint: bool = False
    names: tuple[str, ...] = ()
    seeds: str = ""

    @property
    def curvature(self) -> Any:
        """Curvature that came with the start, in this fit's outer coordinates, or None."""
        return None if self.start is None else self.start.curvature

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Names of the parent's terms that this fit does not have."""
        return getattr(self.start, "unmatched", ())

    def __str__(self) -> str:
        what = f"{self.source} start"
        if self.entry is not None:
            what += f" from {self.entry[:12]}"
        return visible(f"{what}: {self.reason}" if self.reason else what)

    def __repr__(self) -> str:
        return f"<StartReport: {self}>"

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("source", str(self.source)),
            ("reason", self.reason),
            ("exact key", "" if self.key is None else short(self.key)),
            ("from entry", "" if self.entry is None else short(self.entry)),
        ]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (
                name,
                str(term.matched_by or "nothing"),
                str(term.provenance),
                _said(term.rho, term.rho_reason),
                _said(term.beta, term.beta_reason),
            )
            for name, term in zip(self._names(), self.terms, strict=True)
        ]
        rows += [(name, "of the parent only", "", "", "") for name in self.unmatched]
        return ("term", "matched by", "transfer", "rho", "beta"), rows

    def _names(self) -> tuple[str, ...]:
        return self.names or tuple(short(term.identity) for term in self.terms)

    def summary(self) -> str:
        """Describe in lines of 80 columns the start and what of each term was carried over."""
        lines = [str(self)]
        if self.entry_cost is not None:
            lines.append(f"  that fit: {self.entry_rows} rows, {self.entry_cost}")
        for name, term in zip(self._names(), self.terms, strict=True):
            rho = f"rho {_said(term.rho, term.rho_reason)}" if term.slots else "no rho"
            if term.matched_by is MatchKind.NAME:
                name = f"{name} (matched by name)"
            beta = f"beta {_said(term.beta, term.beta_reason)}"
            lines.append(f"  {name}: {rho}; {beta}")
        if self.unmatched:
            lines.append(f"  of the parent only: {', '.join(self.unmatched)}")
        return wrapped(lines)


def _said(outcome: str, reason: str) -> str:
    return f"{outcome} ({reason})" if reason else str(outcome)
