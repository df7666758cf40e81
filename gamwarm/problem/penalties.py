"""Quadratic penalties ``lambda * beta' S beta`` of one block, by their matrix S (p x p).

A kind is declared here, in its class statement: the tag and the fields that the exact key takes, in
its order. What else knows a kind by its name is the list of public names.

Matrices are finite and symmetric within 1e-10 * max(1, max|S|); a Kronecker product checks each
factor by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeGuard, runtime_checkable

import numpy as np

from gamwarm.checks import FloatArray, as_finite_float, as_int, as_str, symmetric_matrix
from gamwarm.errors import InvalidInput, InvalidType

__all__ = [
    "PENALTY_KINDS",
    "BlockwisePenalty",
    "DensePenalty",
    "FixedPenalty",
    "KroneckerPenalty",
    "LabeledPenalty",
    "Penalty",
    "is_penalty",
    "penalty_form",
]


@runtime_checkable
class Penalty(Protocol):
    """What every penalty kind offers."""

    @property
    def dim(self) -> int:
        """Width p of the block it belongs to."""
        ...

    @property
    def precision_label(self) -> str | None:
        """Label that ties this smoothing parameter to others of the same label, if any."""
        ...

    @property
    def fixed_log_lambda(self) -> float | None:
        """The value, if this smoothing parameter is not optimised."""
        ...

    def to_dense(self) -> FloatArray:
        """S as an array of shape (p, p)."""
        ...


PENALTY_KINDS: Final[dict[type, tuple[str, dict[str, str]]]] = {}
"""Each kind's tag in the exact key, and the form of each field (matrix, integer, penalty …)."""


class _Kind:
    def __init_subclass__(cls, tag: str = "", **forms: str) -> None:
        if tag in (known for known, _ in PENALTY_KINDS.values()):
            raise TypeError(f"{cls.__name__}: another kind of penalty has the tag {tag!r}")
        if tag:
            PENALTY_KINDS[cls] = tag, forms


class _Untied(_Kind):
    """A penalty with a smoothing parameter of its own."""

    @property
    def precision_label(self) -> str | None:
        return None

    @property
    def fixed_log_lambda(self) -> float | None:
        return None


@dataclass(frozen=True, eq=False)
class DensePenalty(_Untied, tag="dense", matrix="matrix"):
    """S given in full.

    Parameters
    ----------
    matrix : array of shape (p, p)
    """

    matrix: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", symmetric_matrix(self.matrix, "penalty matrix"))

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[0])

    def to_dense(self) -> FloatArray:
        return np.array(self.matrix)


@dataclass(frozen=True, eq=False)
class KroneckerPenalty(_Untied, tag="kron", left="matrix", right="matrix"):
    """S = left ⊗ right, row index ``i_left * p_right + i_right``.

    Parameters
    ----------
    left, right : arrays of shape (p_left, p_left), (p_right, p_right)
    """

    left: Any
    right: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", symmetric_matrix(self.left, "Kronecker penalty, left factor"))
        object.__setattr__(self, "right", symmetric_matrix(self.right, "Kronecker penalty, right factor"))

    @property
    def dim(self) -> int:
        return int(self.left.shape[0]) * int(self.right.shape[0])

    def to_dense(self) -> FloatArray:
        return np.kron(self.left, self.right)


@dataclass(frozen=True, eq=False)
class BlockwisePenalty(_Untied, tag="blockwise", start="integer", stop="integer", total_dim="integer", local="matrix"):
    """S is ``local`` on coefficients ``start:stop`` and zero elsewhere.

    Parameters
    ----------
    local : array of shape (stop - start, stop - start)
    start, stop : int
        Half-open range of coefficients.
    total_dim : int
        Width p of the block.
    """

    local: Any
    start: int
    stop: int
    total_dim: int

    def __post_init__(self) -> None:
        local = symmetric_matrix(self.local, "blockwise penalty, local matrix")
        start = as_int(self.start, "blockwise penalty, start")
        stop = as_int(self.stop, "blockwise penalty, stop")
        total = as_int(self.total_dim, "blockwise penalty, total_dim")
        if not start <= stop <= total:
            raise InvalidInput(
                f"blockwise penalty covers {start}:{stop} of {total}; expected start <= stop <= total_dim"
            )
        if local.shape[0] != stop - start:
            raise InvalidInput(
                f"blockwise penalty, local matrix has shape {local.shape}; {start}:{stop} needs "
                f"({stop - start}, {stop - start})"
            )
        for name, value in (("local", local), ("start", start), ("stop", stop), ("total_dim", total)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        return self.total_dim

    def to_dense(self) -> FloatArray:
        dense = np.zeros((self.total_dim, self.total_dim))
        dense[self.start : self.stop, self.start : self.stop] = self.local
        return dense


def is_penalty(value: object) -> TypeGuard[Penalty]:
    """Whether ``value`` offers the protocol; of the kinds of this module it is known."""
    return type(value) in PENALTY_KINDS or isinstance(value, Penalty)


def _check_inner(inner: object, what: str) -> None:
    if not is_penalty(inner):
        raise InvalidType(f"{what} must wrap a penalty; it wraps {type(inner).__name__}")


def penalty_form(penalty: Penalty) -> str:
    """Return in words what a penalty is, without its matrices.

    Such as ``dense``, ``kron 5 x 4``, ``blockwise 7:8``, ``labeled wiggliness: dense`` or ``fixed
    2.0: dense``; of a kind that is not of this module ``other``.
    """
    match penalty:
        case LabeledPenalty():
            return f"labeled {penalty.label}: {penalty_form(penalty.inner)}"
        case FixedPenalty():
            return f"fixed {penalty.log_lambda!r}: {penalty_form(penalty.inner)}"
        case KroneckerPenalty():
            return f"kron {penalty.left.shape[0]} x {penalty.right.shape[0]}"
        case BlockwisePenalty():
            return f"blockwise {penalty.start}:{penalty.stop}"
    return "dense" if isinstance(penalty, DensePenalty) else "other"


_LABELED: Final = re.compile(
    r"labeled (.*?): (labeled .*|fixed .*|dense|other|kron \d+ x \d+|blockwise \d+:\d+)", re.DOTALL
)


def tied_label(form: str) -> tuple[str | None, bool]:
    """Return, of what `penalty_form` says, the label that ties it and whether it is fixed."""
    around = _LABELED.fullmatch(form)
    if around is None:
        return None, form.startswith("fixed ")
    return around[1], tied_label(around[2])[1]


class _Around(_Kind):
    """A penalty that has the matrix of another."""

    inner: Penalty

    @property
    def dim(self) -> int:
        return self.inner.dim

    def to_dense(self) -> FloatArray:
        return self.inner.to_dense()


@dataclass(frozen=True, eq=False)
class LabeledPenalty(_Around, tag="labeled", label="string", inner="penalty"):
    """A penalty whose smoothing parameter is shared with every other penalty of the same label.

    Parameters
    ----------
    label : str
    inner : penalty
        Any of the other kinds.
    """

    label: str
    inner: Penalty

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", as_str(self.label, "precision label"))
        _check_inner(self.inner, f"labelled penalty {self.label!r}")

    @property
    def precision_label(self) -> str | None:
        return self.label

    @property
    def fixed_log_lambda(self) -> float | None:
        return self.inner.fixed_log_lambda


@dataclass(frozen=True, eq=False)
class FixedPenalty(_Around, tag="fixed", log_lambda="number", inner="penalty"):
    """A penalty whose log smoothing parameter is given; any label inside is ignored.

    Parameters
    ----------
    log_lambda : float
        Natural logarithm.
    inner : penalty
        Any of the other kinds.
    """

    log_lambda: float
    inner: Penalty

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_lambda", as_finite_float(self.log_lambda, "fixed log lambda"))
        _check_inner(self.inner, "fixed penalty")

    @property
    def precision_label(self) -> str | None:
        return None

    @property
    def fixed_log_lambda(self) -> float | None:
        return self.log_lambda
