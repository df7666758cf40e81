"""What mgcv 1.8-41 finds with several, tied and fixed penalties; scripts/reference says how it was
asked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gamwarm.engine import fit

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reference" / "several.py"
# Per model: the factor of each penalty of raw coefficients, the smooths' effective degrees of
# freedom, and the first fitted linear predictors.
MGCV = {
    "te": (
        [0.033195204, 0.020937756, 1.0, 6.1456701],  # the third is that of a coefficient that is 0
        [15.904826, 20.750854],
        [30.5518730, 31.9389186, 33.2436869, 31.2807800],
    ),
    "select": ([11.078632, 0.74042254], [3.209436], [-1.2867878, -0.8672916, 0.1315748, -0.1660614]),
    "by": (
        [1.4059524, 1.1556129, 0.70212741, 2.2464982],
        [2.398835, 2.570832, 2.729629, 2.506639],
        [-1.2575053, -0.8262196, 0.2936369, -0.1214190],
    ),
    "tied": (
        [1.2756364] * 4,
        [2.445388, 2.520687, 2.434717, 2.795298],
        [-1.2864850, -0.8216862, 0.2781254, -0.1042010],
    ),
    "fixed": ([7.3890561, 1.0566555], [2.623865, 83.939153], [-0.6049436, -0.6049436, -0.4022631, 0.2105676]),
}
PROJECTED = (664.49589271, [0.32596178, 0.94648685, 26.948715, 21.503421, 6.1630205])
PROJECTED_ETA = [30.8243057, 32.1035259, 33.3592280, 31.4731608]


def models():
    spec = importlib.util.spec_from_file_location("reference_several", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MGCV)
def test_the_engine_finds_what_mgcvs_own_terms_find(name):
    factors, edf, eta = MGCV[name]
    bound = models().bound(name)
    case = bound.case()

    found = fit(case)

    assert found.converged, found.reason
    logs = case.problem().layout.expand(found.result.rho)
    scales = [penalty.scale for term in bound.terms for penalty in term.penalties]
    np.testing.assert_allclose(np.exp(logs) * scales, factors, rtol=1e-4)
    penalised = [term.name for term in bound.terms if term.penalties]
    np.testing.assert_allclose([found.edf[term] for term in penalised], edf, atol=2e-4)
    np.testing.assert_allclose(found.fitted["mean"][:4], eta, atol=3e-5)


def test_the_engine_finds_what_mgcv_finds_with_the_columns_and_penalties_of_a_projected_surface():
    score, smoothing = PROJECTED

    found = fit(models().bound("projected").case())

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(score, abs=1e-6)
    np.testing.assert_allclose(np.exp(found.result.rho), smoothing, rtol=1e-4)
    np.testing.assert_allclose(found.fitted["mean"][:4], PROJECTED_ETA, atol=1e-6)
