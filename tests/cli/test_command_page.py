"""docs/command.md: its tables are those of the command."""

from __future__ import annotations

import re
from pathlib import Path

from gamwarm.cli.app import ORDER
from gamwarm.cli.exit_codes import Exit
from gamwarm.cli.options import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command.md").read_text()


def test_the_table_of_exit_codes_is_the_commands_own():
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, re.MULTILINE)

    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in Exit]


def test_the_table_of_subcommands_names_each_once():
    rows = re.findall(r"^\| `(\w+) ", PAGE, re.MULTILINE)

    assert rows == list(ORDER)
    assert set(COMMANDS) == set(ORDER)


def test_every_option_that_the_page_names_exists(gamwarm_command):
    known = set()
    for name in ORDER:
        known |= set(re.findall(r"--[a-z-]+", gamwarm_command(name, "--help").out))

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - known == set()
