"""The subcommands, put together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from typing import Annotated, Any, Final

import typer

from gamwarm.cli import archives, doctor, lineage, listing, maintenance  # noqa: F401 - they register their subcommands
from gamwarm.cli.exit_codes import Exit
from gamwarm.cli.help import PlainCommand, PlainGroup
from gamwarm.cli.options import COMMANDS
from gamwarm.display import visible_lines
from gamwarm.version import __version__

__all__ = ["ORDER", "app", "run"]

app = typer.Typer(
    name="gamwarm",
    cls=PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="List, verify and maintain files of stored fits. Exit codes and examples: docs/command.md.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gamwarm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


ORDER: Final = (
    *("ls", "show", "stats", "lineage", "explain"),
    *("verify", "salvage", "merge", "evict", "pin", "compact"),
    *("export", "import", "report", "doctor"),
)
"""How help lists them; a subcommand that is missing here is not offered, which a test notices."""

for _name in ORDER:
    _what, _function = COMMANDS[_name]
    app.command(_name, cls=PlainCommand, short_help=_what)(_function)


_Refusal: Final[Any] = typer.BadParameter.__mro__[2]
"""Click's own base class for usage errors, which typer may bundle under another name."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command on ``arguments`` (default: the process's own); return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(given, prog_name="gamwarm", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except _Refusal as wrong:
        said = StringIO()
        wrong.show(file=said)
        print(visible_lines(said.getvalue().rstrip("\n")), file=sys.stderr)
        code = wrong.exit_code
    except typer.Abort:
        code = Exit.INTERRUPTED
    return code if isinstance(code, int) else int(code is not None)
