"""A gam() call before it is fitted, as a fit of gamwarm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from gamwarm.adapters.mgcv.data import Frame, Levels, columns_named, data_frame
from gamwarm.adapters.mgcv.session import entries, plain, session
from gamwarm.checks import FloatArray
from gamwarm.errors import InvalidInput, UnsupportedOption
from gamwarm.identity import Fingerprinter, FitProblem, family
from gamwarm.problem import (
    BasisMeta,
    BlockwiseFitOptions,
    BlockwisePenalty,
    DensePenalty,
    FixedPenalty,
    Gauge,
    LabeledPenalty,
    ParameterBlockSpec,
)

__all__ = ["Basis", "Call", "Model"]

ENGINE: Final = "mgcv"
CONV_TOL: Final = 1e-6
"""Default of ``gam.control()$newton$conv.tol``."""

_FIXED: Final = {"cr", "cs", "cc", "ps", "cp", "bs", "re"}
_ALTERNATIVES: Final = {
    "fs": "s(x, by=group, bs='cr', id=1) with s(group, bs='re')",
    "sz": "s(x, by=group, bs='cr', id=1) with s(group, bs='re')",
    "t2": "te() or ti()",
    "ad": "s(x, bs='ps') with a larger k",
    "sos": "te(longitude, latitude, bs=c('cc', 'cr')) with knots=",
    "mrf": "s(region, bs='re')",
}
_ONE_VARIABLE: Final = "bs='cr', 'ps' or 'bs' (their knots are fixed)"
_SEVERAL_VARIABLES: Final = "te() or ti(), whose margins are 'cr'"


@dataclass(frozen=True)
class Basis:
    """What a fold takes over from the fit on all rows, so that coefficients and rho mean the same.

    Attributes
    ----------
    knots : mapping
        Knots by variable, for each smooth.
    levels : mapping of str to levels
        Levels of factors.
    """

    knots: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    levels: Levels = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """The arguments of gam() that say what the answer is."""

    formula: tuple[str, ...]
    family: str
    weights: Any = None
    offset: Any = None
    knots: Mapping[str, Any] = field(default_factory=dict)
    select: bool = False
    gamma: float = 1.0
    control: Mapping[str, Any] = field(default_factory=dict)

    def model(self, data: Any, basis: Basis) -> Model:
        """Set the model up for these data."""
        read = _checked(session().call("read_formula", list(self.formula)), "formula")
        smooths = [plain(each) for each in read["smooths"]]
        for smooth in smooths:
            _check_basis(smooth)
        variables = [name for name in plain(read["variables"]) or [] if name not in ("pi", ".")]
        columns = columns_named(data, variables, "the formula")
        for name, value in ((".weights", self.weights), (".offset", self.offset)):
            if isinstance(value, str):
                columns[name] = columns_named(data, [value], name[1:])[value]
            elif value is not None:
                columns[name] = value
        frame = data_frame(columns, basis.levels, _whole(smooths, plain(read["parametric"]) or []))
        every = data_frame(columns, basis.levels, columns) if frame.has_dropped else None
        knots = {name: np.asarray(value, dtype=np.float64).ravel() for name, value in self.knots.items()}
        unused = [name for name in knots if name not in variables]
        if unused:
            raise InvalidInput(f"knots names {unused[0]!r}, which the formula does not use")
        fixed = {key: {v: np.array(at) for v, at in own.items()} for key, own in basis.knots.items()}
        out = entries(
            session().call(
                "setup", list(self.formula), frame.r, self.family, self.weights is not None, self.offset is not None,
                knots, fixed, self.select, self.gamma, dict(self.control),
            )
        )  # fmt: skip
        if plain(out["error"]) is not None:
            raise InvalidInput(f"mgcv cannot set this model up: {_one_line(plain(out['error'])[0])}")
        return Model(self, out["fit"], frame, every, plain(out["warnings"]) or [])


def _checked(out: Any, what: str) -> dict[str, Any]:
    done = entries(out)
    error = plain(done["error"])
    if error is not None:
        raise InvalidInput(f"{what} is not one that mgcv can read: {_one_line(error[0])}")
    return entries(done["value"])


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _check_basis(smooth: Any) -> None:
    """Refuse a basis that depends on the data: its coefficients mean nothing elsewhere."""
    for bs in ["t2"] if smooth["kind"] == ["t2"] else smooth["bs"]:
        if bs not in _FIXED:
            several = len(smooth["terms"]) > 1 and not smooth["tensor"]
            instead = _ALTERNATIVES.get(bs, _SEVERAL_VARIABLES if several else _ONE_VARIABLE)
            default = " (mgcv's default)" if bs == "tp" else ""
            raise UnsupportedOption(
                f"{smooth['label']} has the basis {bs!r}{default}, which depends on the data: what one fit knows of "
                f"it means nothing in another. Use {instead}"
            )


def _whole(smooths: Sequence[Any], parametric: Sequence[str]) -> frozenset[str]:
    """Return the factors that keep levels without rows: those of random effects only.

    Their coefficients are then 0. Of a fixed effect, or a smooth per level, they would not be
    identified.
    """
    random, others = set[str](), set(parametric)
    for smooth in smooths:
        others.update(() if smooth["by"] == ["NA"] else smooth["by"])
        (random if smooth["bs"] == ["re"] else others).update(smooth["terms"])
    return frozenset(random - others)


class Model:
    """What gam() will fit, and where its pieces are.

    Attributes
    ----------
    problem : FitProblem
    names : tuple of str
        Coefficients, as mgcv calls them.
    sp_names : tuple of str
        Smoothing parameters, as mgcv calls them.
    left_out : array of int
        Rows of the data with missing values, which mgcv leaves out.
    """

    def __init__(self, call: Call, fit: Any, frame: Frame, every: Frame | None, warnings: Sequence[str]) -> None:
        """``every`` is the frame with the levels that no row has, if there are any."""
        self.call, self.fit, self.warnings = call, fit, tuple(warnings)
        parts = entries(session().call("describe", fit))
        self._parts: dict[str, Any] = {name: plain(value) for name, value in parts.items()}
        known = self._parts
        if known["unsupported"] is not None:
            raise UnsupportedOption(f"this model has {known['unsupported'][0]}, which this adapter does not know")
        self.X: FloatArray = known["X"]
        self.names, self.sp_names = tuple(known["term.names"]), tuple(known["names"] or ())
        self.left_out = np.asarray(known["rows"], dtype=np.intp) - 1
        self.basis = Basis(
            {key: {v: tuple(at.tolist()) for v, at in own.items()} for key, own in dict(known["knots"]).items() if own},
            (every or frame).levels,
        )
        self._place_penalties()
        self._cut(
            []
            if every is None or not frame.keeps_contrasts
            else plain(session().call("parametric_names", fit, every.r))
        )

    # -- outer coordinates -------------------------------------------------------------------------

    def _place_penalties(self) -> None:
        known = self._parts
        L: FloatArray = known["L"]
        self.q = L.shape[1] if L.ndim == 2 and L.size else 0
        self.slots: list[int | None] = []
        for row in L if self.q else np.zeros((len(known["S"]), 0)):
            used = np.flatnonzero(row)
            if used.size > 1 or (used.size and row[used[0]] != 1.0):
                raise UnsupportedOption(
                    "this model ties smoothing parameters by more than equality, which this adapter does not know"
                )
            self.slots.append(int(used[0]) if used.size else None)
        self.thetas, self.has_scale = int(known["n.theta"][0]), bool(known["scale"][0])
        thetas = ("theta",) if self.thetas == 1 else tuple(f"theta {i + 1}" for i in range(self.thetas))
        self.nuisance = (*thetas, *(("log scale",) if self.has_scale else ()))
        # mgcv has the thetas first, gamwarm the smoothing parameters.
        self.order = np.concatenate(
            [self.thetas + np.arange(self.q), np.arange(self.thetas), self.thetas + self.q + np.arange(self.has_scale)]
        ).astype(np.intp)
        norms = [float(n) for smooth in known["smooths"] for n in smooth["norms"]] if self.slots else []
        self.norms = np.ones(self.q)
        for slot, norm in reversed(list(zip(self.slots, norms, strict=True))):
            if slot is not None:
                self.norms[slot] = norm if norm > 0.0 else 1.0

    def to_mgcv(self, rho: Any) -> FloatArray:
        """Return mgcv's vector of log smoothing parameters and nuisance coordinates."""
        lsp = np.empty(len(self.order))
        lsp[self.order] = np.asarray(rho) - self._shift
        return lsp

    def from_mgcv(self, lsp: Any) -> FloatArray:
        """Return outer coordinates: of penalties of norm 1, then nuisance."""
        return np.asarray(lsp, dtype=np.float64)[self.order] + self._shift

    @cached_property
    def _shift(self) -> FloatArray:
        return np.concatenate([np.log(self.norms), np.zeros(len(self.nuisance))])

    # -- blocks ------------------------------------------------------------------------------------

    def _cut(self, all_names: Sequence[Sequence[str]]) -> None:
        known, p = self._parts, self.X.shape[1]
        predictors = [np.asarray(each) - 1 for each in known["lpi"] or []] or [np.arange(p)]
        free = np.ones(p, dtype=np.bool_)
        for smooth in known["smooths"]:
            free[int(smooth["first"][0]) - 1 : int(smooth["last"][0])] = False
        self.columns: list[Any] = []
        specs, lifts = [], []
        for i, own in enumerate(predictors):
            columns = own[free[own]]
            free[columns] = False  # of predictors that share terms, the first has them
            if columns.size:
                lift = self._parametric_lift(columns, all_names[i] if i < len(all_names) else ())
                name = "parametric" if i == 0 else f"parametric.{i}"
                specs.append(
                    ParameterBlockSpec(name, self.X[:, columns], role="generic", raw_width=lift.shape[0],
                                       basis=BasisMeta("parametric"))
                )  # fmt: skip
                self.columns.append(columns)
                lifts.append(lift)
        labels: dict[int, str] = {}
        at = 0
        seen: dict[str, int] = {}
        for smooth in known["smooths"]:
            first, last = int(smooth["first"][0]) - 1, int(smooth["last"][0])
            label, count = smooth["label"][0], int(smooth["n.S"][0])
            seen[label] = seen.get(label, 0) + 1
            name = label if seen[label] == 1 else f"{label} #{seen[label]}"
            lift = smooth["lift"]
            if lift is None or lift.shape[1] != last - first:
                raise UnsupportedOption(f"{label} has a constraint that this adapter does not know; drop it")
            penalties = [
                self._penalty(j, f"{name}.{j - at} {_digest(smooth['basis'])}", first, last, labels)
                for j in range(at, at + count)
            ]
            at += count
            size = None if smooth["bs.dim"] is None else max(int(smooth["bs.dim"][0]), 0) or None
            basis = BasisMeta(f"mgcv.{smooth['kind'][0]}", num_knots=size)
            specs.append(
                ParameterBlockSpec(
                    name,
                    self.X[:, first:last],
                    penalties=penalties,
                    role="generic",
                    raw_width=lift.shape[0],
                    basis=basis,
                )
            )
            self.columns.append(np.arange(first, last))
            lifts.append(lift)
        if at != len(known["S"]) or free.any():
            raise UnsupportedOption(
                "this model has penalties or columns of no smooth, which this adapter does not know"
            )
        self.problem = FitProblem(
            self._family(),
            specs,
            BlockwiseFitOptions(outer_tol=5.0 * self._conv_tol * max(self.X.shape[0], 1), rho_bound=np.inf),
            engine=ENGINE,
            engine_version=session().version,
            gauge=Gauge.from_blocks(lifts),
            nuisance=self.nuisance,
        )
        if self.problem.layout.physical_to_outer != tuple(self.slots):
            raise UnsupportedOption("mgcv lists the smoothing parameters in another order than the smooths")

    @property
    def _conv_tol(self) -> float:
        newton = self.call.control.get("newton", {})
        return float(newton.get("conv.tol", CONV_TOL)) if isinstance(newton, Mapping) else CONV_TOL

    def _penalty(self, j: int, label: str, first: int, last: int, labels: dict[int, str]) -> Any:
        known, slot = self._parts, self.slots[j]
        matrix = np.asarray(known["S"][j], dtype=np.float64)
        norm = 1.0 if slot is None else self.norms[slot]
        matrix = 0.5 * (matrix + matrix.T) / norm
        start = int(known["off"][j]) - 1 - first
        width = last - first
        whole: Any = DensePenalty(matrix)
        if matrix.shape[0] != width:
            whole = BlockwisePenalty(matrix, start, start + matrix.shape[0], width)
        if slot is None:
            return FixedPenalty(float(known["lsp0"][j]), whole)
        return LabeledPenalty(labels.setdefault(slot, label), whole)

    def _parametric_lift(self, columns: Any, all_names: Sequence[str]) -> FloatArray:
        """Return what lifts to the coefficients with every level: those of levels without rows are
        missing here.
        """
        own = [self.names[column] for column in columns]
        if not set(own) <= set(all_names):  # the reference level itself has no rows
            return np.eye(len(own))
        lift = np.zeros((len(all_names), len(own)))
        lift[[all_names.index(name) for name in own], np.arange(len(own))] = 1.0
        return lift

    def _family(self) -> Any:
        known, call = self._parts, self.call
        name = re.sub(r"\s+", " ", known["family"][0])
        kind = f"mgcv.{name}({', '.join(known['link'] or [])})"
        return family(
            kind,
            response=known["y"],
            form=known["response"],
            weights=known["w"],
            offsets={str(i): each for i, each in enumerate(known["offsets"])},
            family=re.sub(r"\s+|\(\)$", "", call.family),
            theta=known["theta"],
            method="REML",
            gamma=call.gamma,
            select=call.select,
            control=_hashable(call.control),
        )

    # -- coefficients ------------------------------------------------------------------------------

    def joined(self, block_beta: Sequence[Any]) -> FloatArray:
        """Return mgcv's coefficient vector of the blocks' coefficients."""
        coef = np.zeros(self.X.shape[1])
        for columns, beta in zip(self.columns, block_beta, strict=True):
            coef[columns] = beta
        return coef

    def split(self, coef: FloatArray) -> list[FloatArray]:
        """Return the coefficients per block."""
        return [coef[columns] for columns in self.columns]

    def edf(self, lsp: FloatArray, factor: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return, per smoothing parameter, the effective degrees of freedom and the most there may
        be.

        Parameters
        ----------
        lsp : array
            mgcv's.
        factor : array of shape (p, any)
            Times its transpose the inverse penalized Hessian.
        """
        edf, most = np.zeros(self.q), np.zeros(self.q)
        for start, width, own in self._penalized:
            parts = {j: np.exp(self._log_sp(j, lsp)) * S for j, S in own}
            shares = self._shares(parts)
            rows = factor[start : start + width]
            for j, part in parts.items():
                slot = self.slots[j]
                if slot is not None:
                    edf[slot] += shares[j] - float(((part @ rows) * rows).sum())
                    most[slot] += shares[j]
        return edf, most

    def _shares(self, parts: Mapping[int, FloatArray]) -> dict[int, float]:
        """Return the rank of a block's only penalty, or how overlapping ones share their sum's."""
        if len(parts) == 1:
            return {j: float(self._parts["rank"][j]) for j in parts}
        total = sum(parts.values())
        diagonal = np.diagonal(total)
        scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, np.inf))
        inverse = np.linalg.pinv(total * np.outer(scale, scale), hermitian=True) * np.outer(scale, scale)
        return {j: float((inverse * part).sum()) for j, part in parts.items()}

    def _log_sp(self, j: int, lsp: FloatArray) -> float:
        slot = self.slots[j]
        return float(self._parts["lsp0"][j] if slot is None else lsp[self.thetas + slot])

    @cached_property
    def _penalized(self) -> list[tuple[int, int, list[tuple[int, FloatArray]]]]:
        """First column and width of each penalized block, and its penalties in the block's size."""
        known, found, j = self._parts, [], 0
        for smooth in known["smooths"]:
            first, last = int(smooth["first"][0]) - 1, int(smooth["last"][0])
            own = []
            for k in range(j, j + int(smooth["n.S"][0])):
                S, at = np.asarray(known["S"][k]), int(known["off"][k]) - 1 - first
                whole = np.zeros((last - first, last - first))
                whole[at : at + len(S), at : at + len(S)] = S
                own.append((k, whole))
            j += len(own)
            if own:
                found.append((first, last - first, own))
        return found


def _digest(basis: Any) -> str:
    fp = Fingerprinter()
    for part in basis:
        for each in part if isinstance(part, list) else [part]:
            if isinstance(each, str):
                fp.write_str(each)
            elif each is not None:
                fp.write_f64_array(np.asarray(each, dtype=np.float64).ravel())
    return fp.hexdigest()[:8]


def _hashable(control: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _hashable(value) if isinstance(value, Mapping) else value for name, value in control.items()}
