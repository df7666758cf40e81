"""What is seen: at 80 and 120 columns, with and without colour, in a pipe, on a terminal, without
the extra.
"""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gamwarm.cli import main
from gamwarm.cli.app import ORDER
from gamwarm.cli.exit_codes import Exit

ROOT = Path(__file__).resolve().parents[2]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NAMES = list(ORDER)


def looking(stored):
    return [
        ["ls", stored.path],
        ["show", stored.path, stored.folds[0]],
        ["show", stored.path, stored.parent],
        ["stats", stored.path],
        ["verify", stored.path],
        ["evict", stored.path, "--size", "0", "-n"],
        ["lineage", stored.path, stored.full],
        ["explain", stored.path, stored.full],
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(gamwarm_command, stored, columns):
    for call in looking(stored):
        ended = gamwarm_command(*call, COLUMNS=str(columns))

        assert ended.code == 0
        # A path or key is never broken: it must survive a copy.
        wide = [line for line in ended.lines if len(line) > columns and max(map(len, line.split())) < 40]
        assert wide == [], call[0]


def test_80_columns_show_what_matters_and_120_more(gamwarm_command, stored):
    narrow = gamwarm_command("ls", stored.path, COLUMNS="80").lines[0].split("  ")
    wide = gamwarm_command("ls", stored.path, COLUMNS="120").lines[0].split("  ")

    narrow, wide = ([name.strip() for name in names if name.strip()] for names in (narrow, wide))
    assert narrow[:7] == ["KEY", "KIND", "LABEL", "VALID", "CREATED (UTC)", "ROWS", "OBJECTIVE"]
    assert wide[: len(narrow)] == narrow
    assert {"FAMILY", "ENGINE"} <= set(wide) - set(narrow) | {"FAMILY"}


@pytest.mark.parametrize("columns", [40, 80, 100, 120, 200])
def test_a_listing_cuts_no_cell_but_leaves_columns_out(gamwarm_command, stored, columns):
    """A table that was given too many columns cut keys and words without a sign."""
    whole = gamwarm_command("ls", stored.path).lines

    for shown, full in zip(gamwarm_command("ls", stored.path, COLUMNS=str(columns)).lines, whole, strict=True):
        assert re.split("  +", full.replace("tests.carrier", "carrier"))[: len(re.split("  +", shown))] == re.split(
            "  +", shown
        )


def test_full_shows_intact_keys_on_any_terminal(gamwarm_command, stored):
    for columns in ("80", "120"):
        ended = gamwarm_command("ls", stored.path, "--full", COLUMNS=columns)
        assert all(key in ended.out for key in (stored.full, stored.parent, *stored.folds))
        assert len(ended.lines) == 1 + 9


def test_a_key_is_never_broken_over_lines(gamwarm_command, stored):
    shown = gamwarm_command("show", stored.path, stored.parent, COLUMNS="60")

    assert stored.full in shown.out


def test_colour_changes_no_text(gamwarm_command, stored):
    for call in looking(stored):
        if call[0] == "verify":
            continue  # its seconds differ
        plain = gamwarm_command(*call, COLUMNS="100")
        coloured = gamwarm_command(*call, COLUMNS="100", FORCE_COLOR="1")
        refused = gamwarm_command(*call, COLUMNS="100", FORCE_COLOR="1", NO_COLOR="1")

        assert COLOUR.search(plain.out) is None
        assert COLOUR.sub("", coloured.out) == COLOUR.sub("", refused.out) == plain.out
        assert re.search(r"\x1b\[[0-9;]*3[0-7]m", refused.out) is None


def test_no_line_ends_in_blanks(gamwarm_command, stored):
    for call in looking(stored):
        ended = gamwarm_command(*call, COLUMNS="100")

        assert [line for line in ended.lines if line != line.rstrip()] == []


def test_a_pipe_gets_intact_lines_and_every_column(gamwarm_command, stored):
    header, *rows = gamwarm_command("ls", stored.path).lines

    assert header.split()[-1] == "BLOCKS"
    assert len(rows) == 9
    assert all("mean" in row for row in rows)


def test_every_json_answer_is_json(gamwarm_command, stored):
    for call in looking(stored):
        ended = gamwarm_command(*call, "--json")

        assert ended.code == 0
        for line in ended.lines:
            json.loads(line)


@pytest.mark.parametrize("name", NAMES)
def test_every_subcommand_explains_itself_and_offers_json_and_debug(gamwarm_command, name):
    ended = gamwarm_command(name, "--help", COLUMNS="80")

    assert ended.code == 0
    assert ended.out.startswith(f"Usage: gamwarm {name}")
    assert "--json" in ended.out
    assert "--debug" in ended.out
    assert max(map(len, ended.lines)) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_help_has_no_braces_types_or_ranges(gamwarm_command, name):
    out = gamwarm_command(name, "--help", COLUMNS="80").out

    assert re.search(r"[{}]|<\w+(\[|>)|>=|<=|\|", out.replace("<ORCID iD>", "")) is None
    assert {*re.findall(r"\[[^]]*\]", out)} <= {"[OPTIONS]", "[OTHER]"}


def test_defaults_and_what_is_required_are_told(gamwarm_command):
    out = gamwarm_command("export", "--help", COLUMNS="200").out

    assert re.search(r"-o, --output NEW +the file to write \(required\)", out)
    assert re.search(r"--lineage, --no-lineage +.*\(default\)", out)
    assert re.search(r"--wait SECONDS +.*\(default 10\)", gamwarm_command("merge", "-h", COLUMNS="200").out)


def test_a_shell_completes_subcommands_and_options(tmp_path):
    """As the shell calls it: by the environment."""

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        environment = {"_GAMWARM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        command = [sys.executable, "-m", "gamwarm"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("gamwarm ex") == ["explain", "export"]
    assert completed("gamwarm import --w") == ["--wait"]


def test_the_command_lists_its_subcommands(gamwarm_command):
    ended = gamwarm_command("--help")

    assert all(re.search(rf"^  {name} ", ended.out, re.MULTILINE) for name in NAMES)
    assert ended.out.count("...") == 1  # of the usage line: nothing else is cut short
    assert gamwarm_command("--version").out.startswith("gamwarm ")


def test_an_unknown_option_or_subcommand_is_exit_code_2(gamwarm_command, stored):
    assert gamwarm_command("lst", stored.path).code == 2
    assert gamwarm_command("ls", stored.path, "--limt", "3").code == 2


def run(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "gamwarm", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        **more,
    )


def test_python_m_gamwarm_is_the_command(stored):
    ended = run("stats", stored.path, "--json")

    assert ended.returncode == 0
    assert json.loads(ended.stdout)["entries"] == 9
    assert run("stats", stored.path.with_name("missing.h5")).returncode == Exit.NO_FILE


def test_the_installed_script_is_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["gamwarm"].partition(":")

    assert getattr(importlib.import_module(module), function) is main


def test_a_reader_that_has_seen_enough_is_no_error(stored):
    program = f"{sys.executable} -m gamwarm ls {stored.path} --json | true; exit ${{PIPESTATUS[0]}}"

    ended = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_its_extra_the_command_says_what_to_install(tmp_path):
    for module in ("typer", "rich"):
        (tmp_path / f"{module}.py").write_text("raise ImportError(f'No module named {__name__!r}')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    ended = run("ls", "fits.h5", env=os.environ | {"PYTHONPATH": path})

    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("pip install 'gamwarm[cli]'")
    assert len(ended.stderr.splitlines()) == 1


def test_on_a_terminal_there_is_colour_and_the_page_fits(stored):
    """A real terminal of 80 columns, by way of a pseudo-terminal."""
    parent, child = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        ["bash", "-c", f"stty cols 80 rows 24; exec {sys.executable} -m gamwarm ls {stored.path}"],
        cwd=ROOT,
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment | {"TERM": "xterm-256color"},
    )
    os.close(child)
    said = b""
    while True:
        try:
            some = os.read(parent, 4096)
        except OSError:
            break
        if not some:
            break
        said += some
    os.close(parent)
    text = said.decode()

    assert process.wait(100) == 0
    assert COLOUR.search(text)
    rows = [line for line in COLOUR.sub("", text).splitlines() if " final " in line or " artifact " in line]
    assert len(rows) == 8
    assert max(len(row.rstrip()) for row in rows) <= 80
