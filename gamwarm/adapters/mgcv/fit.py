"""gam() as users call it, and the fit that it returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from gamwarm.adapters.mgcv.data import chosen_rows, columns_named, data_frame
from gamwarm.adapters.mgcv.model import Basis, Call, Model
from gamwarm.adapters.mgcv.running import Run
from gamwarm.adapters.mgcv.session import entries, plain, session
from gamwarm.checks import FloatArray, as_bool, as_finite_float
from gamwarm.columns import columns_of
from gamwarm.display import NotebookTable, few
from gamwarm.errors import FitFailed, InvalidInput, InvalidType, UnsupportedOption
from gamwarm.store import FitStore, KeepOutcome, refuse_without_store

__all__ = ["GamFit", "fold_fit", "gam"]

_OUR_CONTROL = ("scalePenalty", "nthreads", "trace", "keepData")


def gam(
    formula: str | Sequence[str],
    data: Any,
    family: str = "gaussian",
    *,
    store: FitStore | None = None,
    like: GamFit | str | KeepOutcome | None = None,
    weights: Any = None,
    offset: Any = None,
    knots: Mapping[str, Any] | None = None,
    method: str = "REML",
    select: bool = False,
    gamma: float = 1.0,
    control: Mapping[str, Any] | None = None,
    attributes: Mapping[str, str | int | float] | None = None,
    leave_out: Any = None,
    each: bool = False,
) -> GamFit:
    """Fit a model with mgcv's ``gam()``, begun at what ``store`` knows of it or of its relatives.

    mgcv does the fitting; what it says is the answer. The store only chooses where its search
    begins: a fit that is stored is evaluated once; another data set (a fold) begins near its
    parent's answer.

    Parameters
    ----------
    formula : str, or sequence of str
        As in R; one per linear predictor for families such as ``gaulss``. Bases must not depend on
        the data: ``bs='cr'``, ``'cs'``, ``'cc'``, ``'ps'``, ``'cp'``, ``'bs'``, ``'re'``; ``te()``
        and ``ti()`` of them. mgcv's default for ``s()``, ``'tp'``, is refused.
    data : data frame or mapping of str to columns
        Text and categories become factors. Rows with missing values are left out, as R does.
    family : str
        As in R: ``"binomial"``, ``"nb()"``, ``"Gamma(link=log)"``, ``"gaulss()"``.
    store : FitStore, optional
        None: nothing is looked up or stored.
    like : GamFit, str or KeepOutcome, optional
        The fit to start from. A `GamFit` also gives its knots and factor levels, so that
        coefficients and smoothing parameters mean the same: give folds the fit of all rows. An
        entry id, or what keeping returned, names the parent only. Default: the store's choice.
    weights, offset : str or array of shape (n,), optional
        A column of the data or its values.
    knots : mapping of str to arrays, optional
        As mgcv takes them, by variable.
    method : {"REML"}
        Other criteria are refused.
    select : bool
    gamma : float
    control : mapping, optional
        Entries of ``gam.control()``, such as ``{"newton": {"conv.tol": 1e-8}}``. ``scalePenalty``
        is FALSE, so that smoothing parameters of folds are in the same units.
    attributes : mapping of str to strings and numbers, optional
        Labels, kept with record and artifact.
    leave_out : optional
        The group that this fit leaves out; see `WarmStartStore.fit`.
    each : bool
        One fit per rank; see `WarmStartStore.fit`.

    Returns
    -------
    GamFit

    Raises
    ------
    MissingDependency
        There is no R, no mgcv or no rpy2.
    UnsupportedOption
        A basis that depends on the data, a criterion other than REML, a family without derivatives;
        the message says what to use instead.
    InvalidInput, InvalidType
        Naming the argument or column.
    FitFailed
        mgcv's own error.
    """
    call = _call(formula, family, weights, offset, knots, method, select, gamma, control)
    if store is not None and not callable(getattr(store, "fit", None)):
        raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned, or None")
    parent, basis = _parent(like)
    if store is None:
        refuse_without_store(like=None if isinstance(like, GamFit) else like, leave_out=leave_out, each=each)
    return _fit(call.model(data, basis), store, parent, leave_out, attributes, each=each)


def _fit(
    model: Model,
    store: FitStore | None,
    parent: Any,
    leave_out: Any,
    attributes: Mapping[str, str | int | float] | None = None,
    *,
    each: bool,
) -> GamFit:
    going: Any = nullcontext(None)
    if store is not None:
        going = store.fit(model.problem, parent, leave_out, attributes, each=each)
    with going as handle:
        run = Run(model, handle)
        run.fit()
        result = run.result()
        if handle is None and attributes is not None:
            result = replace(result, attributes=attributes)
        kept = None if handle is None else handle.keep(result)
    return GamFit(model, run, result, kept)


def fold_fit(formula: str | Sequence[str], data: Any, family: str = "gaussian", **arguments: Any) -> Any:
    """Return the ``fit`` of `gamwarm.folds.leave_one_out` for a model of mgcv.

    Every fold has the knots and factor levels of all rows.

    Parameters
    ----------
    formula, data, family
        As `gam` takes them; all rows.
    **arguments
        ``knots``, ``select``, ``gamma``, ``control``, and ``weights`` and ``offset`` as names of
        columns, as `gam` takes them.

    Returns
    -------
    callable
        What it returns for a fold is a `GamFit`.
    """
    for name in ("weights", "offset"):
        if not isinstance(arguments.get(name), (str, type(None))):
            raise InvalidType(f"{name} is {type(arguments[name]).__name__}; put it in data and give its column's name")
    unknown = sorted(set(arguments) - {"weights", "offset", "knots", "method", "select", "gamma", "control"})
    if unknown:
        raise InvalidType(f"fold_fit takes no {unknown[0]!r}; leave_one_out sets what belongs to one fold")
    defaults = {"weights": None, "offset": None, "knots": None, "method": "REML", "select": False, "gamma": 1.0}
    call = _call(formula, family, **{**defaults, "control": None, **arguments})
    columns = columns_of(data)
    basis = call.model(data, Basis()).basis

    def fit(fold: Any, /, *, store: Any, parent: Any, leave_out: Any, each: bool) -> Any:
        if fold is None:
            with store.fit(None, parent, leave_out, each=each) as going:
                kept = going.keep(None)
            return SimpleNamespace(result=None, start=going.start, kept=kept)
        rows = np.asarray(fold.rows)
        kept_rows = {name: chosen_rows(column, rows) for name, column in columns.items()}
        return _fit(call.model(kept_rows, basis), store, parent, leave_out, each=each)

    return fit


def _call(
    formula: Any, family: Any, weights: Any, offset: Any, knots: Any, method: Any, select: Any, gamma: Any, control: Any
) -> Call:
    texts = [formula] if isinstance(formula, str) else list(formula) if isinstance(formula, (list, tuple)) else []
    if not texts or not all(isinstance(text, str) and "~" in text for text in texts):
        raise InvalidType(
            f"formula is {formula!r}; give an R formula as text, such as \"y ~ s(x, bs='cr')\", or a list"
        )
    if not isinstance(family, str):
        raise InvalidType(f'family is {type(family).__name__}; give it as in R, as text, such as "binomial" or "nb()"')
    if method != "REML":
        raise UnsupportedOption(
            f"method is {method!r}; what one fit knows of another criterion's search is not kept. Use method='REML'"
        )
    for what, value in (("knots", knots), ("control", control)):
        if value is not None and not isinstance(value, Mapping):
            raise InvalidType(f"{what} is {type(value).__name__}; give a mapping (a dict)")
    for name in _OUR_CONTROL:
        if name in (control or {}):
            raise UnsupportedOption(f"control has {name!r}, which this adapter sets itself; leave it out")
    as_finite_float(gamma, "gamma", minimum=0.0)
    return Call(
        tuple(texts), family, weights, offset, knots or {}, as_bool(select, "select"), float(gamma), control or {}
    )


def _parent(like: Any) -> tuple[Any, Basis]:
    if isinstance(like, GamFit):
        kept = like.kept
        known = kept is not None and (kept.artifact.entry_id or kept.record.entry_id)
        return (kept if known else None), like.basis
    if like is None or isinstance(like, (str, KeepOutcome)):
        return like, Basis()
    raise InvalidType(f"like is {type(like).__name__}; give a fit of gam(), an entry id, or None")


class GamFit(NotebookTable):
    """A fit by mgcv.

    Attributes
    ----------
    r : R's gam object
        Of rpy2; None if the fit was stopped on its way.
    problem : FitProblem
    result : FitResult
        What was passed to the store; ``rho`` are log smoothing parameters of penalties of norm 1.
    start : StartReport or None
    kept : KeepOutcome or None
    basis : Basis
        Knots and factor levels, which ``like=`` gives to another fit.
    notes : tuple of str
        What the guard did.
    warnings : tuple of str
        mgcv's.
    """

    def __init__(self, model: Model, run: Run, result: Any, kept: KeepOutcome | None) -> None:
        assert run.answer is not None
        self._model, self._answer = model, run.answer
        self.problem, self.basis, self.result = model.problem, model.basis, result
        self.start, self.kept = run.report, kept
        self.notes, self.warnings = tuple(run.notes), tuple(dict.fromkeys([*run.warnings, *run.answer.warnings]))
        # What R has of the search is several times the size of its object.
        model.fit, run.answer.raw = None, {}
        self.r = run.object
        if self.r is not None and run.bits is not None:
            self.r = session().call("put", self.r, self.coefficients)

    # -- the answer --------------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether mgcv's search says "full convergence"."""
        return bool(self.result.converged)

    @property
    def message(self) -> str:
        """How the search ended, in the words of mgcv."""
        return str(self._answer.message)

    @property
    def objective(self) -> float:
        """The REML criterion, which is minimised."""
        return float(self.result.objective)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return self._model.names

    @property
    def coefficients(self) -> FloatArray:
        """Coefficients, of shape (p,), in mgcv's order."""
        return self._model.joined(self.result.block_beta)

    @property
    def sp(self) -> dict[str, float]:
        """Smoothing parameters by mgcv's names, in units of mgcv's unscaled penalties."""
        lsp = self._model.to_mgcv(self.result.rho)
        first = self._model.thetas
        return dict(zip(self._model.sp_names, np.exp(lsp[first : first + self._model.q]).tolist(), strict=True))

    @property
    def nuisance(self) -> dict[str, float]:
        """Further outer coordinates by name: "log scale", "theta"."""
        names = self._model.nuisance
        return dict(zip(names, self.result.rho[len(self.result.rho) - len(names) :].tolist(), strict=True))

    @property
    def edf(self) -> dict[str, float]:
        """Effective degrees of freedom, by smooth."""
        edf = plain(session().call("smooth_edf", self._object()))
        names = [name for name in self.problem.block_names if not name.startswith("parametric")]
        return dict(zip(names, edf.tolist(), strict=True))

    @property
    def scale(self) -> float:
        """Estimate of the scale (1 where it is known)."""
        return float(self._part("sig2")[0])

    @property
    def fitted(self) -> FloatArray:
        """Fitted values, of shape (rows that were used,), or one column per linear predictor."""
        values: FloatArray = self._part("fitted.values")
        return values

    @property
    def linear_predictors(self) -> FloatArray:
        """Linear predictors, of the shape of ``fitted``."""
        values: FloatArray = self._part("linear.predictors")
        return values

    @property
    def iterations(self) -> int:
        """Iterations of mgcv's outer search."""
        return int(self.result.cost.outer_iterations)

    @property
    def evaluations(self) -> int:
        """Evaluations of the criterion."""
        return int(self.result.cost.evaluations)

    def predict(self, data: Any = None, type: str = "link", *, se: bool = False) -> Any:  # noqa: A002 - R's word
        """Predict as mgcv does.

        Parameters
        ----------
        data : data frame or mapping, optional
            Default: the rows that were fitted.
        type : {"link", "response", "terms", "lpmatrix"}
        se : bool
            Also standard errors; then a pair is returned.

        Returns
        -------
        array of shape (n,), or (n, number of predictors, terms or coefficients); or two of them
            NaN in rows with missing values.
        """
        if type not in ("link", "response", "terms", "lpmatrix"):
            raise InvalidInput(f"type is {type!r}; give 'link', 'response', 'terms' or 'lpmatrix'")
        frame = None
        if data is not None:
            needed = plain(session().call("predictors", self._object()))
            columns = columns_named(data, needed or [], "the model")
            frame = data_frame(columns, self.basis.levels, self.basis.levels).r
        out = entries(
            session().call("predict", self._object(), frame, {"type": type, "se.fit": as_bool(se, "se")})
        )  # fmt: skip
        error = plain(out["error"])
        if error is not None:
            raise InvalidInput(f"mgcv cannot predict for these data: {error[0].strip()}")
        value = plain(out["value"])
        return (value["fit"], value["se.fit"]) if se and type != "lpmatrix" else value

    def summary(self) -> str:
        """Return R's ``summary()`` of the fit, as text."""
        out = entries(session().call("summarize", self._object()))
        error = plain(out["error"])
        if error is not None:
            raise FitFailed(f"mgcv cannot summarize this fit: {error[0].strip()}")
        return str(plain(out["value"])[0])

    def _object(self) -> Any:
        if self.r is None:
            raise FitFailed("the fit was stopped on its way; fit it again, it goes on from its checkpoint")
        return self.r

    def _part(self, name: str) -> Any:
        return plain(entries(self._object())[name])

    # -- display -----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        start = "" if self.start is None else f", {self.start.source} start"
        return (
            f"<GamFit: {' , '.join(self._model.call.formula)}; {self._answer.message}, REML {self.objective:.6g}, "
            f"{self.iterations} iterations{start}>"
        )

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("formula", "; ".join(self._model.call.formula)),
            ("family", self._model.call.family),
            ("REML", f"{self.objective:.6g}" if math.isfinite(self.objective) else "none"),
            ("search", f"{self.message}, {self.iterations} iterations, {self.evaluations} evaluations"),
            ("start", "" if self.start is None else str(self.start)),
            ("notes", few(self.notes)),
            ("warnings", few(self.warnings)),
        ]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        if self.r is None:
            return (), ()
        return ("smooth", "edf"), [(name, f"{edf:.4g}") for name, edf in self.edf.items()]
