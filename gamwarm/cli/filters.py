"""Which entries a subcommand is about: the options, and how ages, dates and sizes are written."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from gamwarm.cli.exit_codes import BadUsage, Exit
from gamwarm.entries import Selection

__all__ = ["parse_age", "parse_bytes", "parse_moment", "selecting"]

_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS: Final = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


_LONGEST: Final = 1e12
"""Seconds; no entry is older."""
_LARGEST: Final = 1e18
"""Bytes; no file is larger."""


def parse_age(text: str) -> float:
    """Return the seconds of ``90s``, ``15min``, ``12h``, ``30d`` or ``8w``."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise BadUsage(f"{text!r} is not an age; write 90s, 15min, 12h, 30d or 8w")
    return min(float(match[1]) * _SECONDS[match[2]], _LONGEST)


def parse_bytes(text: str) -> int:
    """Return the bytes of ``500000``, ``200MB`` or ``1.5GiB``."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise BadUsage(f"{text!r} is not a size; write bytes, or 200MB, 2GB, 1.5GiB")
    return round(min(float(match[1]) * _UNITS[(match[2] or "B").lower()], _LARGEST))


def parse_moment(text: str) -> int:
    """Return UTC microseconds of a date, a date and time (UTC by default), or an age ago."""
    if _AGE.fullmatch(text.strip()):
        return max(0, round((datetime.now(UTC).timestamp() - parse_age(text)) * 1e6))
    try:
        then = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadUsage(f"{text!r} is not a date; write 2026-11-25, 2026-11-25T14:30, or an age: 12h, 30d") from None
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return round(then.timestamp() * 1e6)


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise BadUsage(f"--attribute {text!r}; write NAME=VALUE")
    return name, value


def _option(name: str, metavar: str, what: str) -> Any:
    return Annotated[list[str] | None, typer.Option(f"--{name}", metavar=metavar, help=what)]


_WHEN: Final = "2026-11-25, 2026-11-25T14:30 (UTC), or an age: 12h, 30d"
OPTIONS: Final = {
    "select": _option("select", "KEY", "this key or entry id (its beginning)"),
    "kind": _option("kind", "KIND", "final, checkpoint or artifact"),
    "family": _option("family", "NAME", "family kind"),
    "block": _option("block", "NAME", "with this block or term"),
    "producer": _option("producer", "NAME", "engine, 'engine version' or 'gamwarm version'"),
    "job": _option("job", "ID", "the attribute 'job'"),
    "attribute": _option("attribute", "NAME=VALUE", "any attribute"),
    "since": Annotated[str | None, typer.Option("--since", metavar="WHEN", help=_WHEN)],
    "until": Annotated[str | None, typer.Option("--until", metavar="WHEN", help="before this moment")],
}


def selecting(function: Callable[..., Exit]) -> Callable[..., Exit]:
    """Give a subcommand the options that select entries, as its parameter ``selection``."""

    @functools.wraps(function)
    def with_selection(**given: Any) -> Exit:
        chosen = {name: given.pop(name) for name in OPTIONS}
        since, until = (None if chosen[name] is None else parse_moment(chosen[name]) for name in ("since", "until"))
        selection = Selection(
            keys=chosen["select"] or (),
            families=chosen["family"] or (),
            blocks=chosen["block"] or (),
            kinds=chosen["kind"] or (),
            producers=chosen["producer"] or (),
            jobs=chosen["job"] or (),
            attributes=[_attribute(text) for text in chosen["attribute"] or ()],
            since=since,
            until=until,
        )
        return function(selection=selection, **given)

    own = inspect.signature(function, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for each in own.parameters.values():
        if each.name == "selection":
            parameters += [each.replace(name=name, annotation=kind, default=None) for name, kind in OPTIONS.items()]
        else:
            parameters.append(each)
    with_selection.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_selection
