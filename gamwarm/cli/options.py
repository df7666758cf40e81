"""What all subcommands share: the file, ``--json``, ``--debug``, errors as a line and a code."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gamwarm.checks import file_path
from gamwarm.cli.exit_codes import BadUsage, Exit, exit_of
from gamwarm.cli.wording import in_own_words
from gamwarm.display import visible
from gamwarm.errors import GamwarmError

__all__ = ["COMMANDS", "Debug", "File", "Json", "Key", "Wait", "command"]

File = Annotated[Path, typer.Argument(metavar="FILE", help="a gamwarm file", show_default=False)]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="an exact key, descriptor key or entry id, or its beginning", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs")]
Debug = Annotated[bool, typer.Option("--debug", help="a traceback instead of one line")]
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0.0, help="how long to wait for another writer")]

COMMANDS: Final[dict[str, tuple[str, Callable[..., Exit]]]] = {}
"""Subcommands: a short description of each."""


def command(name: str, what: str) -> Callable[[Callable[..., Exit]], Callable[..., Exit]]:
    """Make a function a subcommand: it returns the exit code; an exception is one line on stderr.

    Every subcommand gets ``--debug`` in addition to its own options.
    """

    def register(function: Callable[..., Exit]) -> Callable[..., Exit]:
        @functools.wraps(function)
        def guarded(debug: bool, **given: Any) -> Exit:
            try:
                _speak_through_stderr()
                code = function(**{name: _expanded(name, value) for name, value in given.items()})
                sys.stdout.flush()
            except BrokenPipeError:  # `| head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = Exit.OK
            except (Exception, KeyboardInterrupt) as error:
                code = exit_of(error)
                report(error, debug=debug)
            raise typer.Exit(code)

        of_function = inspect.signature(function, eval_str=True)
        everywhere = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
        parameters = [*of_function.parameters.values(), everywhere]
        for each in parameters:
            for information in getattr(each.annotation, "__metadata__", ()):
                # What cannot be read is an error with a code of its own, not one of usage.
                information.readable = False
        guarded.__signature__ = of_function.replace(parameters=parameters)  # type: ignore[attr-defined]
        guarded.__annotations__ = {each.name: each.annotation for each in parameters}
        COMMANDS[name] = what, guarded
        return guarded

    return register


def _expanded(name: str, value: Any) -> Any:
    """Paths with ``~`` expanded, which no shell does in ``--output=~/new.h5``."""
    if isinstance(value, Path):
        return file_path(value, name)
    if isinstance(value, float) and math.isnan(value):
        raise BadUsage(f"{name} is not a number")
    return [_expanded(name, each) for each in value] if isinstance(value, list) else value


def report(error: BaseException, *, debug: bool) -> None:
    """Write one line about an error to standard error; all of it where asked."""
    if debug:
        traceback.print_exception(error)
        return
    if isinstance(error, KeyboardInterrupt):
        text = "ended by Ctrl-C"
    elif isinstance(error, GamwarmError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename or 'file'}: {error.strerror or error}"
    else:
        text = f"unexpected {type(error).__name__}: {error}; --debug shows where"
    print(visible(f"gamwarm: {in_own_words(' '.join(text.split()))}"), file=sys.stderr)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = in_own_words(" ".join(record.getMessage().split()))
        print(f"gamwarm: {record.levelname.lower()}: {text}", file=sys.stderr)


def _speak_through_stderr() -> None:
    log = logging.getLogger("gamwarm")
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines(logging.WARNING))
    log.propagate = False
