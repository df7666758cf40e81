"""docs/command.md: its tables are those of the command."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gamwarm import errors
from gamwarm.cli.app import ORDER
from gamwarm.cli.exit_codes import Exit, exit_of
from gamwarm.cli.options import COMMANDS

TESTS = Path(__file__).resolve().parent
CLI = TESTS.parents[1] / "gamwarm" / "cli"
FIT_ERRORS = {
    "TransferError",
    "ParentUnusable",
    "DescriptorMismatch",
    "FitFailed",
    "UnkeyableFit",
    "UnsupportedOption",
    "CollectiveError",
}
"""Of fits, which no subcommand runs."""
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command.md").read_text()


def test_the_table_of_exit_codes_is_the_commands_own():
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, re.MULTILINE)

    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in Exit]


def test_the_table_of_subcommands_names_each_once():
    rows = re.findall(r"^\| `(\w+) ", PAGE, re.MULTILINE)

    assert rows == list(ORDER)
    assert set(COMMANDS) == set(ORDER)


def test_every_option_that_the_page_names_exists(gamwarm_command):
    known = set(re.findall(r"--[a-z-]+", gamwarm_command("--help").out))
    for name in ORDER:
        known |= set(re.findall(r"--[a-z-]+", gamwarm_command(name, "--help").out))

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - known == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_says_what_it_does_answers_programs_and_is_called_by_a_test(name, gamwarm_command):
    what, function = COMMANDS[name]
    parameters = inspect.signature(function).parameters
    told = gamwarm_command(name, "--help")
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))

    assert what
    assert inspect.getdoc(function).endswith((".", "`"))
    assert told.code == Exit.OK
    assert {"--json", "--debug"} <= set(re.findall(r"--[a-z-]+", told.out))
    assert {"as_json", "debug"} <= set(parameters)
    assert re.search(rf'"{name}", ', tests), "no test calls it"


def test_every_declared_subcommand_is_offered():
    declared = {name for path in CLI.glob("*.py") for name in re.findall(r'^@command\("(\w+)"', path.read_text(), re.M)}

    assert declared == set(ORDER)


def test_every_error_has_an_exit_code_of_its_kind():
    """What a user can meet ends with a code that the page explains, and not as an internal
    error.
    """
    internal = {name for name in errors.__all__ if exit_of(getattr(errors, name)("x")) is Exit.INTERNAL}

    assert internal == {"GamwarmError", *FIT_ERRORS}
