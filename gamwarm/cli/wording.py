"""Advice of the Python interface, in the words of the command."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["in_own_words"]

_WORDS: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r" Open it with mode='r', or give", " Give"),
        (r", or open it with mode='r'", ", or only read it here"),
        (r"opened with mode='r'\. Open it with mode='a' to write", "opened for reading only"),
        (r"; mode='a' creates a missing file", ""),
        (r"; remove it, and mode='a' creates a new one", "; remove it, or give another path"),
        (r", or open it with lock='auto'", ""),
        (r"then lock='auto' uses the soft lock", "then the soft lock is used"),
        (r"gamwarm\.salvage(?:\(path, into\))?", "`gamwarm salvage FILE -o NEW`"),
        (r", (?:or pass|or) overwrite=True", ", or add --overwrite"),
        (r"verify\(\) of the store, merge it", "`gamwarm verify`, `gamwarm merge` it"),
        (r"verify\(\) of the store", "`gamwarm verify`"),
        (r"verify\(\) lists", "`gamwarm verify` lists"),
        (r"verify\(\) makes it anew", "`gamwarm verify --repair` makes it anew"),
        (r"; pass creators=\['Name <ORCID iD>'\]", "; give --creator 'Name <ORCID iD>'"),
        (r"; then open the file again", "; then try again, or give a longer --wait"),
        (r"\b(then|and) put again", r"\1 try again"),
    )
)


def in_own_words(text: str) -> str:
    """Return a message as the command says it."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text
