"""Leave one group out as a job: parent first and named, folds largest first, resumable, the same on
any ranks.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import CollectiveError, InvalidInput, InvalidType, folds
from gamwarm.storage import vfs
from tests.support.campaigns import GROUPS, Solver
from tests.support.stores import carrier_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

LARGEST_FIRST = ["site 6", "site 0", "site 2", "site 4", "site 3", "site 1", "site 5"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


def run(path, solver=None, comm=None, **options):
    solver = solver or Solver()
    with gamwarm.open(path, comm=comm, engine="tests", engine_version="1") as store:
        return folds.leave_one_out(store, GROUPS, solver, **{"progress": False} | options)


def plain(report):
    """Everything that must not depend on ranks or on interruptions."""
    return [
        (f.group, f.n_rows, f.objective, f.converged, f.record, f.artifact) for f in (report.parent, *report.folds)
    ], report.parent_id


def test_the_fit_on_all_rows_is_the_parent_of_every_fold(path):
    solver = Solver()
    report = run(path, solver)

    assert solver.solved[0] == (None, "cold", None)
    assert report.parent.n_rows == len(GROUPS)
    assert report.parent_id == report.parent.artifact
    assert solver.solved[1:] == [(group, "transfer", report.parent_id) for group in LARGEST_FIRST]
    assert [f.entry for f in report.folds] == [report.parent_id] * 7
    assert report.sources == {"transfer": 7}
    assert not report.stopped
    assert len(report) == 7


def test_folds_are_dealt_largest_first(path):
    sizes = [f.n_rows for f in run(path).folds]
    assert sizes == sorted(sizes, reverse=True)
    assert [f.group for f in run(path).folds] == LARGEST_FIRST


def test_the_job_run_again_is_exact_hits_and_has_the_same_parent(path):
    first, again = run(path), run(path)

    assert again.sources == {"exact": 7}
    assert again.parent.source == "exact"
    assert plain(again) == plain(first)
    assert again["site 3"].entry == first["site 3"].record


def test_what_a_later_fit_leaves_in_the_file_does_not_change_the_parent(path):
    first = run(path)
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        bigger = carrier_fit(range(7), n=500)
        store.keep(bigger, result_of(bigger))

    again = run(path)
    assert again.parent_id == first.parent_id
    assert plain(again) == plain(first)


def test_a_parent_that_is_named_is_taken_and_all_rows_are_not_fitted(path):
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        other = carrier_fit(range(7), n=500)
        named = store.keep(other, result_of(other)).artifact.entry_id
    solver = Solver()
    report = run(path, solver, parent=named)

    assert report.parent is None
    assert report.parent_id == named
    assert {parent for _, _, parent in solver.solved} == {named}
    assert len(solver.solved) == 7


def test_folds_do_not_start_from_folds_where_there_is_no_parent(path, caplog):
    class Unconverged(Solver):
        def solve(self, fold, fit):
            result = super().solve(fold, fit)
            if fold.group is None:
                result = result_of(fit.problem, 1.0, converged=False)
            return result

    solver = Unconverged()
    with caplog.at_level(logging.WARNING):
        report = run(path, solver)

    assert report.parent_id is None
    assert {(source, parent) for _, source, parent in solver.solved[1:]} == {("cold", None)}
    assert "cannot be a parent" in caplog.text


def test_a_store_that_is_off_still_has_every_fold_fitted(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    solver = Solver()
    with gamwarm.open(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(vfs.DISK, "fdatasync", full)
            store.put_record(record_of(1))
        assert store.disabled_reason
        report = folds.leave_one_out(store, GROUPS, solver, progress=False)

    assert report.sources == {"cold": 7}
    assert len(solver.solved) == 8
    assert all("off" in f.not_kept for f in report.folds)


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_stopped_job_keeps_its_folds_and_continues_when_run_again(path, monkeypatch, at):
    whole = run(path.with_name("whole.h5"))
    asked = []

    def should_stop(store):
        asked.append(1)
        return len(asked) > at

    with monkeypatch.context() as patch:
        patch.setattr(gamwarm.WarmStartStore, "should_stop", should_stop)
        solver = Solver()
        stopped = run(path, solver)

    assert stopped.stopped
    assert len(stopped.folds) == at
    assert list(stopped.remaining) == LARGEST_FIRST[at:]
    assert len(solver.solved) == (at + 1 if at else 0)
    solver = Solver()
    resumed = run(path, solver)
    assert [source for _, source, _ in solver.solved[1:]] == ["exact"] * at + ["transfer"] * (7 - at)
    assert plain(resumed) == plain(whole)


def test_a_fold_that_fails_is_listed_with_its_reason_and_the_others_go_on(path, caplog):
    with caplog.at_level(logging.WARNING):
        report = run(path, Solver(fails_at="site 4"))

    assert [fold.group for fold in report.folds] == LARGEST_FIRST
    assert [fold.group for fold in report.unanswered] == ["site 4"]
    assert report["site 4"].failure == "ArithmeticError: no maximum without site 4"
    assert not report.stopped
    assert report.sources == {"transfer": 6}
    assert "no answer without site 4: ArithmeticError: no maximum without site 4" in str(report).splitlines()
    assert "has no answer (ArithmeticError: no maximum without site 4)" in caplog.text
    solver = Solver()
    again = run(path, solver)
    assert [source for _, source, _ in solver.solved] == ["exact"] * 4 + ["transfer"] + ["exact"] * 3
    assert not again.unanswered


def test_a_fold_that_does_not_converge_says_so_and_why(path):
    class Unconverged(Solver):
        def solve(self, fold, fit):
            result = super().solve(fold, fit)
            return result_of(fit.problem, 1.0, converged=False) if fold.group == "site 2" else result

    report = run(path, Unconverged())

    assert {fold.group: fold.failure for fold in report.unanswered} == {"site 2": "did not converge"}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("where", ["solve", "describe", "after keep"])
def test_a_fit_that_raises_anywhere_leaves_the_other_ranks_in_step(path, size, where):
    def job(comm):
        solver = Solver(fails_at="site 3" if where == "solve" else None)
        describe, keeps = solver.describe, folds.of_engine(solver.describe, solver.solve)

        def failing(fold):
            if fold.group == "site 3":
                raise ArithmeticError("no maximum without site 3")
            return describe(fold)

        def fails_late(fold, **how):
            made = keeps(fold, **how)
            if fold is not None and fold.group == "site 3":
                raise ArithmeticError("no maximum without site 3")
            return made

        if where == "describe":
            solver.fit = folds.of_engine(failing, solver.solve)
        if where == "after keep":
            solver.fit = fails_late
        return run(path, solver, comm)

    for report in on_ranks(size, job):
        assert [(fold.group, fold.failure) for fold in report.unanswered] == [
            ("site 3", "ArithmeticError: no maximum without site 3")
        ]
        assert len(report.folds) == 7
    with gamwarm.open(path, "r") as store:
        assert store.verify().ok
        assert len(store.keys()) == (8 if where == "after keep" else 7)


def test_what_is_wrong_with_a_call_of_the_store_ends_the_job(path):
    class Misshapen(Solver):
        def solve(self, fold, fit):
            result = super().solve(fold, fit)
            return replace(result, block_beta=result.block_beta[1:]) if fold.group == "site 2" else result

    with pytest.raises(InvalidInput, match="block"):
        run(path, Misshapen())
    first, second = on_ranks(2, lambda comm: run(path.with_name("two.h5"), Misshapen(), comm))
    assert type(first) is type(second) is CollectiveError


# -- ranks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_any_number_of_ranks_gives_the_report_and_the_file_of_one(path, size):
    alone = run(path.with_name("alone.h5"))
    reports = on_ranks(size, lambda comm: run(path, comm=comm))

    for report in reports:
        assert plain(report) == plain(alone)
        assert report.sources == {"transfer": 7}
    assert {f.rank for f in reports[0].folds} == set(range(min(size, 7)))
    with gamwarm.open(path, "r") as one, gamwarm.open(path.with_name("alone.h5"), "r") as other:
        assert one.entry_ids() == other.entry_ids()
        assert one.verify().ok


def test_a_rank_that_fails_is_heard_by_all_with_the_name_of_its_fold(path):
    """The fold of rank 1 in the second round: 'site 3'."""

    def job(comm):
        solver = Solver()

        def value(fit):
            if comm.rank == 1 and len(solver.solved) > 1:
                raise ArithmeticError("no value")

        return run(path, solver, comm, value=value)

    first, culprit, third = on_ranks(3, job)

    for other in (first, third):
        assert isinstance(other, CollectiveError)
        assert other.rank == 1
        assert "ArithmeticError" in other.cause
        assert any("site 3" in note for note in other.__notes__)
    assert any("site 3" in note for note in culprit.__notes__)
    report = run(path)
    assert [f.source for f in report.folds][:3] == ["exact"] * 3


def test_a_parent_that_fails_on_rank_0_is_heard_by_all(path):
    class NoParent(Solver):
        def solve(self, fold, fit):
            raise ArithmeticError("no maximum at all")

    first, other = on_ranks(2, lambda comm: run(path, NoParent(), comm))

    assert isinstance(first, ArithmeticError)
    assert isinstance(other, CollectiveError)
    assert "no maximum at all" in other.cause


def test_ranks_with_other_groups_are_refused_on_all_ranks(path):
    def job(comm):
        mine = GROUPS if comm.rank == 0 else np.roll(GROUPS, 1)
        with gamwarm.open(path, comm=comm) as store:
            return folds.leave_one_out(store, mine, Solver(), progress=False)

    for answer in on_ranks(3, job):
        assert isinstance(answer, CollectiveError)
        assert "the same on every rank" in str(answer)


def test_a_stop_on_any_rank_stops_all_between_rounds(path):
    def job(comm):
        with gamwarm.open(path, comm=comm, engine="tests", engine_version="1") as store:
            solver = Solver()
            real = solver.solve

            def solve(fold, fit):
                if comm.rank == 1:  # the signal comes while its first fold is fitted
                    store._ranks.walltime.is_due = lambda: True
                return real(fold, fit)

            solver.fit = folds.of_engine(solver.describe, solve)
            return folds.leave_one_out(store, GROUPS, solver, progress=False)

    for report in on_ranks(2, job):
        assert [f.group for f in report.folds] == LARGEST_FIRST[:2]
        assert list(report.remaining) == LARGEST_FIRST[2:]


# -- what is passed and what is shown --------------------------------------------------------------


def test_a_fit_that_is_none_is_refused(path):
    with gamwarm.open(path) as store:
        with pytest.raises(InvalidType, match="give a function"):
            folds.leave_one_out(store, GROUPS, None, progress=False)
        with pytest.raises(InvalidType, match="result, start and kept"):
            folds.leave_one_out(store, GROUPS, lambda fold, **how: "fitted", progress=False)
        with pytest.raises(InvalidInput, match="two or more"):
            folds.leave_one_out(store, ["a", "a"], Solver(), progress=False)


def test_progress_counts_the_parent_and_every_fold(path):
    shown = []
    run(path, progress=lambda done, total: shown.append((done, total)))
    assert shown == [(k, 8) for k in range(1, 9)]


def test_progress_is_shown_on_rank_0_alone(path):
    shown = {0: [], 1: []}
    on_ranks(2, lambda comm: run(path, comm=comm, progress=lambda done, total: shown[comm.rank].append(done)))
    assert shown == {0: [1, 3, 5, 7, 8], 1: []}


@pytest.mark.parametrize("with_rich", [True, False])
def test_in_a_log_progress_is_a_line_per_quarter(path, capsys, monkeypatch, with_rich):
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    run(path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["2/8", "4/8", "6/8", "8/8"]


def test_on_a_terminal_progress_is_a_bar(path):
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with folds.bar("the folds", console) as shown:
        run(path, progress=shown)
    assert "8/8" in console.file.getvalue()


def test_the_table_has_a_line_per_fold_and_says_what_remains(path):
    report = run(path, value=lambda fit: fit.result.objective)
    lines = report.table().splitlines()
    assert len(lines) == 1 + 8
    assert lines[1].startswith("(none)")
    assert all(f.group in line and f.record[:12] in line for f, line in zip(report.folds, lines[2:], strict=True))
    assert str(report) == f"{report.table()}\n{report.summary()}"
    assert [f.value for f in report.folds] == [f.objective for f in report.folds]
    assert report.cost.evaluations == 7 * 7
    with pytest.raises(KeyError):
        report["site 99"]


def test_every_fold_says_which_group_it_leaves_out(path):
    told = []
    solver = Solver()

    def fit(fold, /, **how):
        told.append((fold.group, how["leave_out"], how["each"]))
        return solver(fold, **how)

    report = run(path, fit)
    assert told == [(None, None, True), *((group, group, True) for group in LARGEST_FIRST)]
    assert report[np.str_("site 6")].group == "site 6"


def test_group_seeds_of_the_parent_move_the_starts_of_its_folds(path):
    """With the reference engine: its parent carries them, and the folds' starts say that they were
    used.
    """
    from gamwarm import engine
    from tests.support.models import USUAL, columns, model

    data = columns(n=160, groups=4)
    bound = model("poisson", data)
    used = []

    def fit(fold, /, **how):
        seeds = "group" if fold.group is None else None
        made = engine.fit(bound.case(fold.rows), options=USUAL, group_seeds=seeds, **how)
        used.append(made.start.seeds)
        return made

    with gamwarm.open(path, engine=engine.ENGINE) as store:
        report = folds.leave_one_out(store, data["group"], fit, progress=False)
    assert report.sources == {"transfer": 4}
    assert used == ["", "used", "used", "used", "used"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_every_fold_is_labelled_with_its_group_on_any_number_of_ranks(path, ranks):
    report = on_ranks(ranks, lambda comm: run(path, comm=comm))[0]

    with gamwarm.open(path) as store:
        records = [store.get_record(key) for key in store.keys()]  # noqa: SIM118 - a store is no dict
    assert sorted(record.attributes.get("group", "") for record in records) == ["", *sorted(LARGEST_FIRST)]
    sizes = {record.attributes["group"]: record.n_rows for record in records if record.attributes}
    assert sizes == {fold.group: fold.n_rows for fold in report.folds}
    assert len(report) == 7


def test_a_fold_of_an_engine_with_labels_of_its_own_keeps_both(path):
    def fit(fold, *, store, parent, leave_out, each):
        problem = None if fold is None else Solver().describe(fold)
        start = store.start_for(problem, parent, leave_out, each=each)
        result = None if fold is None else result_of(problem, attributes={"job": 7})
        return folds.FoldFit(result, start, store.keep(problem, result, start, each=each))

    run(path, fit)

    with gamwarm.open(path) as store:
        found = [store.get_record(key).attributes for key in store.keys()]  # noqa: SIM118 - a store is no dict
    assert {"job": 7} in found
    assert {"job": 7, "group": "site 3"} in found
