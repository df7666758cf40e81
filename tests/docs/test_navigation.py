"""The built pages as a reader meets them: every page once in the navigation, code within the
column.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if "_build" not in page.parts)
COLUMN = 88
"""Characters of code that the theme shows without a scroll bar."""


def test_every_page_is_in_the_navigation_once():
    named = Counter()
    for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL):
        assert ":glob:" not in tree
        named.update(f"{line}.md" for line in tree.splitlines() if line and not line.startswith(":"))

    assert named == Counter(page for page in PAGES if page != "index.md")


@pytest.mark.parametrize("page", PAGES)
def test_code_is_within_the_column(page):
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^ *```([^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)

    lines = [line for kind, block in blocks if "{" not in kind for line in block.splitlines()]
    assert [line for line in lines if len(line) > COLUMN] == []
