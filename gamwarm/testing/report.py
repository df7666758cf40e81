"""What the neutrality check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from gamwarm.errors import GamwarmError
from gamwarm.records import Cost

__all__ = ["Finding", "NeutralityReport", "NotNeutral", "Run", "Verdict"]


class NotNeutral(GamwarmError, AssertionError):
    """An engine whose answers depend on its start, or that misreports.

    ``details["findings"]`` are the findings as strings.
    """

    code = "not-neutral"


class Verdict(StrEnum):
    """An answer compared with the cold fit's."""

    SAME = "same"
    BETTER = "better"
    MODE = "mode"
    MOVED = "moved"


@dataclass(frozen=True)
class Finding:
    """One thing that must not be.

    Attributes
    ----------
    check : str
        ``answer`` (it moved, or did not converge), ``exact`` (an exact hit moved or searched),
        ``drift`` (a repeat changed the file), ``stored-numbers`` (they entered the answer),
        ``flags`` (claimed plateaus that the rule does not give), ``used`` (a start reported as used
        that was not), ``objective`` (the model does not have it there), ``order`` (the order of
        fits changed an answer), ``vacuous`` (nothing was tested), ``raised``.
    where : str
        Phase, case and corruption.
    message : str
    """

    check: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"[{self.check}] {self.where}: {self.message}"


@dataclass(frozen=True)
class Run:
    """One fit that was compared with the cold one.

    Attributes
    ----------
    phase : str
        ``cold``, ``prime``, ``warm``, ``exact``, ``wrong record``, ``corrupted``, ``frozen`` or
        ``shuffled``.
    case : int
    label : str
        What was done to the start.
    source : str
        What was offered: ``exact``, ``transfer``, ``cold``; empty if nothing was asked for.
    verdict : Verdict
    gap : float
        Objective less the cold fit's.
    distance : float
        Largest difference of fitted values, as a share of their standard deviation.
    cost : Cost or None
    """

    phase: str
    case: int
    label: str
    source: str
    verdict: Verdict
    gap: float
    distance: float
    cost: Cost | None = None


@dataclass
class NeutralityReport:
    """Runs and findings.

    Attributes
    ----------
    engine : str
    runs : list of Run
    findings : list of Finding
    remarks : list of str
        What could not be checked, and why.
    """

    engine: str
    runs: list[Run] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def better(self) -> list[Run]:
        """Runs that ended in a better optimum than the cold fit."""
        return [run for run in self.runs if run.verdict is Verdict.BETTER]

    @property
    def modes(self) -> list[Run]:
        """Runs that ended in another, worse optimum that is one."""
        return [run for run in self.runs if run.verdict is Verdict.MODE]

    def evaluations(self, phase: str) -> float:
        """Evaluations per fit of a phase, if costs are reported; NaN if none is."""
        return self._mean(phase, "evaluations")

    def formations(self, phase: str) -> float:
        """Hessian formations per fit of a phase, if costs are reported; NaN if none is."""
        return self._mean(phase, "hessian_formations")

    def _mean(self, phase: str, count: str) -> float:
        known = [getattr(run.cost, count) for run in self.runs if run.phase == phase and run.cost is not None]
        return sum(known) / len(known) if known else float("nan")

    def check(self) -> None:
        """Raise `NotNeutral` unless ``ok``."""
        if not self.ok:
            raise NotNeutral(str(self), findings=[str(finding) for finding in self.findings])

    def __str__(self) -> str:
        head = "neutral" if self.ok else f"NOT NEUTRAL, {len(self.findings)} findings"
        lines = [f"{self.engine}: {head}", *(f"  {finding}" for finding in self.findings)]
        lines += [f"  phase         fits  better  modes  {'largest gap':>11}  evaluations  formations"]
        for phase in dict.fromkeys(run.phase for run in self.runs):
            runs = [run for run in self.runs if run.phase == phase]
            better, modes = _count(runs, Verdict.BETTER), _count(runs, Verdict.MODE)
            gap = max((run.gap for run in runs), key=abs, default=0.0)
            lines.append(
                f"  {phase:<12}  {len(runs):>4}  {better:>6}  {modes:>5}  {gap:>11.1e}  "
                f"{self.evaluations(phase):>11.1f}  {self.formations(phase):>10.1f}"
            )
        lines += [f"  note: {remark}" for remark in self.remarks]
        return "\n".join(lines)


def _count(runs: Iterable[Run], verdict: Verdict) -> int:
    return sum(run.verdict is verdict for run in runs)
