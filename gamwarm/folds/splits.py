"""The rows that each fold keeps, and the order in which folds are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.columns import Alignment, columns_of, index_of, level_values
from gamwarm.errors import InvalidInput
from gamwarm.identity import Fingerprinter
from gamwarm.records import GROUP, group_label

__all__ = ["Fold", "folds_of", "label_of"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """The rows that stay when one group is left out; or all rows.

    Attributes
    ----------
    group : str or None
        Label of the group that is left out; None: all rows.
    """

    group: str | None
    _codes: Codes
    _code: int
    _column: Any = None

    @property
    def rows(self) -> Any:
        """The rows to fit: a mask of shape (n,), made when asked for.

        An array, or where the groups are a pandas Series a Series with its index, which
        `engine.Bound.case` and pandas compare with that of the data.
        """
        return self._mask(self._codes != self._code)

    @property
    def left_out(self) -> Any:
        """The rows left out: a mask of shape (n,), as ``rows``."""
        return self._mask(self._codes == self._code)

    def _mask(self, mask: npt.NDArray[np.bool_]) -> Any:
        return mask if self._column is None else type(self._column)(mask, index=self._column.index)

    @property
    def attributes(self) -> dict[str, str]:
        """The labels that `leave_one_out` gives its entries: the group; none for all rows."""
        return {} if self.group is None else {GROUP: self.group}

    @property
    def n_rows(self) -> int:
        """Number of rows to fit."""
        return int(np.count_nonzero(self._codes != self._code))

    @property
    def n_left_out(self) -> int:
        """Number of rows left out."""
        return len(self._codes) - self.n_rows

    def __repr__(self) -> str:
        what = "all rows" if self.group is None else f"without {self.group!r}"
        return f"<Fold {what}: {self.n_rows} of {len(self._codes)} rows>"


def folds_of(groups: Any) -> list[Fold]:
    """Return one fold per group, largest first (ties by label): a round's fits are of one size.

    Parameters
    ----------
    groups : array_like of shape (n,), or several such columns
        The group of every row: subjects, sites, months; for k-fold cross-validation the number of
        the fold. Of a mapping, a data frame or a two-dimensional array, each combination of its
        columns that occurs is a group.

    Raises
    ------
    InvalidInput, InvalidType
        Not one column, fewer than two groups, a row without a label (which is named), or labels
        that have no order.
    """
    labels, codes = _coded(groups)
    sizes = np.bincount(codes, minlength=len(labels))
    order = sorted(range(len(labels)), key=lambda k: (sizes[k], labels[k]))
    return [Fold(labels[k], codes, k, _indexed(groups)) for k in order]


def all_rows(groups: Any) -> Fold:
    """Return the fold that leaves nothing out."""
    return Fold(None, _coded(groups)[1], -1, _indexed(groups))


def digest_of(folds: list[Fold]) -> str:
    """Return a digest of the rows that the folds leave out: ranks compare it."""
    if not folds:
        return ""
    hashed = Fingerprinter()
    for fold in folds:
        hashed.write_str(str(fold.group))
        hashed.write_u64(fold._code)
    hashed.write_bytes(folds[0]._codes.astype("<i8").tobytes())
    return hashed.hexdigest()


def label_of(group: Any) -> str:
    """Return the label of a group: of one column its text, of several columns theirs in a row."""
    return ", ".join(map(group_label, group)) if isinstance(group, tuple) else group_label(group)


def _indexed(groups: Any) -> Any:
    several = _several(groups)
    first = groups if several is None else next(iter(several.values()))
    return None if index_of(first) is None else first


def _several(groups: Any) -> dict[str, Any] | None:
    """Return the columns of a table of groups by name, None if it is one column."""
    if isinstance(groups, np.ndarray) and groups.ndim == 2:
        return {str(k): groups[:, k] for k in range(groups.shape[1])}
    if isinstance(groups, Mapping) or hasattr(groups, "columns") or hasattr(groups, "column_names"):
        return dict(columns_of(groups))
    return None


def _coded(groups: Any) -> tuple[list[str], Codes]:
    """Return the labels as text and, per row, which of them it has."""
    several = _several(groups)
    if several is None:
        values, codes = level_values(groups, "groups")
        labels = [label_of(value) for value in values]
    else:
        labels, codes = _crossed(several)
    if len(labels) < 2:
        raise InvalidInput(f"groups has {len(labels)} group(s); leaving one out needs two or more")
    if len(set(labels)) < len(labels):
        raise InvalidInput("groups has different labels with the same text; make them distinct strings")
    return labels, codes.astype(np.int64, copy=False)


def _crossed(columns: Mapping[str, Any]) -> tuple[list[str], Codes]:
    """Return labels and codes of the combinations that occur, sorted by the first column first."""
    if not columns:
        raise InvalidInput("groups has no columns; give one or more columns of labels")
    every, alignment = [], Alignment()
    for name, column in columns.items():
        alignment.add(f"groups column {name!r}", column)
        every.append(level_values(column, f"groups column {name!r}"))
    lengths = {name: len(codes) for name, (_, codes) in zip(columns, every, strict=True)}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"the columns of groups have {lengths} rows; make them agree")
    rows, codes = np.unique(np.column_stack([codes for _, codes in every]), axis=0, return_inverse=True)
    labels = [label_of(tuple(levels[k] for (levels, _), k in zip(every, row, strict=True))) for row in rows.tolist()]
    return labels, codes.reshape(-1).astype(np.int64)
