"""The command ``gamwarm``: look through, check and tend files of kept fits, from a shell.

Nothing here decides anything about fits; every subcommand is a reading or a call of the floors
below.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

MISSING_EXTRA = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (docs/command.md has the table)."""
    try:
        import rich  # noqa: F401, PLC0415 - the extra is asked for when it is needed, not when gamwarm is imported
        import typer  # noqa: F401, PLC0415
    except ImportError as error:
        print(f"gamwarm: the command needs its extra ({error}): pip install 'gamwarm[cli]'", file=sys.stderr)
        return MISSING_EXTRA
    from gamwarm.cli.app import run  # noqa: PLC0415

    return run(arguments)
