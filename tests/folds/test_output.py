"""A campaign's report as text, rows, a data frame, JSON and a picture."""

from __future__ import annotations

import builtins
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import MissingDependency, engine, folds
from tests.support.campaigns import GROUPS, Solver
from tests.support.models import columns, model

HEAD = ["left out", "rows", "start", "evals", "Hessians", "objective", "held out", "change", "entry"]
LABELS = ["a,b", "x\ny", "<b>&", "$x_1$", "a name that is much longer than the names of the others", "é\u202e"]


def run(path, fit, groups, **options):
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        return folds.leave_one_out(store, groups, fit, progress=False, **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data = columns(n=240, groups=6)
    bound = model("poisson", data)
    groups = np.array(LABELS, dtype=object)[np.unique(data["group"], return_inverse=True)[1]]

    def fit(fold, **how):
        if fold is not None and fold.group == "x\ny":
            raise ArithmeticError("no maximum here")
        return engine.fit(None if fold is None else bound.case(fold.rows), **how)

    return run(tmp_path_factory.mktemp("output") / "fits.h5", fit, groups, audit=0.3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain") / "fits.h5", Solver(), GROUPS)


def test_the_text_has_a_line_per_fold_then_what_they_say_together(report):
    table, lines = report.table().split("\n"), str(report).split("\n")

    assert lines[: len(table)] == table
    assert table[0].split() == [
        "left",
        "out",
        "rows",
        "start",
        "evals",
        "Hessians",
        "objective",
        "held",
        "out",
        "change",
        "entry",
    ]
    assert len(table) == 8
    below = lines[8:]
    assert max(map(len, below)) <= 80
    assert below[0].startswith("6 folds: ")
    assert f"held out {report.held_out:.8g} (5 of them)" in " ".join(below)
    first = report.influential[0]
    assert f"{first.largest_change[0]} by {first.largest_change[1]:.2g}" in " ".join(" ".join(below).split())
    assert "2 of 2 audited folds agree" in " ".join(below)
    assert any(line.startswith("no answer without x") and "no maximum here" in line for line in below)
    assert not any("\u202e" in line or "\r" in line for line in lines)


def test_a_notebook_shows_a_row_per_fold_with_labels_escaped(report):
    page = report._repr_html_()

    assert sum(fold.record is not None and fold.record[:12] in page for fold in report.folds) == 5
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert f"held out {report.held_out:.8g}" in page


def test_columns_that_no_fold_has_are_left_out(plain):
    head = plain.table().split("\n")[0]

    assert "held out" not in head
    assert "change" not in head
    assert "site 6" in plain.table()


def test_rows_and_frames_hold_what_the_outcomes_say(report):
    pandas = pytest.importorskip("pandas")
    rows = report.records()

    assert [row["group"] for row in rows] == [fold.group for fold in report.folds]
    for row, fold in zip(rows, report.folds, strict=True):
        assert (row["objective"], row["held_out"], row["record"]) == (fold.objective, fold.held_out, fold.record)
        assert row["failure"] == fold.failure
        if fold.largest_change:
            assert (row["changed_term"], row["change"]) == fold.largest_change
    made = report.to_frame()
    assert isinstance(made, pandas.DataFrame)
    assert made["group"].tolist() == [fold.group for fold in report.folds]
    assert made["held_out"].sum() == pytest.approx(report.held_out)
    terms = report.to_frame(terms=True)
    assert len(terms) == 5 * 5
    largest = terms.groupby("group")["curve_change"].max()
    assert largest[report.influential[0].group] == report.influential[0].largest_change[1]


def test_json_is_read_back_with_every_number_whatever_the_labels(report):
    told = json.loads(report.to_json())

    assert [fold["group"] for fold in told["folds"]] == [fold.group for fold in report.folds]
    assert told["held_out"] == report.held_out
    assert told["unanswered"] == ["x\ny"]
    assert told["influential"] == [fold.group for fold in report.influential]
    assert told["audit"]["agree"] == 2
    for fold in report.folds:
        (row,) = (row for row in told["folds"] if row["group"] == fold.group)
        assert {term["term"]: term["curve_change"] for term in row["terms"]} == {
            name: change.curve for name, change in fold.changes.items()
        }


def test_what_is_no_finite_number_is_null_in_json(tmp_path):
    report = run(tmp_path / "fits.h5", Solver(), GROUPS, score=lambda fold, fitted: -math.inf)

    told = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    assert report.held_out == -math.inf
    assert told["held_out"] is None


def test_the_picture_has_a_bar_per_fold_and_is_saved(report, plain, tmp_path):
    pytest.importorskip("matplotlib")

    figure = report.plot(tmp_path / "folds.png")

    assert (tmp_path / "folds.png").read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [fold.largest_change[1] for fold in report.influential]
    scores = [fold.held_out / fold.n_left_out for fold in report.influential]
    assert [bar.get_width() for bar in right.patches] == pytest.approx(scores)
    assert len(plain.plot().axes) == 1
    plain.plot(tmp_path / "plain.svg")


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_frame"), ("matplotlib", "plot")])
def test_a_library_that_is_absent_is_named_with_what_to_do(report, monkeypatch, module, call):
    found = builtins.__import__

    def absent(name, *rest, **more):
        if name.partition(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return found(name, *rest, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("gamwarm.folds.output.import_module", lambda name: absent(name))

    with pytest.raises(MissingDependency, match=f"{call} needs {module}.*install it, or use"):
        getattr(report, call)()


def test_an_engine_that_counts_evaluations_alone_has_no_column_of_formations(tmp_path):
    class Counts(Solver):
        def solve(self, fold, fit):
            return replace(super().solve(fold, fit), cost=gamwarm.Cost(6, seconds=0.5))

    report = run(tmp_path / "fits.h5", Counts(), GROUPS)

    assert "Hessians" not in report.table()
    assert report.summary().startswith("7 folds: 42 evaluations, 3.5 s")
    assert report.plot().axes[0].get_xlabel() != "Hessian formations"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "stopped; 1 fold remains (g0); run the same call again to go on"),
        (3, "stopped; 3 folds remain (g0, g1, g2); run the same call again to go on"),
        (
            300,
            "stopped; 300 folds remain (g0, g1, g2, g3, g4, g5, g6, g7 and 292 more); run the same call again to go on",
        ),
    ],
)
def test_a_stopped_campaign_says_what_to_do_and_names_some_of_what_remains(count, said):
    report = folds.FoldsReport(None, None, (), tuple(f"g{k}" for k in range(count)))

    assert " ".join(report.summary().split()) == said
