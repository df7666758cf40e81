"""Data for mgcv, plain calls of it, and its adapter as the neutrality check sees it."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from shutil import which
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.testing import Fitted

__all__ = ["HAS_MGCV", "Folds", "frame", "plain_gam"]

FloatArray = npt.NDArray[np.float64]


def _has_mgcv() -> bool:
    """Ask without starting R in this process, which may run no test of it."""
    rscript = which("Rscript")
    if rscript is None or find_spec("rpy2") is None:
        return False
    asked = [rscript, "-e", 'stopifnot(requireNamespace("mgcv", quietly = TRUE))']
    return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0


HAS_MGCV = _has_mgcv()

PLAIN = """function(texts, data, family, weights, offset) {
  suppressPackageStartupMessages(library(mgcv))
  f <- lapply(texts, as.formula)
  if (length(f) == 1) f <- f[[1]]
  call <- quote(gam(f, family = eval(parse(text = family)), data = data, method = "REML",
                    control = list(scalePenalty = FALSE)))
  if (weights) call$weights <- quote(w)
  if (offset) call$offset <- quote(o)
  m <- suppressWarnings(eval(call))
  list(objective = m$gcv.ubre, sp = m$sp, fitted = m$fitted.values, coefficients = m$coefficients,
       iterations = m$outer.info$iter)
}"""


def plain_gam(
    formula: str | list[str], data: Any, family: str = "gaussian", *, weights: bool = False, offset: bool = False
) -> dict[str, Any]:
    """Return what mgcv's own gam() finds, in a session without the adapter's functions."""
    from gamwarm.adapters.mgcv.data import data_frame
    from gamwarm.adapters.mgcv.session import plain, session, wrapped

    function = session().rinterface.evalr(PLAIN)
    texts = [formula] if isinstance(formula, str) else formula
    r = data_frame({name: data[name] for name in data}, {}, ()).r
    out: dict[str, Any] = plain(function(wrapped(texts), r, *(wrapped(each) for each in (family, weights, offset))))
    return out


def frame(n: int = 240, seed: int = 1) -> dict[str, Any]:
    """Return a small data set: smooth effects of ``x`` and ``z``, groups ``f``, responses of many
    kinds.
    """
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(size=n), rng.uniform(size=n)
    f = rng.choice(list("abcdefgh"), n)
    eta = np.sin(6.0 * x) + z + 0.3 * np.array(["abcdefgh".index(each) - 3 for each in f])
    return {
        "x": x,
        "z": z,
        "f": f,
        "w": rng.uniform(0.5, 2.0, n),
        "o": rng.uniform(0.0, 0.3, n),
        "y": eta + rng.normal(size=n) * 0.3,
        "count": rng.poisson(np.exp(eta)),
        "event": (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(int),
        "positive": rng.gamma(2.0, np.exp(eta)),
        "overdispersed": rng.negative_binomial(2, 1.0 / (1.0 + np.exp(eta) / 2.0)),
        "time": rng.exponential(np.exp(-eta)),
    }


class Folds:
    """A smooth, a tensor product and a random effect; the cases leave out a tenth of the rows."""

    formula = "y ~ s(x, bs='cr', k=8) + ti(x, z, k=4) + s(f, bs='re')"

    def __init__(self) -> None:
        self.cases = [None, 3, 7]

    def data(self, case: int | None) -> dict[str, Any]:
        whole = frame(150)
        keep = np.arange(150) % 10 != (-1 if case is None else case)
        return {name: np.asarray(column)[keep] for name, column in whole.items()}

    def fit(self, case: int | None, store: Any) -> Fitted:
        from gamwarm.adapters.mgcv import gam

        knots = {"x": np.linspace(0.0, 1.0, 8)}
        found = gam("y ~ s(x, bs='cr', k=8) + s(f, bs='re')", self.data(case), store=store, knots=knots)
        return Fitted(found.result, found.fitted)
