"""Products with the design of all predictors: X theta, X'c, X'WX and row-wise leverages.

Columns that depend on one covariate form a *group*: rows of a small table ``U`` (m x p) looked up
by ``index`` (n,), so that X'WX of two groups is ``U_g' C U_h`` with C the m_g x m_h cross table of
the weights. Groups with too many distinct values are expanded into one dense group (``index`` None,
U = X). Both give the same numbers up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from gamwarm.engine.arrays import Counters, FloatArray, IntArray

__all__ = ["Group", "Piece", "Products"]

_CHUNK_ROWS = 65_536
_TABLE_PER_ROW = 4
_TABLE_FLOOR = 1 << 18
# Rows looked up twice and multiplied take longer than a table of leverages, up to this many times
# the usual one's size.
_LEVERAGE_TABLES = 2
_MERGED_CELLS = 64
_MANY_LEVELS = 8
# Seconds per elementary operation, only for choosing between two ways to the same numbers.
_FLOP, _LOOKUP, _CALL = 2.5e-10, 2.5e-9, 1.5e-5


@dataclass(frozen=True)
class Group:
    """Distinct values of one covariate: ``index`` of shape (n,) into ``size`` of them."""

    index: IntArray
    size: int


@dataclass(frozen=True)
class Piece:
    """A block's ``table`` (m, p) of a group, in a predictor, at coefficients ``columns``."""

    predictor: int
    group: str
    table: FloatArray
    columns: slice


@dataclass(frozen=True)
class _Part:
    """All columns of one predictor that belong to one group; a slice where they are consecutive.

    Where no row of a table has two entries (a random effect's, a factor's), ``levels`` has the
    entries' rows, columns and values.
    """

    group: int
    table: FloatArray
    columns: IntArray | slice
    levels: tuple[IntArray, IntArray, FloatArray] | None = None


def _levels(table: FloatArray) -> tuple[IntArray, IntArray, FloatArray] | None:
    if table.shape[1] < _MANY_LEVELS:
        return None
    columns = table.argmax(axis=1)
    entries = table[np.arange(table.shape[0]), columns]
    rows = np.flatnonzero(entries)
    return (rows, columns[rows], entries[rows]) if rows.size == np.count_nonzero(table) else None


def _joined(columns: Sequence[slice]) -> IntArray | slice:
    if all(left.stop == right.start for left, right in pairwise(columns)):
        return slice(columns[0].start, columns[-1].stop)
    return np.concatenate([np.arange(c.start, c.stop, dtype=np.intp) for c in columns])


def _block(a: _Part, b: _Part) -> tuple[Any, Any]:
    """Index of the rows of ``a`` and the columns of ``b`` in a (p, p) matrix."""
    left, right = a.columns, b.columns
    if isinstance(left, slice) or isinstance(right, slice):
        return left, right
    return left[:, None], right


def _tally(index: IntArray, weights: FloatArray, size: int) -> FloatArray:
    totals: FloatArray = np.bincount(index, weights=weights, minlength=size).astype(np.float64, copy=False)
    return totals


def _chain(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Return x y z, multiplied in the cheaper order."""
    left = x.shape[0] * y.shape[1] * (x.shape[1] + z.shape[1])
    right = x.shape[1] * z.shape[1] * (y.shape[1] + x.shape[0])
    out: FloatArray = (x @ y) @ z if left <= right else x @ (y @ z)
    return out


def _merged(n: int, pieces: Sequence[Piece], groups: Mapping[str, Group]) -> tuple[list[Piece], dict[str, Group]]:
    """Return the pieces over fewer groups: crossing the smallest saves a look-up per pair."""
    used = {piece.group for piece in pieces}
    small: list[str] = []
    cells = 1
    for name in sorted(used, key=lambda g: (groups[g].size, g)):
        if cells * groups[name].size > min(_MERGED_CELLS, max(2, n // 3)):
            break
        cells *= groups[name].size
        small.append(name)
    if len(small) < 2:
        return list(pieces), {name: group for name, group in groups.items() if name in used}
    rows = np.indices([groups[name].size for name in small]).reshape(len(small), cells)
    many = [name for name in small if groups[name].size > 1]
    index = groups[(many or small)[0]].index
    for name in many[1:]:
        index = index * groups[name].size + groups[name].index
    merged = "\0".join(small)
    moved = [
        Piece(p.predictor, merged, p.table[rows[small.index(p.group)]], p.columns) if p.group in small else p
        for p in pieces
    ]
    return moved, {merged: Group(index, cells)} | {n: g for n, g in groups.items() if n in used and n not in small}


def _is_table(group: Group, n: int) -> bool:
    return group.size <= max(2, n // 3)


def _table_limit(n: int) -> int:
    return max(_TABLE_PER_ROW * n, _TABLE_FLOOR)


def _cost(n: int, pieces: Sequence[Piece], groups: Mapping[str, Group]) -> tuple[float, float]:
    """Estimated seconds of X'WX, dense and discretised."""
    width: dict[int, int] = {}
    per_group: dict[str, int] = {}
    for piece in pieces:
        p = piece.table.shape[1]
        width[piece.predictor] = width.get(piece.predictor, 0) + p
        per_group[piece.group] = per_group.get(piece.group, 0) + p
    ps = list(width.values())
    pairs = [(a, b) for i, a in enumerate(ps) for b in ps[i:]]
    dense = sum(2.0 * n * a * b * _FLOP + n * b * 1e-9 + _CALL for a, b in pairs)
    names = [g for g in per_group if groups[g].size > 1]
    expanded = {g for g in names if not _is_table(groups[g], n)}
    tables = 0.0
    for i, g in enumerate(names):
        for h in names[i + 1 :]:
            cells = groups[g].size * groups[h].size
            if g in expanded and h in expanded:
                tables += 2.0 * n * per_group[g] * per_group[h] * _FLOP
            elif g in expanded or h in expanded or cells > _table_limit(n):
                tables += n * min(per_group[g], per_group[h]) * 1.5e-9 + n * _LOOKUP
            else:
                tables += n * _LOOKUP + cells * (1e-9 + 2.0 * per_group[h] * _FLOP)
            tables += 2 * _CALL
        rows = n if g in expanded else groups[g].size
        tables += rows * per_group[g] ** 2 * 2.0 * _FLOP + 2 * _CALL
    return dense, tables * len(pairs)


class Products:
    """Design of all predictors of one case.

    Parameters
    ----------
    n : int
        Rows.
    n_predictors : int
    pieces : sequence of Piece
        One per block.
    groups : mapping of name to Group
    counters : Counters
        Every X'WX is counted here.
    discretised : bool, optional
        None chooses by estimated cost.
    """

    def __init__(
        self,
        n: int,
        n_predictors: int,
        pieces: Sequence[Piece],
        groups: Mapping[str, Group],
        counters: Counters,
        discretised: bool | None = None,
    ) -> None:
        self.n = n
        self.counters = counters
        self.width = max((piece.columns.stop for piece in pieces), default=0)
        if discretised is None or discretised:
            crossed, fewer = _merged(n, pieces, groups)
            if discretised is None:
                dense_cost, table_cost = _cost(n, crossed, fewer)
                discretised = table_cost < dense_cost
            if discretised:
                pieces, groups = crossed, fewer
        self.discretised = discretised
        table_names = [name for name, group in groups.items() if discretised and _is_table(group, n)]
        self._groups: list[Group | None] = [groups[name] for name in table_names]
        place = {name: i for i, name in enumerate(table_names)}
        if any(piece.group not in place for piece in pieces):
            self._groups.append(None)
        self._parts: list[list[_Part]] = []
        for k in range(n_predictors):
            collected: dict[int, tuple[list[FloatArray], list[slice]]] = {}
            for piece in pieces:
                if piece.predictor != k or piece.table.shape[1] == 0:
                    continue
                at = place.get(piece.group, len(table_names))
                table = piece.table if piece.group in place else piece.table[groups[piece.group].index]
                tables, columns = collected.setdefault(at, ([], []))
                tables.append(table)
                columns.append(piece.columns)
            self._parts.append([self._part(at, *collected[at]) for at in sorted(collected)])
        self._pair_index: dict[tuple[int, int], IntArray] = {}
        self._row_order: dict[int, tuple[IntArray, IntArray]] = {}

    def _part(self, at: int, tables: Sequence[FloatArray], columns: Sequence[slice]) -> _Part:
        table = np.ascontiguousarray(tables[0] if len(tables) == 1 else np.hstack(tables))
        return _Part(at, table, _joined(columns), None if self._groups[at] is None else _levels(table))

    # -- linear maps -------------------------------------------------------------------------------

    def predict(self, theta: FloatArray) -> list[FloatArray]:
        """Return X_k theta per predictor, of shape (n,), or (n, q) for theta of shape (p, q)."""
        out = []
        for parts in self._parts:
            eta: FloatArray = np.zeros((self.n, *theta.shape[1:]))
            for part in parts:
                values = part.table @ theta[part.columns]
                group = self._groups[part.group]
                if group is None:
                    eta += values
                elif group.size == 1:
                    eta += values[0]
                else:
                    eta += values[group.index]
            out.append(eta)
        return out

    def adjoint(self, rows: Sequence[FloatArray]) -> FloatArray:
        """Return sum_k X_k' rows_k of shape (p,)."""
        out = np.zeros(self.width)
        totals: list[dict[int, FloatArray]] = [{} for _ in rows]
        for k, parts in enumerate(self._parts):
            for part in parts:
                group = self._groups[part.group]
                if group is None:
                    folded = rows[k]
                elif group.size == 1:
                    folded = np.array([rows[k].sum()])
                else:
                    folded = _tally(group.index, rows[k], group.size)
                totals[k][part.group] = folded
                out[part.columns] += folded @ part.table
        return out

    # -- Gram matrices -----------------------------------------------------------------------------

    def gram(self, weights: Mapping[tuple[int, int], FloatArray]) -> FloatArray:
        """Return sum over predictor pairs of X_k' diag(w_kl) X_l, (p, p): one formation.

        Parameters
        ----------
        weights : mapping of (k, l), k <= l, to arrays of shape (n,)
            A missing pair is zero.
        """
        self.counters.hessian_formations += 1
        out = np.zeros((self.width, self.width))
        for (k, level), w in weights.items():
            tables: dict[tuple[int, int], FloatArray] = {}
            for a in self._parts[k]:
                for b in self._parts[level]:
                    if k == level and a.group > b.group:
                        continue
                    block = self._cross(a, b, w, tables)
                    out[_block(a, b)] += block
                    if k != level or a.group != b.group:
                        out[_block(b, a)] += block.T
        return out

    def _cross(self, a: _Part, b: _Part, w: FloatArray, tables: dict[tuple[int, int], FloatArray]) -> FloatArray:
        ga, gb = self._groups[a.group], self._groups[b.group]
        if ga is None and gb is None:
            return self._dense_cross(a.table, b.table, w)
        if a is b and a.levels is not None:
            rows, columns, values = a.levels
            margin = self._margin(a.group, w, tables)
            return np.diag(_tally(columns, margin[rows] * values * values, a.table.shape[1]))
        if a.group == b.group:
            weighted = self._margin(a.group, w, tables)[:, None] * b.table
            product: FloatArray = a.table.T @ weighted
            return product
        if ga is None or (gb is not None and gb.size == 1 and ga.size > 1):
            return self._cross(b, a, w, tables).T
        if ga.size == 1:
            # A one-row group is the intercept's: its cross table is the other group's margin.
            column = w @ b.table if gb is None else self._margin(b.group, w, tables) @ b.table
            return np.outer(a.table[0], column)
        if gb is not None and self._fits_table(ga, gb):
            return _chain(a.table.T, self._table(a.group, b.group, w, tables), b.table)
        mixed: FloatArray = a.table.T @ (self._sparse_table(a.group, b.group, w) @ b.table)
        return mixed

    def _fits_table(self, ga: Group, gb: Group) -> bool:
        return ga.size * gb.size <= _table_limit(self.n)

    def _dense_cross(self, left: FloatArray, right: FloatArray, w: FloatArray) -> FloatArray:
        if self.n <= _CHUNK_ROWS:
            return left.T @ (w[:, None] * right)
        out = np.zeros((left.shape[1], right.shape[1]))
        for start in range(0, self.n, _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            out += left[rows].T @ (w[rows, None] * right[rows])
        return out

    def _margin(self, g: int, w: FloatArray, tables: dict[tuple[int, int], FloatArray]) -> FloatArray:
        if (g, g) not in tables:
            group = self._groups[g]
            assert group is not None
            for (i, j), table in tables.items():
                if i != j and g in (i, j):
                    tables[g, g] = table.sum(axis=1 if i == g else 0)
                    break
            else:
                if group.size == 1:
                    tables[g, g] = np.array([w.sum()])
                else:
                    tables[g, g] = _tally(group.index, w, group.size)
        return tables[g, g]

    def _pairs(self, g: int, h: int) -> IntArray:
        if (g, h) not in self._pair_index:
            left, right = self._groups[g], self._groups[h]
            assert left is not None and right is not None
            self._pair_index[g, h] = left.index * right.size + right.index
        return self._pair_index[g, h]

    def _table(self, g: int, h: int, w: FloatArray, tables: dict[tuple[int, int], FloatArray]) -> FloatArray:
        if g > h:
            return self._table(h, g, w, tables).T
        if (g, h) not in tables:
            left, right = self._groups[g], self._groups[h]
            assert left is not None and right is not None
            cells = _tally(self._pairs(g, h), w, left.size * right.size)
            tables[g, h] = cells.reshape(left.size, right.size)
        return tables[g, h]

    def _sparse_table(self, g: int, h: int, w: FloatArray) -> sparse.csr_array:
        left, right = self._groups[g], self._groups[h]
        assert left is not None
        if g not in self._row_order:
            order = np.argsort(left.index, kind="stable")
            counts = np.bincount(left.index, minlength=left.size)
            self._row_order[g] = (order, np.concatenate(([0], np.cumsum(counts))))
        order, starts = self._row_order[g]
        columns = order if right is None else right.index[order]
        width = self.n if right is None else right.size
        return sparse.csr_array((w[order], columns, starts), shape=(left.size, width))

    # -- leverages ---------------------------------------------------------------------------------

    def leverages(self, inverse: FloatArray, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], FloatArray]:
        """Return x_ki' inverse_kl x_li per row i and predictor pair (k, l); inverse is (p, p)."""
        out: dict[tuple[int, int], FloatArray] = {}
        for k, level in pairs:
            total = np.zeros(self.n)
            for a in self._parts[k]:
                for b in self._parts[level]:
                    if k == level and a.group > b.group:
                        continue
                    factor = 2.0 if k == level and a.group != b.group else 1.0
                    self._add_leverage(total, a, b, factor * inverse[_block(a, b)])
            out[k, level] = total
        return out

    def _add_leverage(self, total: FloatArray, a: _Part, b: _Part, m: FloatArray) -> None:
        ga, gb = self._groups[a.group], self._groups[b.group]
        if ga is not None and a is b and a.levels is not None:
            filled, columns, entries = a.levels
            diagonal = np.zeros(a.table.shape[0])
            diagonal[filled] = np.diagonal(m)[columns] * entries * entries
            total += diagonal[ga.index]
        elif ga is not None and a.group == b.group:
            values = np.einsum("ij,ij->i", a.table @ m, b.table)
            total += values[0] if ga.size == 1 else values[ga.index]
        elif ga is not None and gb is not None and (ga.size == 1 or gb.size == 1):
            values = (a.table @ m @ b.table.T).ravel()
            total += values[gb.index if ga.size == 1 else ga.index]
        elif ga is not None and gb is not None and ga.size * gb.size <= _LEVERAGE_TABLES * _table_limit(self.n):
            if a.group < b.group:
                total += _chain(a.table, m, b.table.T).ravel()[self._pairs(a.group, b.group)]
            else:
                total += _chain(b.table, m.T, a.table.T).ravel()[self._pairs(b.group, a.group)]
        elif ga is None and gb is None and self.n <= _CHUNK_ROWS:
            total += np.einsum("ij,ij->i", a.table @ m, b.table)
        else:
            left = a.table @ m
            for start in range(0, self.n, _CHUNK_ROWS):
                rows = slice(start, min(start + _CHUNK_ROWS, self.n))
                x = left[rows] if ga is None else left[ga.index[rows]]
                y = b.table[rows] if gb is None else b.table[gb.index[rows]]
                total[rows] += np.einsum("ij,ij->i", x, y)

    # -- by groups of rows -------------------------------------------------------------------------

    def adjoint_by_group(self, rows: Sequence[FloatArray], index: IntArray, size: int) -> FloatArray:
        """Return sum_k X_k' rows_k per group, of shape (size, p); ``index`` (n,) names groups."""
        out = np.zeros((size, self.width))
        everything = np.arange(self.n)
        for k, parts in enumerate(self._parts):
            for part in parts:
                group = self._groups[part.group]
                columns, height = (everything, self.n) if group is None else (group.index, group.size)
                folded = sparse.csr_array((rows[k], (index, columns)), shape=(size, height))
                out[:, part.columns] += folded @ part.table
        return out

    def predict_by_group(self, theta: FloatArray, index: IntArray) -> list[FloatArray]:
        """Return X_k theta_g per predictor, of shape (n,), for each row's group g."""
        out = []
        for parts in self._parts:
            eta: FloatArray = np.zeros(self.n)
            for part in parts:
                own = theta[:, part.columns]
                group = self._groups[part.group]
                if group is not None and group.size * theta.shape[0] <= _table_limit(self.n):
                    eta += (part.table @ own.T)[group.index, index]
                    continue
                for start in range(0, self.n, _CHUNK_ROWS):
                    rows = slice(start, min(start + _CHUNK_ROWS, self.n))
                    x = part.table[rows] if group is None else part.table[group.index[rows]]
                    eta[rows] += np.einsum("ij,ij->i", x, own[index[rows]])
            out.append(eta)
        return out

    def rows_of(self, picked: IntArray) -> list[FloatArray]:
        """Return the picked rows of every predictor's design, each of shape (len(picked), p)."""
        out = []
        for parts in self._parts:
            x = np.zeros((picked.shape[0], self.width))
            for part in parts:
                group = self._groups[part.group]
                x[:, part.columns] = part.table[picked] if group is None else part.table[group.index[picked]]
            out.append(x)
        return out

    def of_rows(self, picked: IntArray) -> Products:
        """Return the design of the picked rows; what it forms is not counted."""
        part = copy.copy(self)
        part.n, part.counters = picked.shape[0], Counters()
        part._groups = [None if group is None else Group(group.index[picked], group.size) for group in self._groups]
        part._parts = [
            [replace(each, table=each.table[picked]) if self._groups[each.group] is None else each for each in parts]
            for parts in self._parts
        ]
        part._pair_index, part._row_order = {}, {}
        return part
