"""What penalties, ties, fixed values and projections look like to a reader with plain h5py."""

from __future__ import annotations

import json

import h5py
import numpy as np

import gamwarm
from gamwarm.engine import fit
from tests.engine.test_tensor import raw_columns, splines
from tests.support.models import TIGHT, columns, several


def stored(path, bound):
    """Fit a model into a file and read record and artifact as the format page describes them."""
    with gamwarm.open(path) as store:
        found = fit(bound.case(), options=TIGHT, store=store)
    with h5py.File(path) as file:
        (record,) = (each.attrs for each in file["block_records"].values())
        ((artifact,),) = ([each.attrs for each in key.values()] for key in file["fit_artifacts"].values())
        record, artifact = ({**each, "meta": json.loads(each["meta"])} for each in (record, artifact))
    ends = np.cumsum([term["raw_width"] for term in artifact["meta"]["terms"]])[:-1]
    names = [term["name"] for term in artifact["meta"]["terms"]]
    return found, record, artifact, dict(zip(names, np.split(artifact["beta"], ends), strict=True))


def log_lambdas(record):
    return record["inner"][-record["meta"]["inner"]["log_lambdas"] :]


def test_kronecker_blockwise_and_fixed_penalties_are_named(path):
    _, record, _, _ = stored(path, several("surface"))

    assert record["meta"]["penalty_forms"] == [[], ["kron 6 x 5", "kron 6 x 5", "fixed 0.0: blockwise 29:30"]]
    assert record["meta"]["penalties"] == [0, 3]
    np.testing.assert_array_equal(log_lambdas(record), [*record["rho"], 0.0])


def test_a_second_penalty_names_the_coefficients_that_it_covers(path):
    _, record, artifact, _ = stored(path, several("select"))

    assert record["meta"]["penalty_forms"][1] == ["dense", "blockwise 6:7"]
    assert [term["n_rho"] for term in artifact["meta"]["terms"]] == [0, 2, 2]


def test_tied_penalties_name_their_label_and_one_coordinate(path):
    _, record, artifact, _ = stored(path, several("tied"))

    tied = ["labeled mean:s(x):kind: dense", "labeled mean:s(x):kind:null space: blockwise 6:7"]
    assert record["meta"]["penalty_forms"] == [[], [], tied, tied, tied]
    assert len(record["rho"]) == 2
    np.testing.assert_array_equal(log_lambdas(record), np.tile(record["rho"], 3))
    assert [term["rho_slots"] for term in artifact["meta"]["terms"]] == [[], [], [0, 1], [0, 1], [0, 1]]


def test_a_fixed_value_is_in_its_name_and_among_the_log_lambdas(path):
    _, record, artifact, _ = stored(path, several("fixed"))

    assert record["meta"]["penalty_forms"][1] == ["fixed 2.0: dense"]
    np.testing.assert_array_equal(log_lambdas(record), [2.0, *record["rho"]])
    assert [term["n_rho"] for term in artifact["meta"]["terms"]] == [0, 0, 1]


def test_raw_coefficients_make_the_function_by_plain_splines_through_an_off_diagonal_gauge(path):
    data = columns()
    bound = several("interaction", data=data)
    found, record, artifact, raw = stored(path, bound)

    eta = raw["mean:intercept"] + data["exposure"] + raw_columns(data) @ raw["mean:te(x,u)"]
    eta += splines(data["x"], 8) @ raw["mean:s(x)"] + splines(data["u"], 6) @ raw["mean:s(u)"]

    np.testing.assert_allclose(eta, found.fitted["mean"], atol=1e-10)
    # Block by block the reduced coefficients do not give the main effects' raw ones.
    theta = np.split(record["beta"], np.cumsum(record["meta"]["widths"])[:-1])
    assert np.abs(bound.terms[1].lift @ theta[1] - raw["mean:s(x)"]).max() > 1e-3
    gauge = bound.case().problem(TIGHT).gauge
    np.testing.assert_allclose(gauge.lift @ record["beta"], artifact["beta"], atol=1e-12)


def test_a_record_of_dense_penalties_alone_does_not_name_them(path):
    _, record, _, _ = stored(path, several("by"))

    assert "penalty_forms" not in record["meta"]
    assert record["meta"]["penalties"] == [0, 0, 1, 1, 1]
