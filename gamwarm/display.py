"""How things show themselves at a prompt and in a notebook: one line, or a small table; everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["NotebookTable", "few", "short"]

Facts = list[tuple[str, str]]

_SHORT = 12


def short(key: str | None) -> str:
    """Return the beginning of a key or entry id, enough to name it to the command and to a person."""
    if key is None:
        return "none"
    head = "cf-" if key.startswith("cf-") else ""
    return head + key.removeprefix("cf-")[:_SHORT]


def few(words: Iterable[str], most: int = 4) -> str:
    """Return the first words, and how many more there are."""
    every = list(words)
    rest = len(every) - most
    return ", ".join(every) if rest <= 1 else f"{', '.join(every[:most])} and {rest} more"


class NotebookTable:
    """Gives ``_repr_html_`` to what says its title and its facts."""

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
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self._facts()
            if value
        )
        heads, lines = self._detail()
        detail = ""
        if lines:
            head = "".join(f"<th>{escape(name)}</th>" for name in heads)
            body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
            detail = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><b>{escape(self._title())}</b><table><tbody>{rows}</tbody></table>{detail}</div>"
