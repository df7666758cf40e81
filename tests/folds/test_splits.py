"""Which rows a fold keeps, and the order in which folds are dealt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm import InvalidInput
from gamwarm.folds import folds_of
from gamwarm.folds.splits import all_rows


@given(st.lists(st.integers(-3, 6), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) > 1))
def test_every_group_is_left_out_once_and_all_other_rows_stay(labels):
    folds = folds_of(labels)

    assert sorted(f.group for f in folds) == sorted({str(label) for label in labels})
    for fold in folds:
        assert np.array_equal(fold.rows, [str(label) != fold.group for label in labels])
        assert np.array_equal(fold.left_out, ~fold.rows)
        assert fold.n_rows == fold.rows.sum()
    sizes = [f.n_rows for f in folds]
    assert sizes == sorted(sizes, reverse=True)


@given(st.permutations(["a"] * 3 + ["b"] * 3 + ["c"]))
def test_the_order_of_folds_does_not_depend_on_the_order_of_rows(labels):
    assert [f.group for f in folds_of(labels)] == ["c", "a", "b"]


def test_labels_may_be_text_numbers_or_dates():
    assert [f.group for f in folds_of(np.array(["x", "x", "y"]))] == ["y", "x"]
    assert [f.group for f in folds_of(np.array(["u", "u", "w"], dtype=object))] == ["w", "u"]
    assert [f.group for f in folds_of([True, True, False])] == ["False", "True"]
    assert [f.group for f in folds_of([2.5, 2.5, 1.0])] == ["1.0", "2.5"]
    dates = np.array(["2013-01-01", "2013-01-01", "2013-02-01"], dtype="datetime64[D]")
    assert [f.group for f in folds_of(dates)] == ["2013-02-01", "2013-01-01"]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([["a", "b"]], "shape"),
        (["a", "a"], "two or more"),
        ([], "two or more"),
        ([1.0, np.nan], r"groups has no value at row 1 \(nan\)"),
        (np.array(["a", None], dtype=object), r"no value at row 1 \(None\); drop"),
        (np.array(["2013-01-01", "NaT"], dtype="datetime64[D]"), "no value at row 1"),
        (np.array([1, "a"], dtype=object), "convert it to strings"),
        (np.array([1, 1.5, "1"], dtype=object), "convert it to strings"),
    ],
)
def test_a_column_that_names_no_groups_is_refused(groups, words):
    with pytest.raises(InvalidInput, match=words):
        folds_of(groups)


def test_the_labels_of_a_fold_are_those_that_a_campaign_gives_its_entries():
    first, *_ = folds_of(["b", "a", "a"])

    assert first.attributes == {"group": "b"}
    assert all_rows(["b", "a", "a"]).attributes == {}
