"""Group seeds: the change of rho and theta by leaving each group out, all groups at once: to first
order, and where rows are many to second order, with an outer Hessian of each fold.

An infinitesimal jackknife at the parent. With weights ``w`` on the rows, ``dV/dw_i`` at the mode is

    r_i = nll_i + sum_kl H^-1-leverage_kl d2_kl / 2 - (x_i'u) d1_i / 2,    u = H^-1 pull,

and the change of the outer gradient without group g is ``-sum_{i in g} dr_i/drho``: total
derivatives along ``dtheta/drho``, one set of leverages per outer coordinate for all groups
together. A coefficient whose level only group g has is dropped exactly, not by a derivative: its
own share of the outer gradient is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gamwarm.engine.arrays import FloatArray, IntArray
from gamwarm.engine.gaussian import GaussianReml, Moments
from gamwarm.engine.laml import Laml
from gamwarm.engine.objective import Evaluation
from gamwarm.engine.quadratic import QuadraticFit
from gamwarm.families import Table
from gamwarm.records import PLATEAU_EDF
from gamwarm.transfer import SEED_STEP, floored_eigen

__all__ = ["GroupChanges", "downdated_changes", "group_changes", "vanishing"]

# Without a pass over rows a step of a Gaussian fold costs next to nothing.
_DOWNDATED_STEPS = 3
# Of a p x p matrix: with more rows than that a pass over them takes longer, and the likelihood of a
# fold is near its quadratic.
_ROWS_PER_ENTRY = 10
# On a fold's quadratic, whose steps converge like Newton's: more change nothing.
_QUADRATIC_STEPS = 4
# Of log lambda: what the quadratic neglects is larger than another step.
_SHORT_STEP = 0.005
# Levels that vanish with one group, each one more pass over the rows.
_MAX_LAYERS = 4


@dataclass(frozen=True)
class GroupChanges:
    """What leaving each of m groups out changes.

    Attributes
    ----------
    rho : array of shape (m, q)
    theta : array of shape (m, p)
        The move along ``dtheta/drho`` that belongs to ``rho`` included.
    hessian : array of shape (m, q, q), optional
        The outer Hessian of the fold there, up to its approximations.
    """

    rho: FloatArray
    theta: FloatArray
    hessian: FloatArray | None = None


def vanishing(owner_levels: list[tuple[IntArray, IntArray]], index: IntArray, p: int) -> IntArray:
    """Return, per coefficient, the group without which it has no data, else -1.

    Parameters
    ----------
    owner_levels : list of (level of each row (n,), coefficient of each level)
        One per term whose coefficients belong to levels; -1 for levels without a coefficient.
    index : array of int of shape (n,)
        Group of each row.
    p : int
    """
    out = np.full(p, -1, dtype=np.intp)
    for level, coefficient in owner_levels:
        least = np.full(coefficient.shape[0], np.iinfo(np.intp).max)
        most = np.full(coefficient.shape[0], -1, dtype=np.intp)
        np.minimum.at(least, level, index)
        np.maximum.at(most, level, index)
        single = np.flatnonzero((least == most) & (coefficient >= 0))
        out[coefficient[single]] = most[single]
    return out


def group_changes(laml: Laml, at: Evaluation, index: IntArray, size: int, gone: IntArray) -> GroupChanges:
    """Return the changes for every group.

    Parameters
    ----------
    laml : Laml
    at : Evaluation
        The parent's answer.
    index : array of int of shape (n,)
        Group of each row, 0 to size - 1.
    size : int
    gone : array of int of shape (p,)
        From `vanishing`.
    """
    assert at.inverse is not None
    hessian = laml.hessian(at)
    tables = laml.tables(at.etas, (1, 2))
    first = [tables[1][(k,)] for k in range(len(laml.family.predictors))]
    score = laml.products.adjoint_by_group(first, index, size)
    derivative = _gradient_changes(laml, at, tables, index, size)
    whole_score = np.array(score)
    gradient = derivative + _eliminated(laml, at, tables, index, gone, score)
    straight = score @ at.mode_inverse
    # The level's own equation is gone with it. Solving with the rest of H^-1 is solving with the
    # level profiled out.
    columns = np.flatnonzero(gone >= 0)
    score[gone[columns], columns] = 0.0
    theta = _coefficients(laml, at, tables, score, index, gone)
    # The part of the gradient that is quadratic in theta is known at the better theta too.
    better = theta**2 + 2.0 * at.theta * (theta - straight)
    better[gone[columns], columns] = 0.0
    penalties = laml.penalties
    for j in range(laml.q):
        own = penalties.slots == j
        gradient[:, j] += 0.5 * (at.penalties.lambdas[own] * better[:, penalties.columns[own]]).sum(axis=1)
    rho = np.clip(_newton(hessian, at, gradient, laml.smoothing), -SEED_STEP, SEED_STEP)
    linear = GroupChanges(rho, theta + rho @ at.tangent.T)
    return _second_order(laml, at, linear, derivative, whole_score, tables[2], index, gone)


def _second_order(
    laml: Laml,
    at: Evaluation,
    first: GroupChanges,
    derivative: FloatArray,
    score: FloatArray,
    second: Table,
    index: IntArray,
    gone: IntArray,
) -> GroupChanges:
    """Return better changes by Newton steps on each fold's objective with the weights of the
    parent.

    With these weights fixed the likelihood is a quadratic, X'WX of a fold all rows' less its
    group's, and the levels that only the group has are dropped. What the quadratic neglects is
    taken from the parent: its outer gradient and Hessian, and the exact ``derivative`` (m, q) of a
    fold's gradient.
    """
    if laml.q > laml.smoothing or at.face is not None or not _is_long(laml):
        return first
    assert at.gram is not None
    assert at.hessian is not None
    linear = at.gram @ at.theta + at.penalties.diagonal * at.theta
    whole = QuadraticFit(at.gram, linear, laml.penalties).at(at.rho)
    if whole is None:
        return first
    laml.counters.hessian_formations += 1  # of all groups together
    rest, bend = at.gradient - whole.gradient, at.hessian - whole.hessian
    rho, theta = np.array(first.rho), np.array(first.theta)
    hessian = np.repeat(at.hessian[None], rho.shape[0], axis=0)
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index, minlength=rho.shape[0]))
    for g, picked in enumerate(np.split(order, ends[:-1])):
        gram = laml.products.of_rows(picked).gram({pair: d[picked] for pair, d in second.items()})  # type: ignore[misc]
        left = np.flatnonzero(gone != g)
        offset = rest + derivative[g] - whole.without(gram, score[g])
        lost = linear - gram @ at.theta + score[g]
        own = QuadraticFit((at.gram - gram)[np.ix_(left, left)], lost[left], laml.penalties.of(left))
        moved = rho[g]
        for _ in range(_QUADRATIC_STEPS):
            there = own.at(at.rho + moved)
            if there is None:
                break
            curvature = there.hessian + bend
            slope = there.gradient + offset + bend @ moved
            before = moved
            moved = np.clip(moved + _newton(curvature, at, slope[None], laml.smoothing)[0], -SEED_STEP, SEED_STEP)
            rho[g], hessian[g] = moved, curvature
            theta[g] = 0.0
            theta[g, left] = there.theta - at.theta[left] + there.tangent @ (moved - before)
            if np.abs(moved - before).max(initial=0.0) < _SHORT_STEP:
                break
    return GroupChanges(rho, theta, hessian)


def _is_long(laml: Laml) -> bool:
    """Whether a pass over the rows, which a fold saves, takes longer than a fold's matrices."""
    return laml.products.n * len(laml.family.predictors) > _ROWS_PER_ENTRY * laml.products.width**2


def downdated_changes(
    objective: GaussianReml, at: Evaluation, folds: Sequence[tuple[Moments, IntArray]], tol: float
) -> GroupChanges:
    """Return the changes for every group of a Gaussian model: three Newton steps per fold.

    ``folds`` has, per group, the moments without it and the coefficients that it keeps.
    """
    rho = np.zeros((len(folds), objective.q))
    theta = np.zeros((len(folds), at.theta.size))
    for g, (moments, left) in enumerate(folds):
        own = objective.of(moments, left)
        for _ in range(_DOWNDATED_STEPS):
            there = own.evaluate(at.rho + rho[g], at.theta[left], tol, 1)
            if not there.is_finite:
                break
            step = _newton(own.hessian(there), there, there.gradient[None], own.smoothing)[0]
            moved = np.clip(rho[g] + step, -SEED_STEP, SEED_STEP)
            theta[g, left] = there.theta - at.theta[left] + there.tangent @ (moved - rho[g])
            rho[g] = moved
    return GroupChanges(rho, theta)


def _newton(hessian: FloatArray, at: Evaluation, gradient: FloatArray, smoothing: int) -> FloatArray:
    """Newton steps from changes of the outer gradient (m, q), none for coordinates on a plateau."""
    live = np.flatnonzero((at.edf >= PLATEAU_EDF) | (at.rho < 0.0) | (np.arange(at.rho.size) >= smoothing))
    out = np.zeros(gradient.shape)
    if live.size:
        values, vectors = floored_eigen(hessian[np.ix_(live, live)])
        out[:, live] = -(gradient[:, live] @ vectors / values) @ vectors.T
    return out


def _gradient_changes(laml: Laml, at: Evaluation, tables: dict[int, Table], index: IntArray, size: int) -> FloatArray:
    """First-order change of the outer gradient without each group, of shape (size, q)."""
    assert at.inverse is not None
    assert at.pull is not None
    predictors = range(len(laml.family.predictors))
    fourth = laml.tables(at.etas, (4,))[4]
    inverse, moved, pairs = at.inverse, at.moved, list(at.leverage)
    moves = laml.moves(at)
    every = range(len(moves))
    u = at.mode_inverse @ at.pull
    along = laml.products.predict(u)
    out = np.zeros((size, laml.q))
    for j in range(laml.q):
        move = [each[:, j] for each in moves]
        leverage = laml.products.leverages(-(inverse @ moved[j] @ inverse), pairs)
        pull_rows = [np.zeros(laml.products.n) for _ in predictors]
        change = np.zeros(laml.products.n)
        for pair in pairs:
            twice = 1.0 if pair[0] == pair[1] else 2.0
            second = tables[2].get(pair)
            if second is not None:
                change += 0.5 * twice * leverage[pair] * second
            for m in every:
                third = at.third.get(tuple(sorted((*pair, m))))
                if third is not None:
                    change += 0.5 * twice * at.leverage[pair] * third * move[m]
                if m not in predictors:
                    continue
                if third is not None:
                    pull_rows[m] += twice * leverage[pair] * third
                for o in every:
                    d = fourth.get(tuple(sorted((*pair, m, o))))
                    if d is not None:
                        pull_rows[m] += twice * at.leverage[pair] * d * move[o]
        moved_u = at.mode_inverse @ (laml.products.adjoint(pull_rows) - moved[j] @ u)
        moved_along = laml.products.predict(moved_u)
        for m in every:
            change += tables[1][(m,)] * move[m]
        for m in predictors:
            change -= 0.5 * tables[1][(m,)] * moved_along[m]
            for o in every:
                d2 = tables[2].get((min(m, o), max(m, o)))
                if d2 is not None:
                    change -= 0.5 * along[m] * d2 * move[o]
        out[:, j] = -np.bincount(index, weights=change, minlength=size)
    return out


def _eliminated(
    laml: Laml, at: Evaluation, tables: dict[int, Table], index: IntArray, gone: IntArray, score: FloatArray
) -> FloatArray:
    """Correction (size, q) of the gradient changes for coefficients that vanish with their group.

    Coordinate j of the outer gradient is a sum over penalised coefficients of ``v_jc = lambda_j
    d_jc (theta_c^2 + H^-1_cc - theta_c u_c) / 2 - share_jc / 2``. A vanishing one leaves with all
    of it; what the derivative says of it is taken back (but for du, which is of second order in the
    bias of the mode).
    """
    assert at.inverse is not None
    assert at.pull is not None
    size = score.shape[0]
    out = np.zeros((size, laml.q))
    theta, u = at.theta, at.mode_inverse @ at.pull
    own = at.penalties.derivative()
    shares = np.zeros(own.shape)
    shares[laml.penalties.columns, laml.penalties.slots] = at.penalties.shares
    left = np.flatnonzero((gone >= 0) & own.any(axis=1))
    # Of each group one coefficient per layer.
    order = np.argsort(gone[left], kind="stable")
    left = left[order]
    groups = gone[left]
    layer = np.arange(left.size) - np.searchsorted(groups, groups)
    predictors = range(len(laml.family.predictors))
    response = None
    for depth in range(min(int(layer.max(initial=-1)) + 1, _MAX_LAYERS)):
        c, g = left[layer == depth], groups[layer == depth]
        if response is None:
            # d theta / d w_g of every group, on the group's own rows: elsewhere it hardly matters
            # to these levels.
            change = -np.linalg.multi_dot([score, at.mode_inverse]) if score.size else score
            response = laml.products.predict_by_group(change, index)
        column = np.zeros((size, theta.size))
        column[g] = at.inverse[:, c].T
        h = laml.products.predict_by_group(column, index)
        curve = np.zeros(laml.products.n)
        for k, level in at.leverage:
            d = tables[2].get((k, level))
            weight = np.zeros(laml.products.n) if d is None else np.array(d)
            for m in predictors:
                d3 = at.third.get(tuple(sorted((k, level, m))))
                if d3 is not None:
                    weight += d3 * response[m]
            curve += (1.0 if k == level else 2.0) * weight * h[k] * h[level]
        moved_inverse = -np.bincount(index, weights=curve, minlength=size)[g]
        moved_theta = change[g, c]
        derivative = (2.0 * theta[c] - u[c]) * moved_theta + moved_inverse
        value = theta[c] ** 2 + np.diagonal(at.inverse)[c] - theta[c] * u[c]
        np.add.at(out, g, 0.5 * own[c] * (derivative - value)[:, None] + 0.5 * shares[c])
    return out


def _coefficients(
    laml: Laml,
    at: Evaluation,
    tables: dict[int, Table],
    score: FloatArray,
    index: IntArray,
    gone: IntArray,
) -> FloatArray:
    """Change of theta (size, p) at fixed rho, by Newton for small groups, else to first order."""
    out: FloatArray = score @ at.mode_inverse
    size, p = score.shape
    predictors = len(laml.family.predictors)
    counts = np.bincount(index, minlength=size)
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(counts)
    for g in np.flatnonzero((counts > 0) & (counts * predictors <= p)):
        picked = order[ends[g] - counts[g] : ends[g]]
        rows = laml.products.rows_of(picked)
        if ((gone == g) & ~laml.penalties.penalised).any():
            continue
        # A penalised level without its rows is decoupled, so it need not be dropped.
        x = np.vstack(rows)
        n = picked.size
        weights = np.zeros((n * predictors, n * predictors))
        for k, level in at.leverage:
            d = tables[2].get((k, level))
            if d is None:
                continue
            place = np.arange(n)
            weights[k * n + place, level * n + place] = d[picked]
            weights[level * n + place, k * n + place] = d[picked]
        gain = x @ at.mode_inverse
        system = np.eye(n * predictors) - weights @ (gain @ x.T)
        rhs = np.concatenate([tables[1][(k,)][picked] for k in range(predictors)])
        try:
            solved = np.linalg.solve(system, rhs)
        except np.linalg.LinAlgError:
            continue
        step = solved @ gain
        # Far beyond the first order, only the group determined a direction.
        first = float(np.abs(out[g]).max(initial=0.0))
        if np.isfinite(step).all() and np.abs(step).max(initial=0.0) <= 10.0 * max(first, 1e-12):
            out[g] = step
    return out
