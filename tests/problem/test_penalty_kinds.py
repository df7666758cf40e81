"""What a declared kind of penalty needs besides its class; anything missing is named here."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import gamwarm
from gamwarm import FixedPenalty, Gauge, LabeledPenalty
from gamwarm.identity import check_exact_key
from gamwarm.problem import PENALTY_KINDS, PenaltyLayout, penalties
from tests.support.declared import DOCS, public_classes
from tests.support.problems import PENALTY_FIELDS, block, fit_problem
from tests.support.stores import result_of


def test_every_class_of_a_penalty_is_a_kind_with_a_tag():
    assert public_classes(penalties) - {penalties.Penalty} == set(PENALTY_KINDS)
    assert len({tag for tag, _ in PENALTY_KINDS.values()}) == len(PENALTY_KINDS)
    with pytest.raises(TypeError, match=r"Twin.*'dense'"):
        type("Twin", (penalties.DensePenalty,), {}, tag="dense")


@pytest.mark.parametrize("kind", PENALTY_KINDS)
def test_a_penalty_kind_is_public_and_described(kind):
    assert getattr(gamwarm, kind.__name__) is kind
    assert kind.__name__ in gamwarm.__all__
    assert "Parameters\n" in inspect.getdoc(kind)
    assert f"| `{kind.__name__}(" in (DOCS / "concepts.md").read_text()


@pytest.mark.parametrize("kind", PENALTY_KINDS)
def test_a_penalty_kind_has_coordinates_a_key_and_a_way_through_gauge_and_file_to_a_related_fit(kind, tmp_path):
    def described(rows):
        spec = block("mean", 4, rows, penalties=[kind(**PENALTY_FIELDS[kind][0])], raw_width=5)
        return fit_problem([spec], Gauge.from_blocks([np.eye(5)[:, :4]]))

    full, fold = described(30), described(24)
    q = 0 if kind is FixedPenalty else 1

    assert check_exact_key(full.key) != fold.key
    assert kind(**PENALTY_FIELDS[kind][0]).to_dense().shape == (4, 4)
    assert full.layout.n_outer == q
    assert PenaltyLayout.from_specs([block("twice", 4, penalties=[kind(**PENALTY_FIELDS[kind][0])] * 2)]).n_outer == (
        1 if kind is LabeledPenalty else 2 * q
    )
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        kept = store.keep(full, result_of(full))
        assert (kept.record.written, kept.artifact.written) == (True, True)
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        exact, transferred = store.start_for(full), store.start_for(fold)
        assert (exact.source, transferred.source) == ("exact", "transfer")
        assert exact.start.rho.tolist() == transferred.start.rho.tolist() == [0.5] * q
        assert store.verify().ok
