"""How far a campaign is: a bar on a terminal, a line per quarter elsewhere (a log, a pipe)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gamwarm.display import visible

__all__ = ["bar"]

Shown = Callable[[int, int], None]


@contextmanager
def bar(label: str = "folds", console: Any = None) -> Iterator[Shown]:
    """Show progress: ``with bar("folds") as shown: leave_one_out(…, progress=shown)``. Local.

    Parameters
    ----------
    label : str
    console : rich.console.Console, optional
        Where to. Default: standard error. Without rich installed there are lines and no bar.

    Yields
    ------
    callable
        ``shown(done, total)``.
    """
    if console is None:
        console = _console()
    began = time.perf_counter()
    if console is not None and console.is_terminal and not console.quiet:
        from rich.progress import (  # noqa: PLC0415 - optional
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as live:
            task = live.add_task(label, total=None)
            yield lambda done, total: live.update(task, completed=done, total=total)
        return
    last = 0

    def line(done: int, total: int) -> None:
        nonlocal last
        quarters, last = 4 * last // total, done
        if 4 * done // total > quarters:
            text = visible(f"{label:<24} {done:>4}/{total} fits {time.perf_counter() - began:6.1f} s")
            if console is None:
                print(text, file=sys.stderr, flush=True)
            else:
                console.print(text, highlight=False)

    yield line


def _console() -> Any:
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return Console(stderr=True)
