"""R in this process, with mgcv: calls, and numbers to and fro."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gamwarm.errors import MissingDependency
from gamwarm.interrupts import critical

__all__ = ["Session", "entries", "plain", "session", "wrapped"]


class Session:
    """The functions of session.R.

    Every call of R is a critical section: an exception in the middle of one would leave R's stack
    behind. A signal is delivered when R returns, or in a callback that asks for it.
    """

    def __init__(self) -> None:
        libraries = os.environ.get("LD_LIBRARY_PATH")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of environment variables that R sets
                from rpy2 import rinterface  # noqa: PLC0415 - starts R; only who fits with mgcv needs it

                rinterface.initr()
        except Exception as error:  # without R, rpy2 raises all kinds
            raise MissingDependency(
                f"gamwarm.adapters.mgcv needs R and rpy2 ({type(error).__name__}: {error}): install R with mgcv "
                "(apt-get install r-base-core r-cran-mgcv), then pip install 'gamwarm[mgcv]'"
            ) from None
        # R has its libraries by now; programs that this process starts are to have theirs.
        if libraries is None:
            os.environ.pop("LD_LIBRARY_PATH", None)
        else:
            os.environ["LD_LIBRARY_PATH"] = libraries
        self.rinterface = rinterface
        if not rinterface.evalr('c(requireNamespace("mgcv", quietly = TRUE))')[0]:
            raise MissingDependency("R has no package mgcv; install it: apt-get install r-cran-mgcv")
        source = Path(__file__).with_name("session.R").read_text()
        functions = rinterface.evalr(source)
        self._functions = dict(zip(functions.names, functions, strict=True))
        self.version = str(self._functions["version"]()[0])

    @critical
    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of session.R; arguments are converted, the value is R's object."""
        return self._functions[name](*[wrapped(argument) for argument in arguments])

    def callback(self, function: Callable[..., Any]) -> Any:
        """Return a function that R can call. It must not raise."""
        return self.rinterface.rternalize(function)


@cache
def session() -> Session:
    """Return R, started at the first call.

    Raises
    ------
    MissingDependency
        There is no R, no mgcv or no rpy2; with the command that installs it.
    """
    return Session()


def wrapped(value: Any) -> Any:
    """Return R's form of numbers, strings, arrays, lists and mappings of them."""
    r = session().rinterface
    if value is None:
        return r.NULL
    if isinstance(value, bool):
        return r.BoolSexpVector([value])
    if isinstance(value, int):
        return r.IntSexpVector([value])
    if isinstance(value, float):
        return r.FloatSexpVector([value])
    if isinstance(value, str):
        return r.StrSexpVector([value])
    if isinstance(value, np.ndarray):
        numbers: Any = np.ascontiguousarray(value, dtype=np.float64 if value.dtype.kind == "f" else np.int32)
        return (r.FloatSexpVector if value.dtype.kind == "f" else r.IntSexpVector).from_memoryview(memoryview(numbers))
    if isinstance(value, Mapping):
        made = r.ListSexpVector([wrapped(each) for each in value.values()])
        made.names = r.StrSexpVector(list(value))
        return made
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(each, str) for each in value):
            return r.StrSexpVector(list(value))
        return r.ListSexpVector([wrapped(each) for each in value])
    return value


def plain(value: Any) -> Any:
    """Return Python's form of R's vectors and lists; functions and environments stay R's."""
    r = session().rinterface
    if value is r.NULL:
        return None
    if isinstance(value, r.ListSexpVector):
        parts = [plain(each) for each in value]
        return parts if value.names is r.NULL else dict(zip(value.names, parts, strict=True))
    if isinstance(value, r.StrSexpVector):
        return [None if each is r.NA_Character else str(each) for each in value]
    if isinstance(value, r.BoolSexpVector):
        return np.array([bool(each) for each in value], dtype=np.bool_)
    if isinstance(value, (r.FloatSexpVector, r.IntSexpVector)):
        kind = np.float64 if isinstance(value, r.FloatSexpVector) else np.int64
        array: Any = np.array(value.memoryview(), dtype=kind).ravel(order="F")
        shape = value.do_slot("dim") if "dim" in value.list_attrs() else r.NULL
        return array if shape is r.NULL else array.reshape(tuple(shape), order="F")
    return value


def entries(value: Any) -> dict[str, Any]:
    """Return the entries of a named list, unconverted."""
    return dict(zip(value.names, value, strict=True))
