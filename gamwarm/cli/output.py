"""What the command writes: tables and text, JSON for programs, progress that can be ended."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final, TypeVar

from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gamwarm.cli.exit_codes import Interrupted
from gamwarm.display import json_text, visible, visible_lines

__all__ = [
    "Watch",
    "facts",
    "fitting",
    "followed",
    "human_bytes",
    "human_number",
    "moment",
    "page_width",
    "say",
    "seen",
    "show",
    "table",
    "watched",
    "write_json",
]

T = TypeVar("T")

WIDE: Final = 10_000
"""Width without a terminal: lines in a pipe or a file are not wrapped."""
GAP: Final = 2
REFRESH_SECONDS: Final = 0.1
SHOWN_AFTER_SECONDS: Final = 0.5
"""Progress of a short operation would only flicker."""
_BLANKS: Final = re.compile(r"[ ]+((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)


def console(*, error: bool = False, width: int | None = None) -> Console:
    """Return a console for standard output (or error), of its own width unless another is given."""
    stream = sys.stderr if error else sys.stdout
    if width is None:
        width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else WIDE
    return Console(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def page_width() -> int:
    """Return the columns that a listing may fill."""
    return console().width


def show(*things: Any, width: int | None = None) -> None:
    """Print tables, trees and lines to standard output, without blanks at the ends of lines.

    Lines are not broken: text longer than the terminal is a key or a path, and must survive a copy.
    """
    to = console(width=width)
    with to.capture() as captured:
        for thing in things:
            to.print(_Visible(thing), soft_wrap=isinstance(thing, str | Text))
    sys.stdout.write(_BLANKS.sub(r"\1", captured.get()))


class _Visible:
    """Prints tables, trees and lines; characters that cannot be seen are escaped."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __rich_console__(self, to: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in to.render(self._thing, options):
            yield Segment(text if control else visible_lines(text), style, control)


def seen(value: str | Text) -> Text:
    """Return a cell or a remark on one line, everything in it visible."""
    if isinstance(value, str):
        return Text(visible(value))
    shown = visible(value.plain)
    return value if shown == value.plain else Text(shown, style=value.style)


def say(text: str, style: str = "dim") -> None:
    """Print a note to standard error, where it does not disturb a pipe."""
    console(error=True).print(Text(visible(text), style=style))


def write_json(value: Any) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json_text(value) + "\n")


def facts(rows: Iterable[Sequence[str | Text]]) -> Text:
    """Return names and values, one pair per line; lines are broken between words only."""
    pairs = [(visible(str(name)), seen(value)) for name, value in rows]
    indent = max((len(name) for name, _ in pairs), default=0) + 2
    lines = []
    for name, value in pairs:
        plain = textwrap.wrap(
            value.plain, max(page_width() - indent, 20), break_long_words=False, break_on_hyphens=False
        )
        lines.append(Text(f"{name:<{indent}}") + (value if len(plain) < 2 else Text(f"\n{' ' * indent}".join(plain))))
    return Text("\n").join(lines)


def fitting(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str | Text]], width: int) -> int:
    """Return how many of the columns, from the left, fit into ``width`` without cutting a cell."""
    used = 0
    for number, (heading, _) in enumerate(columns):
        used += max([len(heading), *(len(row[number]) for row in rows)]) + (GAP if number else 0)
        if used > width and number:
            return number
    return len(columns)


def columns(*headings: str) -> tuple[tuple[str, str], ...]:
    """Return columns for `table`; one whose heading ends in ``>`` is aligned to the right."""
    return tuple((each.removesuffix(">"), "right" if each.endswith(">") else "left") for each in headings)


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Return a plain table; what does not fit continues on the next line; nothing is truncated.

    Parameters
    ----------
    columns : sequence of (str, str)
        Heading, and ``left`` or ``right``.
    rows : iterable of sequences
    """
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for heading, side in columns:
        made.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(seen, row))
    return made


def human_bytes(count: float) -> str:
    """Write bytes with three digits: ``3.82 GB``."""
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 999.5 and unit != "TB":
        count, unit = count / 1000, next(units)
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"


def human_number(value: float | None) -> str:
    """Write a number with seven digits at most; a dash for none."""
    return "-" if value is None else f"{value:.7g}"


def moment(microseconds: int) -> str:
    """Write UTC microseconds to the minute; a dash for 0."""
    if not microseconds:
        return "-"
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M")


class Watch:
    """Progress of one slow thing; Ctrl-C asks it to end, a second one insists.

    Attributes
    ----------
    interrupted : bool
    """

    def __init__(self, progress: Progress | None, task: Any) -> None:
        self.interrupted = False
        self._progress = progress
        self._task = task
        self._started = time.monotonic()
        self._next = self._started + SHOWN_AFTER_SECONDS
        self._before: Any = None

    def step(self, done: int, total: int, nbytes: int = 0) -> bool:
        """Show the current state; False asks to end."""
        now = time.monotonic()
        if self._progress is not None and now >= self._next:
            self._next = now + REFRESH_SECONDS
            self._progress.start()
            rate = f"{human_bytes(nbytes / max(now - self._started, 1e-9))}/s" if nbytes else ""
            self._progress.update(self._task, completed=done, total=max(total, done), rate=rate)
        return not self.interrupted

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._started

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def watched(what: str) -> Iterator[Watch]:
    """Show progress on a terminal, and turn the first Ctrl-C into a request to stop."""
    to = console(error=True)
    progress = None
    if to.is_terminal:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("Ctrl-C ends it", style="dim"),
            console=to,
            transient=True,
        )
    task = None if progress is None else progress.add_task(what, total=None, rate="")
    watch = Watch(progress, task)
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, watch._stop)
    except ValueError:  # not the main thread: a program that embeds the command handles its signals
        before = None
    try:
        yield watch
    finally:
        if progress is not None:
            progress.stop()
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on a terminal that something is under way which cannot say how far it is."""
    to = console(error=True)
    if not to.is_terminal:
        yield
        return
    with to.status(Text(text)):
        yield


def followed(items: Iterable[T], what: str, total: int, nbytes: Callable[[T], int] | None = None) -> Iterator[T]:
    """Yield items under a `watched`; Ctrl-C raises `Interrupted`."""
    read = done = 0
    with watched(what) as watch:
        for item in items:
            done += 1
            read += nbytes(item) if nbytes is not None else 0
            if not watch.step(done, total, read):
                raise Interrupted(f"ended by Ctrl-C after {done:,} of {total:,} entries; nothing was changed")
            yield item
