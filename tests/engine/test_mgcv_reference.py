"""What mgcv 1.8-41 finds by REML on the same bases, knots and penalties; scripts/reference says how
it was asked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import gamwarm
from gamwarm.engine import fit

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reference" / "models.py"
# Per model: score, lambda and effective degrees of freedom per penalty.
MGCV = {
    "sleepstudy": (890.77592123, [np.inf, 0.25527578], [0.0, 15.892451]),
    "ChickWeight": (2777.83282544, [12.322396, 0.63160418], [1.939499, 40.595566]),
    "MathAchieve": (23195.02151782, [np.inf, 2.0886225], [0.0, 128.745685]),
    "Oxboys": (465.61777413, [95.710298, 0.010871194], [1.493647, 24.930737]),
    "Machines": (143.43910099, [0.11367267], [4.798775]),
}


def models():
    spec = importlib.util.spec_from_file_location("reference_models", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MGCV)
def test_the_engine_finds_what_mgcv_finds(name):
    score, smoothing, edf = MGCV[name]

    found = fit(models().bound(name).case(), options=gamwarm.BlockwiseFitOptions(rho_bound=25.0))

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(score, abs=1e-5)
    for rho, expected in zip(found.result.rho, smoothing, strict=True):
        assert rho > 12.0 if np.isinf(expected) else np.exp(rho) == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(found.result.curvature.edf, edf, atol=0.01)


# Score, lambda and effective degrees of freedom of gaulss, by the Hessian at its answer.
GAULSS = {
    "without Diet": (2476.31952444, [51.943317, 15932.918, 3.3566926], [2.835344, 3.506595, 2.453568]),
    "with Diet": (2467.13383985, [46.340834, 11405.252, 2.7888766], [3.009199, 5.425922, 2.546841]),
}


@pytest.mark.parametrize("name", GAULSS)
def test_a_location_scale_model_ends_where_gaulss_does(name):
    """Without Diet the first cold start leads to another answer, 2477.972, and meets the other
    branch on its way.
    """
    score, smoothing, edf = GAULSS[name]

    found = fit(models().location_scale(name).case())

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(score, abs=1e-5)
    np.testing.assert_allclose(np.exp(found.result.rho), smoothing, rtol=0.01)
    np.testing.assert_allclose(found.result.curvature.edf, edf, atol=0.01)
    said = " ".join(found.summary().split())
    assert "may have several modes" in said
    assert ("more than one answer (2476.319524 and 2477.972389)" in said) == (name == "without Diet")
