"""Binding a model to data, and cutting cases (full data or folds) from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from gamwarm.columns import known_values
from gamwarm.display import brief_repr
from gamwarm.engine.arrays import Counters, FloatArray, IntArray
from gamwarm.engine.bound_term import BoundTerm, Information, check_width
from gamwarm.engine.constrained import ConstrainedGaussian, ConstrainedLaml
from gamwarm.engine.constraints import Constraints
from gamwarm.engine.design import Group, Piece, Products
from gamwarm.engine.gaussian import GaussianReml, Moments
from gamwarm.engine.laml import Laml
from gamwarm.engine.new_rows import NewRows
from gamwarm.engine.objective import Objective
from gamwarm.engine.penalty import DiagonalPenalties
from gamwarm.engine.seeds import vanishing
from gamwarm.engine.source import Source
from gamwarm.engine.tensor import Tensor, check_tensors
from gamwarm.engine.terms import Smooth, Term
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.families import Family, Gaussian, refuse
from gamwarm.formats import ENGINE_FAMILY
from gamwarm.identity import Fingerprinter, FitProblem
from gamwarm.problem import BlockwiseFitOptions, Gauge, IndexedDesign, ParameterBlockSpec, infer_role
from gamwarm.records import group_label
from gamwarm.version import __version__

__all__ = ["ENGINE", "Bound", "Case", "CaseFamily", "bind", "response_of"]

ENGINE = "gamwarm.engine"
# A row's contribution to a sum of squares is a number.
_LEAST_WEIGHT = 1e-100
ENGINE_VERSION = __version__


class CaseFamily:
    """A family with one case's response, made by `Case.problem`, for the exact key."""

    def __init__(
        self,
        family: Family,
        y: FloatArray,
        w: FloatArray,
        offset: FloatArray,
        predictor_of: Sequence[str],
        constraints: Mapping[str, FloatArray] = MappingProxyType({}),
    ) -> None:
        self.family, self.y, self.w, self.offset = family, y, w, offset
        self.predictor_of, self.constraints = tuple(predictor_of), dict(constraints)

    @property
    def family_kind(self) -> str:
        """Stable name of the response model."""
        return self.family.kind

    def persistent_warm_start_fingerprint(
        self, specs: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions
    ) -> str | None:
        """Hash of response, weights, offset, of which predictor each block feeds and of its
        inequality constraints.
        """
        fp = Fingerprinter()
        fp.write_str(ENGINE_FAMILY)
        fp.write_str(self.family.kind)
        fp.write_u64(len(self.predictor_of))
        for spec, predictor in zip(specs, self.predictor_of, strict=True):
            fp.write_str(spec.name)
            fp.write_str(predictor)
        for array in (*np.atleast_2d(self.y.T), self.w, self.offset):
            # Weights and offset are mostly one number, whether a column says so or none was given.
            constant = array.size > 0 and bool((array == array[0]).all())
            fp.write_bool(constant)
            if constant:
                fp.write_u64(array.size)
            fp.write_f64_array(array[:1] if constant else array)
        for name, rows in self.constraints.items():
            fp.write_str(name)
            fp.write_matrix(rows)
        return fp.hexdigest()


class Case:
    """One fit: the rows of a bound model that it uses. Make it with `Bound.case`.

    Attributes
    ----------
    rows : array of int of shape (n,), or None for all
    names : tuple of str
        Block names.
    """

    def __init__(
        self, bound: Bound, rows: IntArray | None, label: str = "", left_out: tuple[str, str] | None = None
    ) -> None:
        self.bound, self.rows, self.label, self.left_out = bound, rows, label, left_out
        self._picked = slice(None) if rows is None else rows
        if not bound.w[self._picked].any():
            raise InvalidInput(f"column {bound.family.weights!r}: all weights of this case are zero")
        self.n_rows = bound.n if rows is None else int(rows.shape[0])
        informed = bound.w[self._picked] > 0.0  # a row of weight zero says nothing of its level
        self.kept: list[IntArray] = []
        self.new_rows: list[NewRows] = []
        for term in bound.terms:
            counts = np.zeros(0, dtype=np.intp)
            if term.has_levels:
                group = bound.source.groups[term.group]
                counts = np.bincount(group.index[self._picked][informed], minlength=group.size)
            self.kept.append(term.kept_columns(counts))
            self.new_rows.append(term.rows_of_case(counts) if term.has_levels else term.new_rows)
        self.names = tuple(term.name for term in bound.terms)
        self._problems: list[tuple[BlockwiseFitOptions, FitProblem]] = []

    # A fold of a Gaussian model may never read its rows: they are selected on demand.

    @cached_property
    def y(self) -> FloatArray:
        """Response, of shape (n,), or (n, columns) where a family has several."""
        return self.bound.y[self._picked]

    @cached_property
    def w(self) -> FloatArray:
        """Prior weights, of shape (n,)."""
        return self.bound.w[self._picked]

    @cached_property
    def offset(self) -> FloatArray:
        """Offset of predictor "mean", of shape (n,)."""
        return self.bound.offset[self._picked]

    @cached_property
    def groups(self) -> dict[str, Group]:
        """Covariate values of the rows."""
        return {name: Group(g.index[self._picked], g.size) for name, g in self.bound.source.groups.items()}

    @cached_property
    def null(self) -> tuple[float, ...]:
        """Constant predictors that fit best, roughly, and nuisance parameters to match."""
        return self.bound.family.null(self.y, self.w, self.offset)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Reduced width per block."""
        return tuple(len(kept) for kept in self.kept)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each block's coefficients are in theta."""
        ends = np.cumsum(self.widths).tolist()
        return tuple(slice(end - width, end) for end, width in zip(ends, self.widths, strict=True))

    @cached_property
    def constraints(self) -> Constraints | None:
        """Inequalities of all blocks; None without any."""
        blocks = [
            (columns, term.constraint[:, kept])
            for term, kept, columns in zip(self.bound.terms, self.kept, self.slices, strict=True)
            if term.constraint is not None and kept.size
        ]
        return Constraints(sum(self.widths), blocks) if blocks else None

    def problem(self, options: BlockwiseFitOptions | None = None) -> FitProblem:
        """Describe this fit for gamwarm: blocks in reduced coordinates, gauge, fingerprint."""
        options = BlockwiseFitOptions() if options is None else options
        for known, problem in self._problems:
            if known == options:
                return problem
        specs, lifts = [], []
        for term, kept in zip(self.bound.terms, self.kept, strict=True):
            specs.append(
                ParameterBlockSpec(
                    term.name,
                    IndexedDesign(term.distinct_rows(kept), self.groups[term.group].index),
                    penalties=tuple(penalty.physical(kept) for penalty in term.penalties),
                    nullspace_dims=tuple(penalty.nullspace(kept) for penalty in term.penalties),
                    role=infer_role(term.predictor),
                    raw_width=term.lift.shape[0],
                    basis=term.basis,
                )
            )
            lifts.append(term.lift if len(kept) == term.lift.shape[1] else term.lift[:, kept])
        terms = self.bound.terms
        rows = {term.name: term.constraint for term in terms if term.constraint is not None}
        predictors = [term.predictor for term in terms]
        family = CaseFamily(self.bound.family, self.y, self.w, self.offset, predictors, rows)
        problem = FitProblem(
            family,
            specs,
            options,
            engine=ENGINE,
            engine_version=ENGINE_VERSION,
            gauge=self._gauge(lifts),
            nuisance=self.bound.family.nuisance,
        )
        self._problems.append((options, problem))
        return problem

    def _gauge(self, lifts: Sequence[FloatArray]) -> Gauge:
        """Return the gauge of blocks with these lifts, and of what terms project out of others."""
        gauge = Gauge.from_blocks(lifts)
        if not any(term.couplings for term in self.bound.terms):
            return gauge
        lift, raw = np.array(gauge.lift), dict(zip(self.names, pairwise(gauge.raw_starts), strict=True))
        for term, kept, columns in zip(self.bound.terms, self.kept, self.slices, strict=True):
            for name, part in term.couplings:
                lift[slice(*raw[name]), columns] = part[:, kept]
        return Gauge(lift, gauge.raw_starts, gauge.reduced_starts)

    def objective(self, counters: Counters, discretised: bool | None = None) -> Objective:
        """Return the objective of this fit, counting into ``counters``."""
        terms, predictors = self.bound.terms, self.bound.family.predictors
        columns, constraints = self._columns(), self.constraints
        penalties, names = self.bound.penalties.of(columns), [self.bound.coefficients[i] for i in columns]
        constants = {
            term.predictor: columns.start
            for term, columns in zip(terms, self.slices, strict=True)
            if term.basis.kind == "intercept"
        }
        if isinstance(self.bound.family, Gaussian):
            shift = np.zeros(columns.size)
            for column in constants.values():
                shift[column] = self.bound.centre
            gaussian = self.bound.family, self._moments(counters), shift, penalties, names, counters
            if constraints is None:
                return GaussianReml(*gaussian)
            return ConstrainedGaussian(*gaussian, constraints=constraints)
        pieces = [
            Piece(predictors.index(term.predictor), term.group, term.columns(kept), columns)
            for term, kept, columns in zip(terms, self.kept, self.slices, strict=True)
        ]
        null, flat = np.zeros(columns.size), [*(0.0 for _ in predictors), *self.null[len(predictors) :]]
        for predictor, column in constants.items():
            k = predictors.index(predictor)
            null[column] = flat[k] = self.null[k]
        products = Products(self.n_rows, len(predictors), pieces, self.groups, counters, discretised)
        constant = float(self.bound.constants[self._picked].sum())
        laplace = self.bound.family, self.y, self.w, self.offset, products, penalties, null, names, flat, constant
        return Laml(*laplace) if constraints is None else ConstrainedLaml(*laplace, constraints=constraints)

    def _columns(self) -> IntArray:
        """Return which of the bound model's coefficients this case has."""
        return np.concatenate([start + kept for start, kept in zip(self.bound.starts, self.kept, strict=True)])

    def _moments(self, counters: Counters) -> Moments:
        """Moments of the rows: one pass over them, or a subtraction where a group is left out."""
        columns = self._columns()
        if self.left_out is not None:
            column, label = self.left_out
            total, groups = self.bound.group_moments(column)
            return total.without(groups[label]).of(columns)
        return self.bound.moments(self.rows, counters).of(columns)

    def folds(self, column: str) -> tuple[list[str], list[tuple[Moments, IntArray]]]:
        """Return the values of ``column`` and, per value, the moments of a Gaussian fit without it.

        That is its moments over the coefficients of this case that keep data, and which those are
        (kept,).
        """
        index, labels, gone = self.grouped(column)
        columns = self._columns()
        rows = np.arange(self.n_rows) if self.rows is None else self.rows
        if self.rows is None:
            total, groups = self.bound.group_moments(column)
        else:
            order = np.argsort(index, kind="stable")
            parts = np.split(rows[order], np.cumsum(np.bincount(index, minlength=len(labels)))[:-1])
            groups = {g: self.bound.moments(part, Counters()) for g, part in zip(labels, parts, strict=True)}
            total = self.bound.moments(self.rows, Counters())
        out = []
        for place, label in enumerate(labels):
            left = np.flatnonzero(gone != place)
            out.append((total.without(groups[label]).of(columns[left]), left))
        return labels, out

    def columns_of(self, rows: Any) -> dict[str, Any]:
        """Return some rows of the data's columns; None: those that this case leaves out."""
        if rows is None:
            used = np.zeros(self.bound.n, dtype=np.bool_)
            used[self._picked] = True
            if used.all():
                raise InvalidInput("this fit left no row out; say which rows, or give their columns")
            rows = ~used
        picked = self.bound.picked(rows)
        return {
            name: known_values(self.bound.source.columns[name], f"column {name!r}")[picked]
            for name in self.bound.source.used
        }

    def predictors_at(self, theta: FloatArray) -> list[FloatArray]:
        """Return the linear predictors of the rows, offset included, each of shape (n,)."""
        predictors = self.bound.family.predictors
        etas = [np.zeros(self.n_rows) for _ in predictors]
        etas[0] += self.offset
        for term, kept, columns in zip(self.bound.terms, self.kept, self.slices, strict=True):
            values = term.table[:, kept] @ theta[columns]
            etas[predictors.index(term.predictor)] += values[self.groups[term.group].index]
        return etas

    def grouped(self, column: str) -> tuple[IntArray, list[str], IntArray]:
        """Return what leaving out a value of ``column`` means here.

        Returns
        -------
        index : array of int of shape (n,)
            Group of each row.
        labels : list of str
            Of the groups that have rows in this case.
        gone : array of int of shape (p,)
            Per reduced coefficient the group without which it has no data, else -1.
        """
        source = self.bound.source
        key, levels = source.levels(column, "group_seeds")
        every = source.groups[key].index
        present, index = np.unique(every if self.rows is None else every[self.rows], return_inverse=True)
        index = index.reshape(-1).astype(np.intp)
        informed = self.w > 0.0
        by_level = []
        for term, kept, columns in zip(self.bound.terms, self.kept, self.slices, strict=True):
            if term.by_level:
                coefficient = np.full(term.table.shape[0], -1, dtype=np.intp)
                coefficient[np.argmax(term.table[:, kept], axis=0)] = np.arange(columns.start, columns.stop)
                by_level.append((self.groups[term.group].index[informed], coefficient))
        gone = vanishing(by_level, index[informed], sum(self.widths))
        for term, columns in zip(self.bound.terms, self.slices, strict=True):
            if term.of_level is not None:
                groups = np.unique(index[term.of_level[self.groups[term.group].index] & informed])
                gone[columns] = groups[0] if groups.size == 1 else -1
        return index, [group_label(levels[i]) for i in present], gone

    def __repr__(self) -> str:
        return f"Case({self.n_rows} of {self.bound.n} rows, {self.bound.family.kind})"


class Bound:
    """A model bound to full data: knots, levels, centring and scales. Make it with `bind`."""

    def __init__(
        self, source: Source, terms: Sequence[BoundTerm], family: Family, arrays: Sequence[FloatArray]
    ) -> None:
        self.source, self.terms, self.family = source, tuple(terms), family
        self.y, self.w, self.offset = arrays
        self.n = int(self.y.shape[0])
        self._group_moments: dict[str, tuple[Moments, dict[str, Moments]]] = {}
        # Taken out of a Gaussian response beforehand, so that its moments keep their digits.
        constant = any(term.basis.kind == "intercept" for term in terms)
        centred = constant and isinstance(family, Gaussian)
        self.centre = float(self.w @ (self.y - self.offset) / self.w.sum()) if centred else 0.0

    @cached_property
    def starts(self) -> list[int]:
        """First coefficient of each term."""
        return [0, *np.cumsum([term.lift.shape[1] for term in self.terms]).tolist()][:-1]

    @cached_property
    def coefficients(self) -> list[str]:
        """Name of the term of each coefficient."""
        return [term.name for term in self.terms for _ in range(term.lift.shape[1])]

    @cached_property
    def penalties(self) -> DiagonalPenalties:
        """Penalties of all coefficients.

        Slots are numbered as `gamwarm.PenaltyLayout` does: in order, a label that is met again has
        the slot that it has already.
        """
        entries: list[tuple[int, FloatArray]] = []
        labels: dict[str, int] = {}
        slots = 0
        for term, start in zip(self.terms, self.starts, strict=True):
            for penalty in term.penalties:
                diagonal = np.zeros(len(self.coefficients))
                diagonal[start : start + term.lift.shape[1]] = penalty.diagonal
                if penalty.log_lambda is not None:
                    entries.append((-1, float(np.exp(penalty.log_lambda)) * diagonal))
                    continue
                slot = slots if penalty.label is None else labels.setdefault(penalty.label, slots)
                slots = max(slots, slot + 1)
                entries.append((slot, diagonal))
        # A nuisance parameter has a slot of its own, which scales nothing.
        return DiagonalPenalties(len(self.coefficients), slots + len(self.family.nuisance), entries)

    @cached_property
    def constants(self) -> FloatArray:
        """Each row's negative log-likelihood that no predictor enters, of shape (n,)."""
        return self.family.constants(self.y, self.w)

    def case(self, rows: Any = None, label: str = "") -> Case:
        """Return the fit of all rows, or of some.

        Parameters
        ----------
        rows : None, bool array of shape (n,) or array of row numbers
            Row numbers may repeat (a bootstrap sample) and keep their order.
        label : str
            For the user's own reports.
        """
        if rows is None:
            return Case(self, None, label)
        return Case(self, self.picked(rows), label)

    def picked(self, rows: Any) -> IntArray:
        """Return row numbers (m,) of a mask or of row numbers."""
        picked = known_values(rows, "rows")
        if picked.size == 0:
            raise InvalidInput("a case without rows cannot be fitted; check the mask")
        if picked.dtype == np.object_ and all(isinstance(each, (bool, np.bool_)) for each in picked):
            picked = picked.astype(np.bool_)
        if picked.dtype == np.bool_:
            self.source.alignment.add("the mask of rows", rows)
            if picked.shape != (self.n,):
                raise InvalidInput(f"row mask has shape {picked.shape}; the data has {self.n} rows")
            picked = np.flatnonzero(picked)
        elif picked.dtype.kind not in "iu" or picked.ndim != 1:
            raise InvalidType("rows must be None, a boolean mask or integer row numbers of shape (rows,)")
        if picked.size == 0:
            raise InvalidInput("a case without rows cannot be fitted; check the mask")
        if picked.min() < 0 or picked.max() >= self.n:
            raise InvalidInput(f"row numbers run from {picked.min()} to {picked.max()}; rows are 0 to {self.n - 1}")
        return picked.astype(np.intp)

    def without(self, column: str, value: Any, label: str = "") -> Case:
        """Return the fit that leaves out the rows where ``column`` has ``value``.

        As ``case(columns[column] != value)``, with two advantages: a parent's group seeds are used
        automatically, and a Gaussian model does not read the rows again (see `group_moments`).
        """
        key, levels = self.source.levels(column, "without")
        wanted = group_label(value)
        places = [i for i, level in enumerate(levels) if group_label(level) == wanted]
        if len(places) != 1:
            known = ", ".join(map(repr, levels[:8])) + (f" and {len(levels) - 8} more" if len(levels) > 8 else "")
            raise InvalidInput(f"column {column!r} has no value {value!r} to leave out; it has {known}")
        rows = np.flatnonzero(self.source.groups[key].index != places[0])
        if rows.size == 0:
            raise InvalidInput(f"column {column!r} has only the value {value!r}; no rows remain without it")
        return Case(self, rows, label or f"without {wanted}", (column, wanted))

    def moments(self, rows: IntArray | None, counters: Counters) -> Moments:
        """Return the moments of some rows (None: all): one formation of X'WX over them."""
        picked = slice(None) if rows is None else rows
        w, z = self.w[picked], self.y[picked] - self.offset[picked] - self.centre
        used = {term.group for term in self.terms}
        groups = {name: Group(g.index[picked], g.size) for name, g in self.source.groups.items() if name in used}
        pieces, start = [], 0
        for term in self.terms:
            width = term.lift.shape[1]
            pieces.append(Piece(0, term.group, term.table, slice(start, start + width)))
            start += width
        products = Products(int(w.shape[0]), 1, pieces, groups, counters)
        wz = w * z
        return Moments(products.gram({(0, 0): w}), products.adjoint([wz]), float(wz @ z), float(w.sum()))

    def group_moments(self, column: str) -> tuple[Moments, dict[str, Moments]]:
        """Return the moments of all rows and of each value of ``column``; cached.

        Together they take one pass over the rows, so one formation.
        """
        if column not in self._group_moments:
            key, levels = self.source.levels(column, "group_moments")
            order = np.argsort(self.source.groups[key].index, kind="stable").astype(np.intp)
            ends = np.cumsum(np.bincount(self.source.groups[key].index, minlength=len(levels)))
            parts = np.split(order, ends[:-1])
            groups = {group_label(v): self.moments(rows, Counters()) for v, rows in zip(levels, parts, strict=True)}
            every = list(groups.values())
            total = Moments(
                np.sum([g.xwx for g in every], axis=0),
                np.sum([g.xwz for g in every], axis=0),
                float(np.sum([g.zwz for g in every])),
                float(np.sum([g.weight for g in every])),
            )
            self._group_moments[column] = total, groups
        return self._group_moments[column]

    def __repr__(self) -> str:
        return f"Bound({self.n} rows, {len(self.terms)} terms, {self.family.kind})"


def response_of(source: Source, family: Family) -> tuple[FloatArray, FloatArray]:
    """Return response and prior weights of the rows of ``source``, checked."""
    read = [source.numbers(name, "the response", largest=np.inf) for name in family.columns]
    y = read[0] if len(read) == 1 else np.column_stack(read)
    family.check(y)
    w = np.ones(y.shape[0]) if family.weights is None else source.numbers(family.weights, "the prior weights")
    if (w < 0).any():
        row = int(np.flatnonzero(w < 0)[0])
        raise InvalidInput(f"column {family.weights!r} holds the negative weight {w[row]} at row {row}; correct it")
    refuse(family.weights, w, (w > 0) & (w < _LEAST_WEIGHT), "too small a weight; rescale them all, or use 0")
    return y, w


def bind(columns: Mapping[str, Any], terms: Sequence[Term], family: Family) -> Bound:
    """Bind terms and a family to the full data.

    Parameters
    ----------
    columns : mapping of str to arrays of shape (n,)
        Only the columns that terms and family name are read.
    terms : sequence of Intercept, Linear, Factor, Smooth, Monotone, Convex, Tensor, RandomEffect
        Every predictor of the family needs at least one.
    family : Family
        `Gaussian`, `GaussianLocationScale`, `Poisson`, `NegativeBinomial`, `Binomial`, `Gamma`,
        `LogLogistic` or `LogNormal`.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the column or term, and the next step.
    """
    if not (getattr(family, "kind", "") and isinstance(family, Family)):
        raise InvalidType(f"family is {brief_repr(family)}; use one of gamwarm.engine's, such as Gaussian(response)")
    if not isinstance(terms, Iterable):
        raise InvalidType(f"terms is {brief_repr(terms)}; give a list, such as [Intercept(), Smooth('x')]")
    terms = list(terms)
    for term in terms:
        if not hasattr(term, "bind") or isinstance(term, type):
            raise InvalidType(
                f"{brief_repr(term)} is not a term; use instances of Intercept, Linear, Factor, Smooth, Monotone, "
                "Convex, Tensor or RandomEffect"
            )
        if term.predictor not in family.predictors:
            raise InvalidInput(
                f"term {term.name!r} is for predictor {term.predictor!r}; "
                f"{type(family).__name__} has {list(family.predictors)}"
            )
    for predictor in family.predictors:
        if not any(term.predictor == predictor for term in terms):
            raise InvalidInput(f"predictor {predictor!r} has no term; add Intercept(predictor={predictor!r})")
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"term {name!r} is given {names.count(name)} times; keep one")
    source = Source(columns)
    y, w = response_of(source, family)
    if not w.any():
        raise InvalidInput(f"column {family.weights!r}: all weights are zero")
    offset = np.zeros(y.shape[0]) if family.offset is None else source.numbers(family.offset, "the offset")
    null = family.null(y, w, offset)
    flat = [np.full(1, value) for value in null]
    if family.offset is None and y.ndim == 1:
        unit = family.expected(np.full(1, float(family.mean(flat)[0])), np.full(1, float(w.mean())), flat)
    else:  # the null model's information is not the same for all rows
        unit = family.expected(y, w, [null[0] + offset, *flat[1:]])

    def information(predictor: str) -> float:
        k = family.predictors.index(predictor)
        found = float(unit[k, k].mean())
        if not 0.0 < found < np.inf:
            raise InvalidInput(
                f"the rows' information on predictor {predictor!r} is {found:g}, too extreme to scale a penalty; "
                "look for huge offsets or weights"
            )
        return found

    return Bound(source, _bound_terms(terms, source, information), family, (y, w, offset))


def _check_curves(terms: Sequence[Term], free: set[str]) -> None:
    """Refuse curves by level beside a term that has what no penalty holds of them: their sum.

    ``free`` names the terms with coefficients that no penalty holds.
    """
    curves = [term for term in terms if isinstance(term, Smooth) and term.by is not None and term.name in free]
    for curve in curves:
        for other in terms:
            if other.predictor != curve.predictor or other.name not in free or other.name == curve.name:
                continue
            columns = (other.column,) if isinstance(other, Smooth) else getattr(other, "columns", ())
            if curve.column in columns:
                raise InvalidInput(
                    f"terms {other.name!r} and {curve.name!r} both have the polynomials of {curve.column!r} that no "
                    f"penalty holds; give {curve.name!r} select=True, which makes its curves deviations from the other "
                    "term, or drop one"
                )


def _bound_terms(terms: Sequence[Term], source: Source, information: Information) -> list[BoundTerm]:
    """Bind the terms, surfaces after the main effects that they leave out; in the given order."""
    blocks = {term.name: term.bind(source, information) for term in terms if not isinstance(term, Tensor)}
    known = [block for bound in blocks.values() for block in bound]
    tensors = [term for term in terms if isinstance(term, Tensor)]
    for predictor in dict.fromkeys(term.predictor for term in tensors):
        covariates = [name for block in known if block.predictor == predictor for name in block.covariates]
        check_tensors([term for term in tensors if term.predictor == predictor], covariates)
    for term in tensors:
        near = [block for block in known if block.predictor == term.predictor]
        mains = [block for block in near if set(block.covariates) & set(term.columns)]
        blocks[term.name] = term.bind(source, information, mains)
    _check_curves(terms, {term.name for term in terms if not blocks[term.name][0].is_held})
    found = [block for term in terms for block in blocks[term.name]]
    check_width("the model", sum(block.lift.shape[1] for block in found), "drop terms, or use fewer basis functions")
    names = [block.name for block in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"two terms have a block named {name!r}; rename a column or a level")
    return found
