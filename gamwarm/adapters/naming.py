"""Names of fits whose model is a function: hashed values, and a name for what cannot be hashed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from gamwarm.checks import as_str
from gamwarm.errors import InvalidType
from gamwarm.identity import Fingerprinter, NamedFamily, write_value

__all__ = ["check_data", "family_of", "rows_of", "warn_without_data"]

log = logging.getLogger("gamwarm")
_warned: Final[set[str]] = set()


def family_of(mark: str, kind: str, name: Any, parts: Mapping[str, Any]) -> NamedFamily:
    """Return the family of a function called ``name`` and the named values that it depends on.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the value that cannot be hashed.
    """
    fp = Fingerprinter()
    fp.write_str(mark)
    for part, value in parts.items():
        fp.write_str(part)
        write_value(fp, value, part)
    return NamedFamily(f"{kind}:{as_str(name, 'name')}", fp.hexdigest())


def check_data(data: Any, what: str = "data") -> Any:
    """Return data, or an empty mapping for None; other things than mappings and tables raise."""
    if data is None:
        return {}
    if isinstance(data, Mapping) or hasattr(data, "columns") or hasattr(data, "column_names"):
        return data
    raise InvalidType(f"{what} is {type(data).__name__}; give a mapping of names to values, or a data frame")


def warn_without_data(name: str) -> None:
    """Warn, once per name, that nothing else tells its fits apart."""
    if name not in _warned:
        _warned.add(name)
        log.warning("the fits called %r have no data= to tell them apart; pass it, or data={} if there is none", name)


def rows_of(data: Any) -> int:
    """Return the longest first axis of the values in ``data``, or of ``data`` itself if a table."""
    values = data.values() if isinstance(data, Mapping) else [data]
    return max((_length(value) for value in values), default=0)


def _length(value: Any) -> int:
    if isinstance(value, (str, bytes, Mapping)):
        return 0
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return int(shape[0]) if shape else 0
    return len(value) if hasattr(value, "__len__") else 0
