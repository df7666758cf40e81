"""How things show themselves at a prompt and in a notebook: a line or a small table, escaped.

Names come from files of others. Wherever text leaves (terminal, log, error, page, JSON) it goes
through `visible`, or a form of it here: no control character, no bidirectional mark and no
invisible character is printed unescaped.
"""

from __future__ import annotations

import json
import logging
import re
import textwrap
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Any, Final

__all__ = [
    "COLUMNS",
    "NotebookTable",
    "brief_repr",
    "counted",
    "error_line",
    "few",
    "html",
    "json_text",
    "short",
    "shortened",
    "visible",
    "visible_lines",
    "wrapped",
]

Facts = list[tuple[str, str]]

_SHORT = 12


_BLANK: Final = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that count as printable and show nothing."""
_SUSPECT: Final = re.compile(rf"[^ -~]|[{_BLANK}]")


_TOLD: Final = 100

COLUMNS: Final = 80
"""Width of text for people, where no terminal says another."""


def visible(text: str) -> str:
    r"""Return text on one line in which everything can be seen.

    Controls (C0, C1, DEL), line and paragraph separators, bidirectional and other format
    characters, lone surrogates and what has no meaning in Unicode become ``\xNN``, ``\uNNNN`` or
    ``\UNNNNNNNN``. Applied twice it does no more.
    """
    return text if text.isascii() and text.isprintable() else _SUSPECT.sub(_shown, text)


def brief_repr(value: object) -> str:
    """Return a refused value for a message: its ``repr``, truncated if long."""
    try:
        # NumPy's own repr of a scalar, np.float64(nan), says nothing that the reader needs.
        own = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
        text = repr(value.item() if own else value)  # type: ignore[attr-defined]
    except Exception:  # an integer of more digits than Python prints; an object whose repr fails
        return f"a value of type {type(value).__name__} that cannot be printed"
    return text if len(text) <= _TOLD else f"{text[: _TOLD - 1]}…"


def error_line(error: BaseException) -> str:
    """Return an exception in one line: its kind and, if it has one, its message."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def visible_lines(text: str) -> str:
    """`visible` for text of several lines of our own."""
    return "\n".join(map(visible, text.split("\n")))


def wrapped(lines: Iterable[str], width: int = COLUMNS) -> str:
    """Return lines as text of ``width`` columns, continued with an indent; each is `visible`.

    A word that is longer than a line stays whole: it may be a path or a key to copy.
    """
    return "\n".join(part for line in lines for part in _parts(visible(line), width))


def _parts(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    parts = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return parts or [""]


def _is_seen(character: str) -> bool:
    # Blanks of other widths (no-break, thin, ideographic) are unprintable to Python but harmless.
    return (character.isprintable() and character not in _BLANK) or (character.isspace() and _is_blank(character))


def _is_blank(character: str) -> bool:
    return character > "\x9f" and character not in "\u2028\u2029"


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if _is_seen(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def html(text: str) -> str:
    """Return text for a page: `visible`, and escaped for HTML."""
    return escape(visible(text))


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    r"""Return JSON that reads back as ``value``; what `visible` escapes is ``\uNNNN``."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=sort_keys)
    return _SUSPECT.sub(_in_json, text)


def _in_json(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\n" or _is_seen(character):  # inside strings a line break is escaped already
        return character
    return json.dumps(character)[1:-1]


class _VisibleRecords(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        shown = visible(text)
        if shown != text:
            record.msg, record.args = shown, ()
        return True


logging.getLogger("gamwarm").addFilter(_VisibleRecords())


def short(key: str | None) -> str:
    """Return the beginning of a key or entry id that is enough to name it."""
    if key is None:
        return "none"
    head = "cf-" if key.startswith("cf-") else ""
    return head + key.removeprefix("cf-")[:_SHORT]


def shortened(text: str, most: int) -> str:
    """Return a label in at most ``most`` columns: of a longer one both ends, which tell it apart.

    Letters of East Asian scripts take two columns.
    """
    text = visible(text)
    if _columns(text) <= most:
        return text
    room = most - 1
    tail = _beginning(text[::-1], room // 2)[::-1]
    return f"{_beginning(text, room - room // 2)}…{tail}"


def _beginning(text: str, columns: int) -> str:
    used = list(accumulate(map(_columns, text)))
    return text[: bisect_right(used, columns)]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def few(words: Iterable[str], most: int = 4) -> str:
    """Return the first words, and how many more there are."""
    every = list(words)
    rest = len(every) - most
    return ", ".join(every) if rest <= 1 else f"{', '.join(every[:most])} and {rest} more"


def counted(count: int, what: str) -> str:
    """Return a count and its noun, in the plural unless it is one."""
    return f"{count:,} {what}{'' if abs(count) == 1 else 's'}"


class NotebookTable:
    """Gives ``_repr_html_`` to what says its title and its facts."""

    __slots__ = ()

    def _title(self) -> str:
        return type(self).__name__

    def _facts(self) -> Facts:
        """Return names and values, as text."""
        raise NotImplementedError

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Return heads and rows of a second table; none if there are no rows."""
        return (), ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html(name)}</th><td style="text-align:left">{html(value)}</td></tr>'
            for name, value in self._facts()
            if value
        )
        heads, lines = self._detail()
        detail = ""
        if lines:
            head = "".join(f"<th>{html(name)}</th>" for name in heads)
            body = "".join("<tr>" + "".join(f"<td>{html(cell)}</td>" for cell in line) + "</tr>" for line in lines)
            detail = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><b>{html(self._title())}</b><table><tbody>{rows}</tbody></table>{detail}</div>"
