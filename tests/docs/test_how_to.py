"""Every Python and shell block of the how-to pages runs, in order, in an empty folder; `text` is
for a cluster.

A Python block that begins with ``# file: name.py`` is saved under that name, for the blocks after
it to import. One that begins with ``# needs: module`` is left out where that is not installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.ranks import find_mpiexec

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SAVED = re.compile(r"# file: (\w+)\.py\n")
NEEDS = re.compile(r"# needs: (\w+)\n")
BLOCK = re.compile(r"^( *)```(python|bash)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return [(m[2], textwrap.dedent(m[3])) for m in BLOCK.finditer(page.read_text())]


@pytest.fixture
def shell(tmp_path):
    """Return what runs a shell block, with the command, this Python and an mpiexec on the PATH."""
    commands = tmp_path / "bin"
    commands.mkdir()
    programs = {"gamwarm": f"{sys.executable} -m gamwarm", "python": sys.executable, "mpiexec": find_mpiexec()}
    for name, program in programs.items():
        if program is not None:  # not a link: mpiexec looks for its helpers beside itself
            (commands / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (commands / name).chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"

    def run(text: str, folder: Path) -> None:
        ended = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", text],
            cwd=folder,
            env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"

    return run


def is_there(module: str) -> bool:
    return find_spec(module) is not None and (module != "mpi4py" or find_mpiexec() is not None)


def test_the_pages_are_there():
    names = {page.stem for page in PAGES}

    assert {"slurm-array", "mpirun", "walltime", "shared-file-systems", "moving", "damaged"} <= names


@pytest.mark.timeout(400)  # the page on pools starts a dozen processes
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, shell, tmp_path, monkeypatch):
    apart = page.stem == "mgcv"  # in a process of its own: R cannot be unloaded from this one
    if apart:
        from tests.support.mgcv_driver import HAS_MGCV

        if not HAS_MGCV:
            pytest.skip("mgcv: needs R with mgcv and rpy2")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    saved = []
    for name in [name for name in os.environ if name.startswith(("SLURM_", "PBS_"))]:
        monkeypatch.delenv(name)
    names: dict[str, object] = {"__name__": page.stem}

    blocks = blocks_of(page)

    assert blocks
    assert len(blocks) == len(re.findall(r"^ *```(?:python|bash)", page.read_text(), re.MULTILINE))
    if apart:
        (folder / "page.py").write_text("\n".join(text for language, text in blocks if language == "python"))
        shell("python page.py", folder)
        blocks = [(language, text) for language, text in blocks if language == "bash"]
    for language, text in blocks:
        if (needed := NEEDS.match(text)) and not (is_there(needed[1])):
            continue
        if language == "bash":
            shell(text, folder)
        elif named := SAVED.match(text):
            (folder / f"{named[1]}.py").write_text(text)
            saved.append(named[1])
        else:
            exec(compile(text, str(page), "exec"), names)
    for name in saved:
        sys.modules.pop(name, None)
