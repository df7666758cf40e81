"""A campaign as its user sees it: scores, what each fold changes, audits, labels, the pinned
parent.
"""

from __future__ import annotations

import os
import shutil
import signal
import time

import numpy as np
import pytest

import gamwarm
from gamwarm import InvalidInput, InvalidType, engine, folds
from gamwarm.engine import Curve
from gamwarm.folds import TermState
from gamwarm.folds.audit import audited_folds
from gamwarm.folds.terms import changes_between
from tests.support.campaigns import GROUPS, Solver
from tests.support.models import columns, model
from tests.support.stores import result_of
from tests.support.thread_ranks import on_ranks

N_GROUPS = 6


def data():
    found = columns(n=240, groups=N_GROUPS)
    return found | {"z": found["u"]}  # few enough values that a curve is compared at all of them


def campaign(path, family="poisson", *, comm=None, groups=None, bound=None, **options):
    """Run the campaign of the reference engine; return report and what each fit returned."""
    bound = bound or model(family, data())
    fits = {}

    def fit(fold, **how):
        made = engine.fit(None if fold is None else bound.case(fold.rows), **how)
        if fold is not None and type(how["store"]).__name__ != "ColdStore":
            fits[fold.group] = made
        return made

    with gamwarm.open(path, comm=comm, engine=engine.ENGINE, engine_version="1") as store:
        groups = data()["group"] if groups is None else groups
        return folds.leave_one_out(store, groups, fit, progress=False, **options), fits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("campaign") / "fits.h5"
    report, fits = campaign(path, audit=0.4)
    return report, fits, path


# -- scores ----------------------------------------------------------------------------------------


def test_every_fold_has_the_log_likelihood_of_the_rows_it_leaves_out(made):
    report, fits, _ = made

    for fold in report.folds:
        assert fold.held_out == fits[fold.group].held_out(data()["group"] == fold.group).total
    assert report.held_out == pytest.approx(sum(fold.held_out for fold in report.folds))
    assert report.parent.held_out is None


def test_a_campaign_that_is_run_again_gives_the_same_scores_and_changes_for_one_evaluation_per_fold(made, tmp_path):
    first, _, path = made
    copy = shutil.copy(path, tmp_path / "fits.h5")

    again, _ = campaign(copy)

    assert again.sources == {"exact": len(first.folds)}
    assert {fold.cost.evaluations for fold in again.folds} == {1}
    for one, two in zip(first.folds, again.folds, strict=True):
        assert two.held_out == pytest.approx(one.held_out, rel=1e-9)
        assert two.largest_change == (one.largest_change[0], pytest.approx(one.largest_change[1], rel=1e-6))


def test_a_score_of_ones_own_is_used_and_one_that_raises_says_why(tmp_path):
    def score(fold, fitted):
        if fold.group == "site 2":
            raise ValueError("no such rows")
        return -float(fitted.result.objective) * fold.left_out.sum()

    with gamwarm.open(tmp_path / "fits.h5", engine="tests", engine_version="1") as store:
        report = folds.leave_one_out(store, GROUPS, Solver(), score=score, progress=False)

    for fold in report.folds:
        if fold.group == "site 2":
            assert (fold.held_out, fold.not_scored) == (None, "ValueError: no such rows")
        else:
            assert fold.held_out == -fold.objective * (fold.group == GROUPS).sum()
    assert report.held_out == pytest.approx(sum(fold.held_out for fold in report.folds if fold.group != "site 2"))


def test_an_engine_without_scores_has_none(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", engine="tests", engine_version="1") as store:
        report = folds.leave_one_out(store, GROUPS, Solver(), progress=False)

    assert report.held_out is None
    assert report.audit is None
    assert report.influential == ()


# -- what a fold changes ---------------------------------------------------------------------------


def test_changes_are_those_of_the_fits_themselves(made):
    report, fits, _ = made
    whole = fits[None]
    case = whole.case

    for fold in report.folds:
        fit = fits[fold.group]
        assert fold.changes.keys() == set(case.names)
        for k, name in enumerate(case.names):
            change = fold.changes[name]
            assert change.edf == pytest.approx(fit.edf[name] - whole.edf[name], abs=1e-12)
            before, after = whole.model.terms[k], fit.model.terms[k]
            table = case.bound.terms[k].table[case.bound.terms[k].table.any(axis=1)]
            old = table[:, before.kept] @ whole.model.theta[before.columns]
            new = table[:, after.kept] @ fit.model.theta[after.columns]
            block = whole.model.inverse[before.columns, before.columns]
            errors = np.sqrt(np.einsum("ij,jk,ik->i", table[:, before.kept], block, table[:, before.kept]))
            known = ~np.delete(table, after.kept, axis=1).any(axis=1)
            errors = np.maximum(errors, np.sqrt(np.mean(errors[known] ** 2)))
            assert change.curve == pytest.approx((np.abs(new - old) / errors)[known].max())
        rho = fit.result.rho - whole.result.rho
        assert [c for name in case.names for c in fold.changes[name].log_lambda] == pytest.approx(rho)


def test_the_group_that_bends_a_curve_comes_first(tmp_path):
    d = data()
    odd = d["group"] == "g02"
    d["poisson"] = np.where(odd, np.round(d["poisson"] + 6.0 * (d["x"] > 7.0)), d["poisson"])

    report, _ = campaign(tmp_path / "fits.h5", bound=model("poisson", d))

    first = report.influential[0]
    assert first.group == "g02"
    assert first.largest_change[1] > 1.5 * report.influential[1].largest_change[1]
    assert [fold.largest_change[1] for fold in report.influential] == sorted(
        (fold.largest_change[1] for fold in report.folds), reverse=True
    )


def test_a_line_that_bends_a_little_is_not_said_to_move_by_many_standard_errors_where_it_crosses_zero():
    x = np.linspace(-1.0, 1.0, 101)
    line = Curve("same", x, np.abs(0.1 * x))
    bent = Curve("same", x + 0.01 * x**2 + 0.01, np.abs(0.1 * x))

    change = changes_between({"s": TermState(2.0, (1.0,))}, {"s": TermState(2.0, (1.0,))}, {"s": line}, {"s": bent})

    assert change["s"].curve == pytest.approx(0.23, abs=0.01)


def test_contrasts_to_another_level_are_not_compared(tmp_path):
    d = data()

    report, _ = campaign(tmp_path / "fits.h5", groups=d["kind"])

    assert report["a"].changes["mean:kind"].curve is None
    assert report["b"].changes["mean:kind"].curve > 0.0
    assert report["a"].changes["mean:s(x)"].curve > 0.0
    # The level that is left out has no coefficient in the fold, so its rows cannot be scored.
    assert "has the level 'b'" in report["b"].not_scored
    assert report.held_out is None


def test_curves_over_other_values_are_not_compared(tmp_path):
    d = data()

    def fit(fold, **how):
        if fold is None:
            return engine.fit(None, **how)
        kept = {name: values[fold.rows] for name, values in d.items()}
        return engine.fit(model("poisson", kept).case(), **how)

    with gamwarm.open(tmp_path / "fits.h5", engine=engine.ENGINE, engine_version="1") as store:
        report = folds.leave_one_out(store, d["group"], fit, progress=False)

    for fold in report.folds:
        assert fold.changes["mean:s(x)"].curve is None
        assert fold.changes["mean:s(x)"].edf is not None


def test_an_engine_without_curves_still_has_degrees_of_freedom_and_smoothing(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", engine="tests", engine_version="1") as store:
        report = folds.leave_one_out(store, GROUPS, Solver(), progress=False)

    for fold in report.folds:
        for name, change in fold.changes.items():
            before, after = report.parent.terms[name], fold.terms[name]
            assert change.curve is None
            assert change.log_lambda == pytest.approx(np.subtract(after.log_lambda, before.log_lambda))
    assert any(state.log_lambda for state in report.parent.terms.values())


# -- audits ----------------------------------------------------------------------------------------


def test_audited_folds_are_fitted_cold_too_and_compared(made):
    report, _, path = made
    audited = {fold.group for fold in report.folds if fold.audit is not None}

    assert audited == audited_folds([fold.group for fold in report.folds], 0.4)
    assert len(audited) == 3
    bound = model("poisson", data())
    for fold in report.folds:
        if fold.group in audited:
            cold = engine.fit(bound.case(data()["group"] != fold.group))
            assert fold.audit.objective == cold.result.objective
            assert fold.audit.cost.hessian_formations == cold.cost.own.hessian_formations
            assert fold.audit.warm == fold.cost.own
    assert report.audit.folds == report.audit.agree == 3
    assert report.audit.cold_formations > report.audit.warm_formations > 0
    assert report.audit.worse == ()
    assert "3 of 3 audited folds agree" in str(report.audit)
    with gamwarm.open(path, "r") as store:  # the cold fits left no entry of their own
        assert len(store.keys()) == N_GROUPS + 1
        saved = store.savings().by_source["transfer"]
        assert saved.measured == 3


def test_an_audit_that_was_made_is_not_made_again(made, tmp_path, monkeypatch):
    report, _, path = made
    (tmp_path / "fits.h5").write_bytes(path.read_bytes())

    again, _ = campaign(tmp_path / "fits.h5", audit=0.4)

    assert again.sources == {"exact": N_GROUPS}
    for fold in again.folds:
        assert fold.audit == report[fold.group].audit
        if fold.audit is not None:
            assert fold.audit.warm == report[fold.group].cost.own
    assert again.audit.cold_formations == report.audit.cold_formations
    assert again.audit.warm_formations == report.audit.warm_formations


def test_folds_that_were_in_the_file_without_an_audit_are_audited_then(tmp_path):
    plain, _ = campaign(tmp_path / "fits.h5")
    assert plain.audit is None

    audited, _ = campaign(tmp_path / "fits.h5", audit=0.01)

    assert audited.audit.folds == audited.audit.agree == 1
    assert audited.audit.warm_formations == sum(
        plain[f.group].cost.own.hessian_formations for f in audited.folds if f.audit
    )


def test_an_answer_that_differs_from_the_cold_one_is_named(tmp_path):
    class Drifts(Solver):
        def solve(self, fold, fit):
            result = super().solve(fold, fit)
            return result if fit.start.source != "cold" else result_of(fit.problem, result.objective - 0.01)

    with gamwarm.open(tmp_path / "fits.h5", engine="tests", engine_version="1") as store:
        report = folds.leave_one_out(store, GROUPS, Drifts(), audit=1, progress=False)

    assert report.audit.folds == 7
    assert report.audit.agree == 0
    assert set(report.audit.worse) == set(GROUPS)
    assert "higher than cold: " in str(report.audit)


def test_an_interrupt_during_a_cold_fit_ends_the_job_at_once(tmp_path):
    after = []

    class Interrupted(Solver):
        def solve(self, fold, fit):
            if fold.group is not None and fit.start.source == "cold":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0)  # a call at which the signal is delivered
                after.append(fold.group)
            return super().solve(fold, fit)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "fits.h5", Interrupted(), audit=0.1)
    assert after == []

    report = run(tmp_path / "fits.h5", Solver(), audit=0.1)
    assert report.audit.folds == 1


class EndsAt:
    """Raises in place of the call with a given number: of the solver, ``value`` or ``progress``."""

    def __init__(self, at, error):
        self.at, self.error, self.solver = at, error, Solver()

    def step(self, *_):
        self.at -= 1
        if self.at < 0:
            raise self.error

    def fit(self, fold, **how):
        if fold is not None:
            self.step()
        return self.solver(fold, **how)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"store": None}, "store is NoneType; give what gamwarm.open"),
        ({"store": "fits.h5"}, "store is str; give what gamwarm.open"),
        ({"progress": 3}, "progress is int; give True, False or a function"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_fitted(tmp_path, arguments, words):
    solver = Solver()
    with gamwarm.open(tmp_path / "fits.h5") as store, pytest.raises(InvalidType, match=words) as refused:
        folds.leave_one_out(**({"store": store, "groups": GROUPS, "fit": solver, "progress": False} | arguments))

    assert solver.solved == []
    assert not hasattr(refused.value, "__notes__")


def test_an_error_before_anything_is_stored_has_no_advice_to_run_the_same_again(tmp_path):
    with (
        gamwarm.open(tmp_path / "fits.h5") as store,
        pytest.raises(InvalidType, match=r"fit\(\) returned NoneType") as ended,
    ):
        folds.leave_one_out(store, GROUPS, lambda fold, **how: None, progress=False)

    assert not hasattr(ended.value, "__notes__")


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("fit", KeyboardInterrupt), ("fit", SystemExit), ("value", KeyboardInterrupt), ("progress", MemoryError),
    ],
)  # fmt: skip
def test_what_ends_a_job_says_how_many_folds_are_stored_and_so_many_are_found_again(tmp_path, place, at, error, caplog):
    path, ends = tmp_path / "fits.h5", EndsAt(at, error())
    fit, options = (ends.fit, {}) if place == "fit" else (ends.solver, {place: ends.step})
    with gamwarm.open(path, engine="tests", engine_version="1") as store, pytest.raises(error) as ended:
        folds.leave_one_out(store, GROUPS, fit, **({"progress": False} | options))

    report = run(path, Solver())

    found = report.sources.get("exact", 0)
    whole = "the fit on all rows and " * (report.parent.source == "exact")
    said = f"{whole}{found} of 7 folds are stored; run the same call again to go on"
    assert ended.value.__notes__[-1] == said
    assert (said in caplog.text) == (error is SystemExit)


def test_on_ranks_at_least_the_folds_of_whole_rounds_are_counted(tmp_path):
    def rank(comm):
        ends = EndsAt(2 if comm.rank == 0 else 100, KeyboardInterrupt())
        try:
            with gamwarm.open(tmp_path / "fits.h5", comm=comm, engine="tests", engine_version="1") as store:
                folds.leave_one_out(store, GROUPS, ends.fit, progress=False)
        except BaseException as error:
            return type(error).__name__, error.__notes__[-1]

    said = "the fit on all rows and at least 2 of 7 folds are stored; run the same call again to go on"
    assert on_ranks(2, rank) == [("KeyboardInterrupt", said), ("CollectiveError", said)]


def test_a_cold_fit_without_an_answer_is_no_reason_to_fail(tmp_path):
    class NeverCold(Solver):
        def solve(self, fold, fit):
            if fold.group is not None and fit.start.source == "cold":
                raise ArithmeticError("no way in")
            return super().solve(fold, fit)

    with gamwarm.open(tmp_path / "fits.h5", engine="tests", engine_version="1") as store:
        report = folds.leave_one_out(store, GROUPS, NeverCold(), audit=0.2, progress=False)

    assert not report.unanswered
    assert {f.audit.failure for f in report.folds if f.audit} == {"ArithmeticError: no way in"}
    assert report.audit.folds == 0


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_audits_the_same_folds_and_scores_them_alike(made, tmp_path, size):
    report, _, _ = made

    for other in on_ranks(size, lambda comm: campaign(tmp_path / "fits.h5", comm=comm, audit=0.4)[0]):
        for fold in other.folds:
            one = report[fold.group]
            assert (fold.held_out, fold.changes, fold.terms, fold.record) == (
                one.held_out,
                one.changes,
                one.terms,
                one.record,
            )
            assert (fold.audit is None) == (one.audit is None)
            assert fold.audit is None or fold.audit.objective == one.audit.objective


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 1.0])
def test_the_share_is_rounded_up_and_does_not_depend_on_the_order(share):
    labels = [f"site {k}" for k in range(23)]

    chosen = audited_folds(labels, share)

    assert len(chosen) == int(np.ceil(share * 23))
    assert audited_folds(labels[::-1], share) == chosen
    assert chosen <= audited_folds(labels, min(1.0, share + 0.2))


# -- labels ----------------------------------------------------------------------------------------

ODD = ["a,b", 'c"d', "é\u202e☃", "x\ny", "tab\t", " "]


@pytest.mark.parametrize(
    "labels",
    [ODD, list(range(6)), [0.5, 1.5, 2.0, -1.0, 1e300, 7.0], np.arange("2020-01", "2020-07", dtype="datetime64[M]")],
    ids=["odd characters", "integers", "floats", "months"],
)
def test_labels_of_any_kind_are_found_in_the_file(tmp_path, labels):
    index = np.unique(data()["group"], return_inverse=True)[1]
    groups = np.array(labels)[index]

    report, _ = campaign(tmp_path / "fits.h5", groups=groups)

    assert not report.unanswered
    with gamwarm.open(tmp_path / "fits.h5", "r") as store:
        for label in labels:
            fold = report[label]
            record = store.get_record(fold.key)
            assert record.attributes["group"] == fold.group
            assert record.n_rows == (groups != label).sum()
    assert all("\n" not in line and "\u202e" not in line for line in str(report).split("\n"))


def test_two_columns_are_one_group_per_combination(tmp_path):
    d = data()
    half = np.array(["early", "late"])[(d["x"] > 5.0).astype(int)]
    kind = d["kind"]

    report, _ = campaign(tmp_path / "fits.h5", groups={"kind": kind, "half": half})

    assert {fold.group for fold in report.folds} == {f"{k}, {h}" for k in "abc" for h in ("early", "late")}
    assert report["a", "late"].n_rows == 240 - ((kind == "a") & (half == "late")).sum()
    with gamwarm.open(tmp_path / "fits.h5", "r") as store:
        assert store.get_record(report["a", "late"].key).attributes["group"] == "a, late"


def test_tables_of_groups_of_any_kind_are_the_same():
    pandas = pytest.importorskip("pandas")
    table = {"a": [1, 1, 2, 2], "b": ["x", "y", "x", "x"]}
    kept = [(fold.group, fold.rows.tolist()) for fold in folds.folds_of(table)]

    assert {group for group, _ in kept} == {"1, x", "1, y", "2, x"}
    for other in (pandas.DataFrame(table), np.array([["1", "x"], ["1", "y"], ["2", "x"], ["2", "x"]])):
        assert [(fold.group, list(fold.rows)) for fold in folds.folds_of(other)] == kept
    with pytest.raises(InvalidInput, match="rows; make them agree"):
        folds.folds_of({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(InvalidInput, match=r"column 'b' has no value at row 1"):
        folds.folds_of({"a": [1, 2], "b": ["x", None]})
    with pytest.raises(InvalidInput, match="no columns"):
        folds.folds_of({})


# -- the pinned parent -----------------------------------------------------------------------------


def pins(path):
    with gamwarm.open(path, "r") as store:
        return store.pins()


class Stops(Solver):
    """Asks at a fold what is pinned, and maybe ends the job there."""

    def __init__(self, path, raises=None):
        super().__init__()
        self.path, self.raises, self.seen = path, raises, []

    def solve(self, fold, fit):
        if fold.group is not None:
            self.seen.append(pins(self.path))
            if self.raises:
                raise self.raises
        return super().solve(fold, fit)


def run(path, solver, **options):
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        return folds.leave_one_out(store, GROUPS, solver, progress=False, **options)


def test_the_parent_is_pinned_while_folds_remain_and_released_after(tmp_path):
    path = tmp_path / "fits.h5"
    solver = Stops(path)
    report = run(path, solver)

    assert solver.seen == [{report.parent.record, report.parent.artifact}] * 7
    assert pins(path) == set()


def test_a_job_that_was_killed_leaves_it_pinned_and_the_one_that_finishes_releases_it(tmp_path):
    path = tmp_path / "fits.h5"
    with pytest.raises(KeyboardInterrupt):
        run(path, Stops(path, KeyboardInterrupt()))
    assert len(pins(path)) == 2

    report = run(path, Solver())

    assert not report.stopped
    assert pins(path) == set()


@pytest.mark.parametrize("which", ["record", "artifact"])
def test_a_pin_of_ones_own_stays(tmp_path, which):
    path = tmp_path / "fits.h5"
    first = run(path, Solver())
    own = getattr(first.parent, which)
    with gamwarm.open(path) as store:
        store.pin(own)

    run(path, Solver())
    assert pins(path) == {own}

    run(path, Solver(), parent=first.parent_id)
    assert pins(path) == {own}


def test_a_stopped_job_keeps_its_parent_pinned(tmp_path, monkeypatch):
    path = tmp_path / "fits.h5"
    asked = []

    def should_stop(store):
        asked.append(1)
        return len(asked) > 3

    with monkeypatch.context() as patch:
        patch.setattr(gamwarm.WarmStartStore, "should_stop", should_stop)
        report = run(path, Solver())

    assert report.stopped
    assert pins(path) == {report.parent.record, report.parent.artifact}


# -- wrong arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"audit": 1.5}, InvalidInput, "audit is 1.5"),
        ({"audit": -0.1}, InvalidInput, "audit"),
        ({"audit": "some"}, InvalidType, "audit"),
        ({"score": 3}, InvalidType, "score is int"),
        ({"value": "x"}, InvalidType, "value is str"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_fitted(tmp_path, wrong, kind, said):
    solver = Solver()
    with pytest.raises(kind, match=said):
        run(tmp_path / "fits.h5", solver, **wrong)
    assert solver.solved == []
