"""Metrics of the outer search: the start's own outer Hessian, or what stands in for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm.checks import FloatArray
from gamwarm.fitting.evaluation import Evaluation
from gamwarm.records import PLATEAU_EDF

__all__ = ["complete_metric", "first_metric", "usable_metric"]


def usable_metric(start: Any, q: int) -> FloatArray | None:
    """Return the outer Hessian of a start if it can serve as a metric: finite, of shape (q, q),
    made symmetric.

    Of a parent with other terms: with NaN in the rows and columns of coordinates that it does not
    have, which `complete_metric` fills.
    """
    hessian = getattr(getattr(start, "curvature", None), "hessian", None)
    known = np.ones(q, dtype=np.bool_)
    if hessian is None:
        hessian = getattr(start, "partial_hessian", None)
        if hessian is not None and np.shape(hessian) == (q, q):
            known = ~np.isnan(np.diagonal(hessian))
    if (
        hessian is None
        or np.shape(hessian) != (q, q)
        or not np.isfinite(np.asarray(hessian)[np.ix_(known, known)]).all()
    ):
        return None
    metric: FloatArray = 0.5 * (np.asarray(hessian) + np.asarray(hessian).T)
    return metric


def complete_metric(metric: FloatArray, at: Evaluation) -> FloatArray:
    """Return a metric whose unknown rows and columns are those that a search without one begins
    with.
    """
    unknown = np.isnan(np.diagonal(metric))
    if not unknown.any():
        return metric
    filled: FloatArray = np.where(unknown[:, None] | unknown, fixed_point_metric(at), metric)
    return filled


def fixed_point_metric(at: Evaluation) -> FloatArray:
    """Return the metric whose step is that of Fellner and Schall where effective degrees of freedom
    are known.

    ``lambda theta' S theta`` is about ``edf + 2 gradient``, and their step moves it to the edf.
    """
    metric = first_metric(at)
    if at.edf is None:
        return metric
    for j, (edf, gradient) in enumerate(zip(at.edf, at.gradient, strict=True)):
        ratio = 2.0 * gradient / edf if edf > PLATEAU_EDF else np.nan
        if -1.0 < ratio < np.inf:
            metric[j, j] = 0.5 * edf * (1.0 if abs(ratio) < 1e-8 else ratio / np.log1p(ratio))
    return metric


def first_metric(at: Evaluation) -> FloatArray:
    """Curvature of V in log lambda is about its gradient's size, and never far below a tenth."""
    return np.diag(np.maximum(np.abs(at.gradient), 0.1))
