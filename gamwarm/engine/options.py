"""Which options the reference engine implements; others are refused unless at their defaults."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from gamwarm.checks import require
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput, UnsupportedOption
from gamwarm.problem import BlockwiseFitOptions

__all__ = ["IMPLEMENTED", "check_options"]

IMPLEMENTED = frozenset({"inner_max_cycles", "inner_tol", "outer_max_iter", "outer_tol", "rho_bound"})
_DEFAULT = BlockwiseFitOptions()
_USUAL = {f.name: getattr(_DEFAULT, f.name) for f in fields(BlockwiseFitOptions) if f.name not in IMPLEMENTED}


def check_options(options: BlockwiseFitOptions | None) -> BlockwiseFitOptions:
    """Return the options of a fit, refusing by name those that the engine would ignore."""
    if options is None:
        return BlockwiseFitOptions()
    require("options", options, (BlockwiseFitOptions, type(None)))
    for name, usual in _USUAL.items():
        value = getattr(options, name)
        if value is not usual and not np.array_equal(value, usual):
            raise UnsupportedOption(
                f"gamwarm.engine does not implement option {name} (given {brief_repr(value)}); leave it at {usual!r}",
                option=name,
            )
    for name in ("inner_tol", "outer_tol"):
        if not getattr(options, name) > 0.0:
            raise InvalidInput(f"option {name} is {getattr(options, name)}; gamwarm.engine needs it above 0")
    return options
