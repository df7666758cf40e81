"""Code that a newcomer copies runs unchanged: README, tutorial and concepts, block after block in
an empty folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/concepts.md"])
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}

    blocks = python_blocks(page)

    assert blocks
    for text in blocks:
        exec(compile(text, page, "exec"), names)


def test_the_tutorial_shows_what_its_first_fit_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    shown = re.search(r"^```text\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None

    for text in python_blocks("docs/tutorial.md")[:2]:
        exec(compile(text, "tutorial", "exec"), names)

    printed = re.sub(r"\b[0-9a-f]{12}\b", "…", capsys.readouterr().out)
    assert printed == shown[1]


def test_the_pages_that_a_page_of_the_repository_names_are_there():
    for page in ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]:
        text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page} names {target}"
