"""An ``optimizer=`` for scikit-learn's Gaussian processes."""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import numpy as np

from gamwarm.adapters.methods import METHODS
from gamwarm.adapters.scipy_minimize import run_minimize
from gamwarm.checks import FloatArray
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.store import FitStore, WarmStartStore, refuse_without_store

__all__ = ["GaussianProcessOptimizer"]

# Parameters of an estimator that decide no answer, or enter elsewhere.
_NOT_NAMED: Final = frozenset(
    {"kernel", "optimizer", "n_restarts_optimizer", "random_state", "copy_X_train", "n_jobs", "warm_start"}
)


class GaussianProcessOptimizer:
    """``GaussianProcessRegressor(kernel, optimizer=GaussianProcessOptimizer(store))``; classifiers
    too.

    Data, kernel and parameters are those of the estimator that calls. The same fit again costs one
    evaluation of the likelihood and its gradient; other rows begin at the hyperparameters of the
    fit with most rows. Restarts (``n_restarts_optimizer``) stay restarts: each begins at its own
    random point or, if ``random_state`` is an integer and they can be told apart, at what was found
    from the same point before.

    Parameters
    ----------
    store : FitStore, path or None
        With a path the file is opened for each search, so that the estimator may travel to the
        workers of a pool; an open store does not travel: there the search is cold.
    name : str
        Set it where kernels of your own change and keep their names.
    method : str
        Any of SciPy's. A method without bounds (BFGS, whose inverse Hessian is stored too) is
        followed by L-BFGS-B if its answer lies outside the kernel's.
    options : mapping, optional
        As `minimize` takes them. Default: those that scikit-learn uses.
    data : mapping of str to values, optional
        What a kernel of your own reads besides its parameters.
    parent, attributes
        As in `minimize`.

    Attributes
    ----------
    found : scipy.optimize.OptimizeResult or None
        What the last search found: see `minimize`.
    """

    found: Any = None

    def __init__(
        self,
        store: FitStore | str | os.PathLike[str] | None,
        *,
        name: str = "gaussian process",
        method: str = "L-BFGS-B",
        options: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        parent: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
    ) -> None:
        if not (store is None or isinstance(store, (str, os.PathLike)) or callable(getattr(store, "fit", None))):
            raise InvalidType(
                f"store is {type(store).__name__}; give a path, what gamwarm.open(path) returned, or None"
            )
        if store is None:
            refuse_without_store(parent=parent)
        if str(method).lower() not in METHODS:
            raise InvalidInput(f"method is {method!r}; use one of {', '.join(each.name for each in METHODS.values())}")
        self.store, self.name, self.method, self.options = store, name, METHODS[method.lower()], options
        self.data, self.parent, self.attributes = data, parent, attributes

    def __repr__(self) -> str:
        return f"GaussianProcessOptimizer({self.name!r}, method={self.method.name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # scikit-learn copies what an estimator is made of; a store cannot be copied

    def __getstate__(self) -> dict[str, Any]:
        is_path = isinstance(self.store, (str, os.PathLike))
        return {**vars(self), "store": self.store if is_path else None, "found": None}

    def __call__(self, obj_func: Callable[..., Any], initial_theta: Any, bounds: Any) -> tuple[FloatArray, float]:
        """Minimize as scikit-learn asks for; return theta and the value there."""
        if isinstance(self.store, (str, os.PathLike)):
            with WarmStartStore.open(self.store) as store:
                return self._search(store, obj_func, initial_theta, bounds)
        return self._search(self.store, obj_func, initial_theta, bounds)

    def _search(
        self, store: FitStore | None, obj_func: Callable[..., Any], theta: Any, bounds: Any
    ) -> tuple[FloatArray, float]:
        model = _estimator_of(obj_func)
        name = f"{self.name}, {type(model).__name__}"
        if not np.array_equal(theta, model.kernel.theta):
            if isinstance(model.random_state, (int, np.integer)):
                name += f", from {hashlib.sha256(np.asarray(theta).tobytes()).hexdigest()[:12]}"
            else:
                store = None
        parameters = model.get_params(deep=False)
        data = {
            "X": model.X_train_,
            "y": model.y_train_,
            "kernel": _description(model.kernel_),
            "parameters": {key: value for key, value in parameters.items() if key not in _NOT_NAMED},
            "data": {} if self.data is None else self.data,
        }

        def search(method: Any, options: Any, name: str) -> Any:
            if options is None and method.name == "L-BFGS-B":
                options = {"ftol": 2.220446049250313e-09}
            return run_minimize(
                obj_func, theta, (), store=store, name=name, data=data, jac=True, method=method.name,
                bounds=bounds if method.bounds else None, options=options,
                parent=None if store is None else self.parent,
                attributes=self.attributes, n_rows=len(model.X_train_), believes_values=True,
            )  # fmt: skip

        found = search(self.method, self.options, name)
        limits = np.asarray(bounds, dtype=np.float64)
        if ((found.x < limits[:, 0]) | (found.x > limits[:, 1])).any():
            found = search(METHODS["l-bfgs-b"], None, name)
        self.found = found
        if not found.success:
            warnings.warn(f"{self.method.name} did not converge: {found.message}", RuntimeWarning, stacklevel=4)
        return found.x, found.fun


def _estimator_of(obj_func: Callable[..., Any]) -> Any:
    """Return the estimator whose likelihood this is: scikit-learn's function closes over it."""
    closed = inspect.getclosurevars(obj_func).nonlocals.values() if inspect.isfunction(obj_func) else ()
    for each in closed:
        if all(hasattr(each, name) for name in ("X_train_", "y_train_", "kernel", "kernel_", "random_state")):
            return each
    raise InvalidInput(
        "the function to minimize does not belong to a Gaussian process of scikit-learn; use "
        "gamwarm.adapters.minimize, with the data that it reads"
    )


def _description(kernel: Any) -> dict[str, Any]:
    """Return what a kernel is, without the values of its free hyperparameters."""
    free = {each.name for each in kernel.hyperparameters if not each.fixed}
    described: dict[str, Any] = {"kind": f"{type(kernel).__module__}.{type(kernel).__qualname__}"}
    for key, value in kernel.get_params(deep=False).items():
        if isinstance(value, (list, tuple)) and any(hasattr(each, "hyperparameters") for each in value):
            described[key] = [_description(each) for each in value]
        elif hasattr(value, "hyperparameters"):
            described[key] = _description(value)
        elif key not in free:
            described[key] = value
    return described
