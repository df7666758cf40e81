"""What mgcv 1.8-41 finds by REML for nb() and Gamma(link = log) on the same designs and penalties;
scripts/reference/nuisance.R says how it was asked.

Its Gamma score has the full likelihood too, by the saturated likelihood of each row, and the same
value; only its lambda is relative to the dispersion, and its prior weights divide the dispersion,
where they multiply a row's log-likelihood here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import gamwarm
from gamwarm.engine import fit

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reference" / "nuisance.py"
# Per model: score, lambda and effective degrees of freedom per penalty, log theta or log
# dispersion.
MGCV = {
    "ChickWeight": (2502.44170023, [208.10025, 6.3852676], [2.587120, 41.904757], -3.71266090),
    "epil": (629.79065688, [129.20523, 8.9420733], [0.895172, 39.662695], 1.97157944),
    "grouseticks": (908.10489416, [np.inf, 4.5802728], [0.0, 44.059215], 0.70608845),
}


def models():
    spec = importlib.util.spec_from_file_location("reference_nuisance", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MGCV)
def test_the_engine_finds_what_mgcv_finds(name):
    score, smoothing, edf, nuisance = MGCV[name]

    found = fit(models().bound(name).case(), options=gamwarm.BlockwiseFitOptions(rho_bound=25.0))

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(score, abs=1e-5)
    assert found.result.rho[-1] == pytest.approx(nuisance, abs=1e-5)
    for rho, expected in zip(found.result.rho, smoothing, strict=False):
        assert rho > 12.0 if np.isinf(expected) else np.exp(rho) == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(found.result.curvature.edf[:-1], edf, atol=1e-3)
