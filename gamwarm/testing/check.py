"""The check itself: cold, prime, warm, exact, corrupted, frozen, shuffled."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gamwarm.checks import as_int
from gamwarm.records import StartSource
from gamwarm.store import open_store
from gamwarm.testing.corruptions import Corruption, corruptions_of, tamperings_of
from gamwarm.testing.driver import Driver, Fitted, Tolerances, check_driver, problem_of
from gamwarm.testing.isolated import cold_fits
from gamwarm.testing.judge import Judge
from gamwarm.testing.report import Finding, NeutralityReport, Run, Verdict
from gamwarm.testing.store_proxy import InterceptingStore

__all__ = ["assert_neutral", "check_neutrality"]

_REPEATS = 2
_EVERY_SECONDS = 5.0
_WRONG_RECORDS = ("rho[0] +6", "rho[0] -6", "rho permuted", "rho at the upper bound", "beta negated", "beta times 5")


def check_neutrality(
    driver: Driver,
    *,
    tolerances: Tolerances | None = None,
    corrupted_cases: int = 1,
    accept_modes: bool = True,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    timeout: float = 600.0,
    progress: Callable[[str], object] | None = None,
) -> NeutralityReport:
    """Test whether an engine's answers depend on its start.

    1. *cold*: every case without a store, in a process of its own in which no store can be opened.
    2. *prime*: the first case into an empty store.
    3. *warm*: the other cases, which start from it.
    4. *exact*: every case again, twice: 1 evaluation, 0 outer iterations, the same bits, nothing
       new in the file; and with false claims about the stored values, and with wrong records.
    5. *corrupted*: some relatives with corrupted starts (`corruptions_of`).
    6. *frozen*, *shuffled*: the relatives from a frozen parent, in order and in other orders: the
       same bits.

    Parameters
    ----------
    driver : Driver
    tolerances : Tolerances, optional
    corrupted_cases : int
        How many relatives are tested with corrupted starts.
    accept_modes : bool
        Whether a worse answer that is a local optimum (as far as ``driver.objective`` shows) counts
        as another mode and not as a finding.
    seed : int
        Of the random corruptions and orders.
    directory : path, optional
        Where the stores go; default a temporary directory.
    timeout : float
        Seconds that the process of the cold fits may take.
    progress : callable, optional
        Called with a line for every fit. Default: a line to standard error when a phase begins, and
        every 5 s.

    Returns
    -------
    NeutralityReport
        ``ok``, ``findings``, ``runs``; its text is a table.

    Raises
    ------
    FitFailed
        A cold fit failed, or opened a store.
    InvalidInput, InvalidType
        The driver lacks something, or its cold fits do not converge.
    """
    cases = check_driver(driver)
    as_int(corrupted_cases, "corrupted_cases")
    limits = Tolerances() if tolerances is None else tolerances
    with tempfile.TemporaryDirectory(prefix="gamwarm-neutrality-", dir=directory) as made:
        check = _Check(driver, cases, limits, Path(made), seed, accept_modes, progress or _Printing())
        check.cold(timeout)
        check.prime_and_warm()
        check.exact()
        check.wrong_records()
        check.corrupted(corrupted_cases)
        check.orders()
    return check.report


def assert_neutral(driver: Driver, **options: Any) -> NeutralityReport:
    """`check_neutrality` of ``driver``, raising `NotNeutral` (an AssertionError) with findings."""
    report = check_neutrality(driver, **options)
    report.check()
    return report


class _Printing:
    """Progress on standard error: a line when a phase begins, and then one every few seconds."""

    def __init__(self) -> None:
        self._phase, self._said = "", 0.0

    def __call__(self, line: str) -> None:
        phase, now = line.partition(",")[0], time.monotonic()
        if phase != self._phase or now - self._said >= _EVERY_SECONDS:
            self._phase, self._said = phase, now
            print(line, file=sys.stderr, flush=True)


class _Check:
    """State of one check."""

    def __init__(
        self,
        driver: Any,
        cases: list[Any],
        limits: Tolerances,
        directory: Path,
        seed: int,
        accept_modes: bool,
        progress: Callable[[str], object],
    ) -> None:
        self.progress = progress
        self.driver, self.cases, self.limits, self.directory = driver, cases, limits, directory
        self.rng = np.random.default_rng(seed)
        self.accept_modes = accept_modes
        problem = problem_of(driver, cases[0])
        self.report = NeutralityReport(f"{problem.engine} {problem.engine_version}".strip())
        self.judges: list[Judge] = []
        self.warm: dict[int, Fitted] = {}
        if not hasattr(driver, "objective"):
            self.report.remarks.append("the driver has no objective(case, rho): claimed objectives were not evaluated")

    # -- findings and runs -------------------------------------------------------------------------

    def find(self, check: str, where: str, message: str) -> None:
        self.report.findings.append(Finding(check, where, message))

    def fit(
        self, phase: str, i: int, store: Any, change: Corruption | None = None
    ) -> tuple[Fitted | None, InterceptingStore]:
        """Run one fit; an exception is a finding."""
        self.progress(f"{self.report.engine}: {_where(phase, i, change)}, {len(self.report.findings)} findings so far")
        offering = InterceptingStore(store, None if change is None else change.apply)
        try:
            return self.driver.fit(self.cases[i], offering), offering
        except Exception as error:  # the test is how the engine handles a bad start
            where = _where(phase, i, change)
            self.find("raised", where, f"{type(error).__name__}: {error}; the cold fit did not fail")
            return None, offering

    def look(self, phase: str, i: int, answer: Fitted, offering: InterceptingStore, label: str = "") -> Verdict:
        """Judge an answer, whatever it started from."""
        judge, result = self.judges[i], answer.result
        where = f"{phase}, case {i}" + (f", {label}" if label else "")
        found = judge.judge(answer)
        source = "" if offering.offered is None else str(offering.offered.source)
        self.report.runs.append(
            Run(phase, i, label, source, found.verdict, found.gap, found.distance, answer.result.cost)
        )
        if found.verdict is Verdict.MOVED or (found.verdict is Verdict.MODE and not self.accept_modes):
            self.find("answer", where, found.reason)
        for check, wrong in (("flags", judge.wrong_flags(result)), ("objective", judge.wrong_objective(result))):
            if wrong is not None:
                self.find(check, where, wrong)
        self.check_use(where, answer, offering, judge.cold)
        return found.verdict

    def check_use(self, where: str, answer: Fitted, offering: InterceptingStore, cold: Fitted) -> None:
        """Find a start that was said to be used and was not."""
        if not answer.result.start_used:
            return
        offered = offering.offered
        if offered is None or offered.start is None:
            self.find("used", where, "the engine reports that it used a start, but none was offered")
        elif offered.source == StartSource.TRANSFER and answer.same_bits(cold):
            # Another way to the answer ends elsewhere in its last bits.
            self.find(
                "used",
                where,
                "the engine reports that it used the start, but its answer is identical to the cold fit's",
            )

    # -- phases ------------------------------------------------------------------------------------

    def cold(self, timeout: float) -> None:
        self.progress(f"{self.report.engine}: cold, {len(self.cases)} fits in a separate process")
        fits = cold_fits(self.driver, self.cases, self.directory, timeout)
        for i, (case, cold) in enumerate(zip(self.cases, fits, strict=True)):
            judge = Judge(self.driver, case, cold, self.limits)
            self.judges.append(judge)
            self.report.runs.append(Run("cold", i, "", "", Verdict.SAME, 0.0, 0.0, cold.result.cost))
            where = f"cold, case {i}"
            if not cold.result.converged or cold.result.objective is None:
                self.find(
                    "answer", where, "the cold fit did not converge, or has no objective: nothing to compare with"
                )
            if cold.result.start_used:
                self.find("used", where, "the engine reports that it used a start, but it had no store")
            for check, wrong in (
                ("flags", judge.wrong_flags(cold.result)),
                ("objective", judge.wrong_objective(cold.result)),
            ):
                if wrong is not None:
                    self.find(check, where, wrong)

    def prime_and_warm(self) -> None:
        with self.open("primed.h5") as store:
            answer, offering = self.fit("prime", 0, store)
            if answer is not None:
                self.look("prime", 0, answer, offering)
            if offering.offered is None:
                self.find("vacuous", "prime, case 0", "the engine did not ask the store for a start")
            if len(store) == 0:
                self.find("vacuous", "prime, case 0", "nothing of the parent was kept")
        self.copy("primed.h5", "warm.h5")
        transfers = 0
        with self.open("warm.h5") as store:
            for i in range(1, len(self.cases)):
                answer, offering = self.fit("warm", i, store)
                if answer is not None:
                    self.look("warm", i, answer, offering)
                    self.warm[i] = answer
                offered = offering.offered
                transfers += offered is not None and offered.source == StartSource.TRANSFER
                if offered is not None and offered.source != StartSource.TRANSFER:
                    self.report.remarks.append(f"case {i} was offered no transfer: {offered}")
        if not transfers:
            self.find("vacuous", "warm", "no relative was offered a start from the parent")

    def exact(self) -> None:
        with self.open("warm.h5") as store:
            for i in range(len(self.cases)):
                self.exact_case(i, store)

    def exact_case(self, i: int, store: Any) -> None:
        first: Fitted | None = None
        kept = store.start_for(problem_of(self.driver, self.cases[i]))
        if kept.source != StartSource.EXACT or kept.is_checkpoint:
            self.find("vacuous", f"exact, case {i}", f"its own answer is not in the store: {kept}")
            return
        before = store.entry_ids()
        for repeat in range(_REPEATS):
            answer, offering = self.fit("exact", i, store)
            if answer is None:
                return
            label = f"repeat {repeat + 1}"
            self.look("exact", i, answer, offering, label)
            self.check_hit(f"exact, case {i}, {label}", answer, kept.start)
            first = first or answer
        if store.entry_ids() != before:
            self.find("drift", f"exact, case {i}", "storing an exact hit again changed the stored entry")
        assert first is not None
        for lie in tamperings_of():
            answer, _ = self.fit("exact", i, store, lie)
            if answer is None:
                continue
            if not answer.same_bits(first) or answer.result.objective != first.result.objective:
                self.find(
                    "stored-numbers",
                    _where("exact", i, lie),
                    "the answer changed with a false claim about the stored entry",
                )

    def wrong_records(self) -> None:
        """Offer a record that is wrong: what another build took for its answer, say."""
        i = 1
        for corruption in self._corruptions(i):
            if corruption.name in _WRONG_RECORDS:
                self.copy("warm.h5", "wrong.h5")
                with self.open("wrong.h5") as store:
                    answer, offering = self.fit("wrong record", i, store, corruption)
                if answer is not None:
                    self.look("wrong record", i, answer, offering, corruption.name)

    def check_hit(self, where: str, answer: Fitted, start: Any) -> None:
        stored = Fitted(_as_stored(answer, start), answer.fitted)
        if not answer.same_bits(stored):
            self.find("exact", where, "rho or coefficients are not bit for bit what was stored")
        cost = answer.result.cost
        if cost is None:
            self.remark_once("the engine reports no cost: evaluations of exact hits were not checked")
        elif cost.evaluations > 1 or cost.outer_iterations > 0:
            took = f"{cost.evaluations} evaluations and {cost.outer_iterations} outer iterations"
            self.find("exact", where, f"it took {took}; its own answer takes 1 and 0")

    def remark_once(self, text: str) -> None:
        if text not in self.report.remarks:
            self.report.remarks.append(text)

    def _corruptions(self, i: int) -> list[Corruption]:
        problem = self.judges[i].problem
        sets = self.judges[i].cold.result.active_sets
        active_sets = None if sets is None or not any(sets) else sets
        bound, nuisance, slots = problem.options.rho_bound, len(problem.nuisance), problem.layout.per_block_slots()
        return corruptions_of(problem.n_outer, bound, self.rng, nuisance, slots, active_sets)

    def corrupted(self, count: int) -> None:
        for i in range(1, min(len(self.cases), count + 1)):
            for corruption in self._corruptions(i):
                self.copy("primed.h5", "corrupted.h5")
                with self.open("corrupted.h5") as store:
                    answer, offering = self.fit("corrupted", i, store, corruption)
                if answer is not None:
                    self.look("corrupted", i, answer, offering, corruption.name)

    def orders(self) -> None:
        relatives = list(range(1, len(self.cases)))
        straight = self.campaign("frozen", relatives)
        shuffled = [int(i) for i in self.rng.permutation(relatives)]
        for order in (relatives[::-1], shuffled):
            for i, answer in self.campaign("shuffled", order).items():
                if i in straight and not answer.same_bits(straight[i]):
                    self.find(
                        "order", f"shuffled, case {i}", f"another answer when the cases are fitted in order {order}"
                    )

    def campaign(self, phase: str, order: list[int]) -> dict[int, Fitted]:
        answers: dict[int, Fitted] = {}
        self.copy("primed.h5", f"{phase}.h5")
        with self.open(f"{phase}.h5") as store:
            view = store.frozen()
            for i in order:
                answer, offering = self.fit(phase, i, view)
                if answer is not None:
                    self.look(phase, i, answer, offering)
                    answers[i] = answer
        return answers

    # -- files -------------------------------------------------------------------------------------

    def open(self, name: str) -> Any:
        return open_store(self.directory / name, on_error="raise")

    def copy(self, name: str, to: str) -> None:
        shutil.copy(self.directory / name, self.directory / to)


def _where(phase: str, i: int, change: Corruption | None) -> str:
    return f"{phase}, case {i}" + ("" if change is None else f", {change}")


def _as_stored(answer: Fitted, start: Any) -> Any:
    return replace(answer.result, rho=start.rho, block_beta=start.block_beta)
