"""The user's function, evaluated once a point and never outside its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from scipy.optimize._numdiff import approx_derivative

from gamwarm.adapters.methods import DIFFERENCES, METHODS, Method
from gamwarm.checks import FloatArray
from gamwarm.errors import InvalidInput, InvalidType

__all__ = ["Function"]

_approx: Any = approx_derivative
_MOST_REMEMBERED: Final = 4_000_000  # bytes of points
# Relative: what the order of a sum changes, and far below what another function differs by.
_SAME_VALUE: Final = 1e-9
# Relative: ten times what the ridge of a projection takes away.
_TRANSFER_ERROR: Final = 1e-7


class Function:
    """Values and gradients of a function of x, by its own gradient or by SciPy's differences.

    Attributes
    ----------
    points, calls, gradient_calls : int
        Points evaluated (those of differences apart), calls of ``fun``, calls of ``jac``.
    is_known : bool
        False where there is no function to evaluate.
    """

    def __init__(
        self,
        fun: Callable[..., Any] | None,
        jac: Any,
        args: tuple[Any, ...],
        bounds: tuple[FloatArray, FloatArray] | None,
        size: int,
        method: Method = METHODS["bfgs"],
        options: Mapping[str, Any] = MappingProxyType({}),
        name: str = "fun",
        gradient_name: str = "jac",
    ) -> None:
        self._fun, self._jac, self._args, self._name, self._gradient_name = fun, jac, args, name, gradient_name
        self.is_known = fun is not None
        self.bounds = bounds
        lower, upper = (np.full(size, -np.inf), np.full(size, np.inf)) if bounds is None else bounds
        self._lower, self._upper = lower, upper
        self._free = np.flatnonzero(lower < upper)
        self._scheme = jac if isinstance(jac, str) and jac in DIFFERENCES else "2-point"
        self._rel_step = options.get("finite_diff_rel_step")
        # As SciPy does: an absolute step where no scheme was asked for.
        self._abs_step = None if isinstance(jac, str) or not method.jac else options.get("eps", method.eps)
        self._most = max(8, min(4 * size + 8, _MOST_REMEMBERED // (8 * max(size, 1))))
        self._values: dict[bytes, float] = {}
        self._gradients: dict[bytes, FloatArray] = {}
        self.points = self.calls = self.gradient_calls = 0

    def inside(self, x: Any) -> FloatArray:
        """Return a copy of x with its entries clipped to the bounds."""
        return np.clip(np.array(x, dtype=np.float64), self._lower, self._upper)

    def onto_bounds(self, x: FloatArray) -> FloatArray:
        """Return a copy whose entries are at their bound if they are but for a transfer's error.

        A search that begins a hair inside a bound may take the step to it for convergence.
        """
        at = np.clip(x, self._lower, self._upper)
        for bound in (self._lower, self._upper):
            close = np.isfinite(bound) & (np.abs(at - bound) <= _TRANSFER_ERROR * np.abs(bound))
            at = np.where(close, bound, at)
        return np.asarray(at, dtype=np.float64)

    def _call(self, x: Any) -> Any:
        assert self._fun is not None
        self.calls += 1
        return self._fun(x, *self._args)

    def agrees(self, x: Any, stored: float | None) -> bool:
        """Whether the function at x is what was stored for it, but for rounding."""
        return stored is not None and bool(abs(self.value(x) - stored) <= _SAME_VALUE * abs(stored))

    def note(self, x: Any, value: float) -> None:
        """Remember a value that was evaluated elsewhere."""
        self._remember(self._values, self.inside(x).tobytes(), float(value))

    def value(self, x: Any) -> float:
        """Return the function at x, or at the nearest point inside the bounds."""
        inside = self.inside(x)
        at = inside.tobytes()
        if at not in self._values:
            found = self._call(inside)
            self.points += 1
            if self._jac is True:
                try:
                    found, gradient = found
                except (TypeError, ValueError):
                    raise InvalidType(
                        f"{self._name} did not return (value, gradient), as jac=True says; return both"
                    ) from None
                self._remember(self._gradients, at, self._checked(gradient))
            self._remember(self._values, at, _number(found, self._name))
        return self._values[at]

    def gradient(self, x: Any) -> Any:
        """Return a copy of the gradient there, of shape (size,); 0 for what its bounds fix."""
        if np.iscomplexobj(x):  # a second derivative by complex steps
            return np.asarray(self._jac(x, *self._args))
        inside = self.inside(x)
        at = inside.tobytes()
        if at not in self._gradients:
            if callable(self._jac):
                self.gradient_calls += 1
                self._remember(self._gradients, at, self._checked(self._jac(inside, *self._args)))
            else:
                value = self.value(inside)
                if at not in self._gradients:
                    self._remember(self._gradients, at, self._differences(inside, value))
        return np.array(self._gradients[at])

    def _checked(self, gradient: Any) -> FloatArray:
        try:
            given = np.asarray(gradient)
        except ValueError:  # ragged
            given = np.asarray(None)
        if given.dtype.kind not in "biuf":
            raise InvalidType(f"the gradient is {type(gradient).__name__}; let {self._gradient_name} return an array")
        if given.size != self._lower.size:
            raise InvalidInput(
                f"the gradient has {given.size} numbers, x has {self._lower.size}; check {self._gradient_name}"
            )
        return np.array(given, dtype=np.float64).ravel()

    def _differences(self, x: FloatArray, value: float) -> FloatArray:
        self.gradient_calls += 1
        free, slopes = self._free, np.zeros(x.size)

        def moved(part: Any) -> Any:
            whole = np.array(x, dtype=np.result_type(part, np.float64))
            whole[free] = part
            return np.asarray(self._call(whole)).reshape(-1)[:1]

        def step(given: Any) -> Any:
            return given if given is None or np.ndim(given) == 0 else np.asarray(given)[free]

        if free.size:
            slopes[free] = np.ravel(
                _approx(
                    moved, x[free], method=self._scheme, rel_step=step(self._rel_step), abs_step=step(self._abs_step),
                    f0=np.array([value]), bounds=(self._lower[free], self._upper[free]),
                )
            )  # fmt: skip
        return slopes

    def hessian(self, hess: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``hess`` (or ``hessp``) with the arguments, inside the bounds."""
        return lambda x, *direction: hess(self.inside(x), *direction, *self._args)

    def _remember(self, known: dict[bytes, Any], at: bytes, found: Any) -> None:
        if len(known) >= self._most:
            del known[next(iter(known))]
        known[at] = found


def _number(found: Any, name: str) -> float:
    try:
        return float(np.asarray(found).item())
    except (TypeError, ValueError):
        shape = np.shape(found) if isinstance(found, np.ndarray) else ()
        what = f"an array of shape {shape}" if shape else type(found).__name__
        raise InvalidType(
            f"{name} returned {what}, which is not a single real number; return a float"
            f"{' (or value and gradient, with jac=True)' if name == 'fun' else ''}"
        ) from None
