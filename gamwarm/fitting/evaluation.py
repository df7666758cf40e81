"""What the outer search needs of an engine: evaluations of its objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gamwarm.checks import FloatArray, as_bool, as_float, as_int, as_str, real_array
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.records import normalize_active_sets

__all__ = ["Evaluation", "Objective", "checked"]

# Effective degrees of freedom are a trace; its tolerance, relative to its maximum.
_EDF_ROUNDING = 1e-6


@dataclass(eq=False)
class Evaluation:
    """The outer objective at one point. What is None only weakens what needs it.

    Parameters
    ----------
    rho : array of shape (q,)
        Outer coordinates: log smoothing parameters, then nuisance coordinates.
    theta : array of shape (p,)
        Reduced coefficients of all blocks, one after the other, at the inner mode.
    value : float
        What the search minimises. Infinite, with NaN for a gradient, where the inner solve failed.
    gradient : array of shape (q,)
        d value / d rho.
    hessian : array of shape (q, q), or callable () -> array, optional
        Outer Hessian; a callable is asked at most once, and only where the search needs it. Without
        one the search is BFGS.
    edf, max_edf : arrays of shape (q,), optional
        Effective degrees of freedom per smoothing parameter and their maxima (the penalties'
        ranks); values at nuisance coordinates are not read.
    tangent : array of shape (p, q), optional
        d theta / d rho, to predict the mode at the next point.
    converged : bool, optional
        Whether the inner solve reached its tolerance, rather than running into its budget.
    cycles : int
        Inner cycles it took.
    last_step : float, or callable () -> float, optional
        Largest change of a linear predictor that one more Newton step would make; in units of the
        response's standard deviation where the predictor has the response's units. At a finite
        optimum it is tiny; where a coefficient runs to infinity it stays near 1 however small the
        gradient gets.
    last_block : str, or callable () -> str
        Name of the block that this change belongs to.
    objection : str, or callable () -> str
        Why the point is no answer although its gradient is flat, empty if it may be one; asked only
        there. So an engine says that a nuisance coordinate runs to infinity, where gradient and
        curvature vanish together.
    formations : int
        Hessian formations that the evaluation took. What a callable ``hessian`` takes is added when
        it is asked.
    active_sets : sequence of (None or row numbers), optional
        Per block, the linear inequality constraints that hold with equality at the mode, as the
        engine numbers them; kept with the record.
    kink : array of shape (k, q), optional
        Where the gradient jumps: the differences between the gradients on the sides that meet here,
        of which ``gradient`` is then the least weighted mean. The next step stays on the kink.
    failure : str
        Where ``value`` is not finite: why, naming the term.
    state : object
        The engine's own; found again in `OuterFit.evaluation`.
    """

    rho: Any
    theta: Any
    value: float
    gradient: Any
    hessian: Any = None
    edf: Any = None
    max_edf: Any = None
    tangent: Any = None
    converged: bool | None = None
    cycles: int = 0
    last_step: float | Callable[[], float] | None = None
    last_block: str | Callable[[], str] = ""
    objection: str | Callable[[], str] | None = None
    formations: int = 0
    active_sets: Any = None
    kink: Any = None
    failure: str = ""
    state: Any = None

    @property
    def is_finite(self) -> bool:
        """Whether value and gradient are numbers."""
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())

    @property
    def outer_hessian(self) -> FloatArray | None:
        """The outer Hessian, computed if need be; None if the engine has none or it is not
        finite.
        """
        if callable(self.hessian):
            self.hessian = self.hessian()
        if self.hessian is None:
            return None
        q = len(self.rho)
        matrix = real_array(self.hessian, "an evaluation's hessian", "a matrix of real numbers")
        if matrix.shape != (q, q):
            raise InvalidInput(f"an evaluation's hessian has shape {matrix.shape}; expected ({q}, {q})")
        return 0.5 * (matrix + matrix.T) if np.isfinite(matrix).all() else None

    @property
    def newton_change(self) -> float | None:
        """``last_step``, computed if need be."""
        if callable(self.last_step):
            self.last_step = as_float(self.last_step(), "an evaluation's last_step")
        return self.last_step


@runtime_checkable
class Objective(Protocol):
    """An engine's objective in outer coordinates; everything but ``evaluate`` may be left out.

    Optional members
    ----------------
    null : array of shape (p,)
        Coefficients of the null model. Default: the blocks' ``initial_beta``, or zeros.
    nuisance : array of shape (q - smoothing parameters,)
        Where nuisance coordinates begin if nothing is offered. Default: 0.
    penalized_nll(rho, theta) -> float
        What the inner solve minimises; no Hessian formation. Without it offered coefficients are
        only asked whether they are finite.
    cold_starts() -> iterable
        Starts that know nothing but the data, best first: `Evaluation`, a rho of shape (q,), or a
        pair (rho, theta). They are asked one by one, at most 64. Default: the initial rho of the
        penalties, and 4 to either side.
    alternatives(evaluation) -> iterable of (rho, theta)
        Starts where the objective should be lower than at this answer, most promising first; the
        search goes on from the first that is. Asked once per answer, but not of an exact hit.
    one_mode : bool
        Whether the inner problem has one mode at every rho, as a log-concave likelihood has. Where
        it is False, the fit's notes say that another start may lead to another answer.
    cost() -> Cost
        What the engine has counted itself; else evaluations, cycles and formations are added up
        here.
    inner_mode(evaluation) -> InnerMode
        Summary of the inner solve at the answer, kept with its record.
    offer_active_sets(active_sets)
        Called before the first evaluation at a start that has active sets, one (None or row
        numbers) per block. They are where the inner solve may begin, and may be wrong.
    group_seeds(evaluation, column) -> GroupSeeds
        What leaving each group out changes; needed where a fit is asked for ``group_seeds`` by
        column.
    """

    def evaluate(self, rho: FloatArray, theta: FloatArray, budget: int) -> Evaluation:
        """Return the objective at ``rho``: the inner solve begins at ``theta`` and takes at most
        ``budget`` cycles.

        Both arrays are copies that may be written to.
        """


def checked(at: object, p: int, smoothing: int, names: Sequence[str]) -> Evaluation:
    """Return an engine's evaluation, its arrays checked; if it is not a proper minimum, its value
    is made infinite.

    Effective degrees of freedom outside [0, maximum] say that the penalized Hessian is not safely
    positive definite there: near such a point the objective decreases without bound, so the search
    must not see it as finite.
    """
    q = len(names)
    if not isinstance(at, Evaluation):
        raise InvalidType(f"objective.evaluate returned {type(at).__name__}; return a gamwarm.Evaluation")
    for name, shape in (("rho", (q,)), ("theta", (p,)), ("gradient", (q,))):
        array = np.array(real_array(getattr(at, name), f"an evaluation's {name}", "real numbers"))
        if array.shape != shape:
            raise InvalidInput(f"an evaluation's {name} has shape {array.shape}; expected {shape}")
        setattr(at, name, array)
    at.value = as_float(at.value, "an evaluation's value")
    if not (np.isfinite(at.rho).all() and np.isfinite(at.theta).all()):
        at.value, at.gradient = np.inf, np.full(q, np.nan)
        at.failure = at.failure or "the engine returned coefficients or outer coordinates that are not finite"
    if at.converged is not None:
        at.converged = as_bool(at.converged, "an evaluation's converged")
    if not (at.last_step is None or callable(at.last_step)):
        at.last_step = as_float(at.last_step, "an evaluation's last_step")
    if not (at.objection is None or callable(at.objection)):
        at.objection = as_str(at.objection, "an evaluation's objection", empty=True)
    at.failure = as_str(at.failure, "an evaluation's failure", empty=True)
    at.active_sets = normalize_active_sets(at.active_sets)
    if at.kink is not None:
        kink = real_array(at.kink, "an evaluation's kink", "a matrix of real numbers")
        if kink.ndim != 2 or kink.shape[1] != q or not np.isfinite(kink).all():
            raise InvalidInput(f"an evaluation's kink has shape {kink.shape}; expected (k, {q}), all finite")
        at.kink = kink
    at.cycles = as_int(at.cycles, "an evaluation's cycles")
    at.formations = as_int(at.formations, "an evaluation's formations")
    if at.tangent is not None:
        tangent = real_array(at.tangent, "an evaluation's tangent", "a matrix of real numbers")
        if tangent.shape != (p, q):
            raise InvalidInput(f"an evaluation's tangent has shape {tangent.shape}; expected ({p}, {q})")
        at.tangent = tangent if np.isfinite(tangent).all() else None  # it predicts nothing
    for name in ("edf", "max_edf"):
        if getattr(at, name) is None:
            continue
        given = real_array(getattr(at, name), f"an evaluation's {name}", "real numbers")
        if given.ndim == 0 and name == "max_edf":
            given = np.full(q, given)
        if given.shape not in ((q,), (smoothing,)):
            raise InvalidInput(f"an evaluation's {name} has shape {given.shape}; expected ({q},)")
        setattr(at, name, np.concatenate([given[:smoothing], np.full(q - smoothing, np.nan)]))
    if at.is_finite and at.edf is not None:
        least = at.edf[:smoothing]
        most = np.full(smoothing, np.inf) if at.max_edf is None else at.max_edf[:smoothing]
        slack = _EDF_ROUNDING * np.where(np.isfinite(most), np.maximum(most, 1.0), 1.0)
        wrong = np.flatnonzero(~((least >= -slack) & (least <= most + slack)))
        if wrong.size:
            j = int(wrong[0])
            at.value, at.gradient = np.inf, np.full(q, np.nan)
            at.failure = (
                f"effective degrees of freedom of {names[j]!r} are {least[j]:.4g}, outside [0, {most[j]:.4g}]: the "
                "penalized Hessian is not safely positive definite, so this is not a proper minimum"
            )
    return at
