"""How bound terms evaluate themselves at new values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gamwarm import InvalidInput, InvalidType
from gamwarm.engine import Bound, Gaussian, Intercept, RandomEffect, bind
from gamwarm.engine.source import Source
from tests.support.models import columns, model

BOUND: dict[str, Bound] = {name: model(name) for name in ("gaussian", "poisson", "binomial")}
"""Between them these have every kind of term."""
TERMS = [pytest.param(name, k, id=f"{name}-{t.name}") for name, b in BOUND.items() for k, t in enumerate(b.terms)]


@pytest.mark.parametrize(("name", "k"), TERMS)
def test_a_term_evaluated_at_its_own_values_is_its_table_bit_for_bit_also_after_pickling(name, k):
    bound = BOUND[name]
    term = bound.terms[k]

    group, table = pickle.loads(pickle.dumps(term.new_rows)).table(bound.source)

    assert group == term.group
    assert np.array_equal(table, term.table)


@pytest.mark.parametrize(("name", "k"), TERMS)
def test_what_evaluates_a_term_holds_no_column_of_the_data(name, k):
    small, large = model(name, columns(400)), model(name, columns(4000))

    one, other = (len(pickle.dumps(bound.terms[k].new_rows)) for bound in (small, large))

    assert other < one + 64


@pytest.mark.parametrize(("name", "k"), TERMS)
def test_any_rows_in_any_order_have_the_same_values_as_among_the_fitted_rows(name, k):
    bound = BOUND[name]
    term = bound.terms[k]
    order = np.random.default_rng(3).permutation(bound.n)[:50]
    new = Source({name: np.asarray(values)[order] for name, values in columns().items()})
    new.numbers("z", "the test")  # an intercept has no column of its own

    group, table = term.new_rows.table(new)

    expected = term.table[bound.source.groups[term.group].index[order]]
    assert np.array_equal(table[new.groups[group].index], expected)


def test_values_outside_the_knots_are_refused_with_column_row_and_next_step():
    smooth = next(term for term in BOUND["poisson"].terms if term.name == "mean:s(x)")

    with pytest.raises(InvalidInput, match=r"column 'x' holds 12\.5 at row 2 \(2 such rows\).*\[0, 10\].*leave such"):
        smooth.new_rows.table(Source({"x": [1.0, 2.0, 12.5, -3.0, 4.0]}))


def test_an_unseen_level_of_a_factor_is_refused_and_that_of_a_random_effect_is_at_its_prior_mean():
    terms = {term.name: term for term in BOUND["binomial"].terms}
    effects = {term.name: term for term in BOUND["poisson"].terms}

    with pytest.raises(InvalidInput, match=r"column 'kind' has the level 'd' at row 1.*it had a, b, c.*RandomEffect"):
        terms["mean:kind"].new_rows.table(Source({"kind": ["a", "d"]}))
    new = Source({"group": ["g03", "new"]})
    _, table = effects["mean:re(group)"].new_rows.table(new)
    assert table.sum(axis=1).tolist() == [1.0, 0.0]
    assert effects["mean:re(group)"].new_rows.at_prior(new).tolist() == [False, True]


def test_a_level_that_a_fold_has_no_rows_of_is_unseen_there():
    data = columns()
    for name, term_name, level in (("binomial", "mean:kind", "a"), ("poisson", "mean:re(group)", "g03")):
        bound = BOUND[name]
        term = next(term for term in bound.terms if term.name == term_name)
        group = bound.source.groups[term.group]
        column = term_name.split("(")[-1].rstrip(")").split(":")[-1]
        left = data[column] != level
        rows = term.new_rows.of_case(np.bincount(group.index[left], minlength=group.size))
        if name == "binomial":
            with pytest.raises(InvalidInput, match="had b, c"):
                rows.table(Source({column: [level]}))
        else:
            assert rows.at_prior(Source({column: [level, "g04"]})).tolist() == [True, False]


@pytest.mark.parametrize("levels", [[3, 1, 2], [3.0, 1.0, 2.0], ["c", "a", "b"], [True, False, True]])
def test_levels_are_known_by_value_in_whatever_form_numbers_come(levels):
    data = {"g": levels * 4, "y": np.arange(12.0)}
    term = bind(data, [Intercept(), RandomEffect("g")], Gaussian("y")).terms[1]
    forms = [levels, np.array(levels), np.array(levels, dtype=object)]
    if not isinstance(levels[0], str):
        forms += [np.array(levels, dtype=float), np.array(levels, dtype=int)]

    for form in forms:
        assert not term.new_rows.at_prior(Source({"g": form})).any()

    wrong = [1.0] if isinstance(levels[0], str) else [str(levels[0])]
    with pytest.raises(InvalidType, match=r"column 'g' holds (float|str) values.*convert it"):
        term.new_rows.table(Source({"g": wrong}))


def test_dates_are_levels_in_any_unit():
    days = np.array(["2013-01-01", "2013-01-02", "2013-01-03"], dtype="datetime64[D]")
    data = {"day": np.tile(days, 3), "y": np.arange(9.0)}
    term = bind(data, [Intercept(), RandomEffect("day")], Gaussian("y")).terms[1]

    assert term.new_rows.at_prior(Source({"day": days[:2].astype("datetime64[ns]")})).tolist() == [False, False]
