"""One option means one thing: every subcommand that selects, and every one that takes a key."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

from gamwarm.cli import filters
from gamwarm.cli.app import ORDER
from gamwarm.cli.exit_codes import Exit
from gamwarm.cli.options import COMMANDS
from gamwarm.entries import Browser, EntryStore, Selection, Selector
from tests.support.selections import expected, facts_of, varied_file
from tests.support.stores import carrier_fit, plain_fit

SAID = ("--title", "t", "--creator", "c", "--license", "CC0-1.0", "--no-lineage")
OPTIONS = {
    ("--select", carrier_fit().key[:20]): {"keys": [carrier_fit().key[:20]]},
    ("--kind", "final", "--kind", "artifact"): {"kinds": ["final", "artifact"]},
    ("--kind", "checkpoint"): {"kinds": ["checkpoint"]},
    ("--family", "tests.plain"): {"families": ["tests.plain"]},
    ("--family", "*.c*"): {"families": ["*.c*"]},
    ("--block", "mean *"): {"blocks": ["mean *"]},
    ("--producer", "tests 2"): {"producers": ["tests 2"]},
    ("--producer", "by*"): {"producers": ["by*"]},
    ("--job", "4711"): {"jobs": ["4711"]},
    ("--attribute", "host=node?"): {"attributes": [("host", "node?")]},
    ("--kind", "final", "--family", "*", "--job", "*2"): {"kinds": ["final"], "families": ["*"], "jobs": ["*2"]},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("options") / "fits.h5"
    varied_file(path)
    return path


def taking(parameter):
    return [name for name in ORDER if parameter in inspect.signature(COMMANDS[name][1]).parameters]


def listed(gamwarm_command, path, *options):
    ended = gamwarm_command("ls", path, "--json", "--limit", 0, *options)
    assert ended.code == Exit.OK, ended.err
    return {row["entry_id"] for row in ended.json_lines}


def exported(gamwarm_command, path, tmp_path, *options):
    ended = gamwarm_command("export", path, "-o", tmp_path / "out.h5", *SAID, *options)
    assert ended.code == Exit.OK, ended.err
    return listed(gamwarm_command, tmp_path / "out.h5")


def check_all(gamwarm_command, path, tmp_path, options, criteria):
    store = EntryStore(path, mode="r")
    in_python = {seen.entry_id for seen in Selector(Browser(store), Selection(**criteria)).scan()}
    store.close()
    facts = facts_of(path)
    wanted = expected(facts, Selection(**criteria))

    assert wanted
    assert len(wanted) < len(facts)
    assert in_python == wanted
    assert listed(gamwarm_command, path, *options) == wanted
    assert exported(gamwarm_command, path, tmp_path, *options) == wanted


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_an_option_selects_the_same_entries_in_every_subcommand(gamwarm_command, path, tmp_path, options):
    check_all(gamwarm_command, path, tmp_path, options, OPTIONS[options])


@pytest.mark.parametrize("option", ["since", "until"])
def test_a_moment_selects_the_same_entries_in_every_subcommand(gamwarm_command, path, tmp_path, option):
    moment = sorted(each["created"] for each in facts_of(path))[5]
    at = datetime.fromtimestamp(moment / 1e6, UTC).isoformat()

    check_all(gamwarm_command, path, tmp_path, (f"--{option}", at), {option: moment})


def test_every_subcommand_that_selects_is_in_the_table():
    selecting = set(taking("select"))

    assert selecting == {"ls", "export"}
    tried = {option for options in OPTIONS for option in options[::2]} | {"--since", "--until"}
    assert tried == {f"--{name}" for name in filters.OPTIONS}


def takers(path, key, tmp_path):
    """Every subcommand that takes a key, called with one."""
    calls = {name: (name, path, key) for name in taking("key")}
    calls["explain with another"] = ("explain", path, plain_fit(1).key, key)
    calls["ls"] = ("ls", path, "--select", key)
    calls["export"] = ("export", path, "-o", tmp_path / "no.h5", *SAID, "--select", key)
    return calls


@pytest.mark.parametrize(
    ("key", "code", "says"),
    [
        ("ffffffffffff", Exit.NO_SUCH_KEY, "no entry of this file has a key or entry id with this prefix"),
        ("0000", Exit.NO_SUCH_KEY, "keys have this prefix"),
        ("abc", Exit.USAGE, "at least 4 hex digits"),
        ("what?", Exit.USAGE, "not a key"),
    ],
)
def test_a_key_that_means_nothing_or_several_things_ends_every_subcommand_alike(
    gamwarm_command, path, tmp_path, key, code, says
):
    ended = {name: gamwarm_command(*call) for name, call in takers(path, key, tmp_path).items()}

    assert {"show", "pin", "lineage", "explain", "ls", "export"} <= set(ended)
    assert {(each.code, each.out) for each in ended.values()} == {(code, "")}
    assert len({each.err for each in ended.values()}) == 1
    assert says in ended["ls"].err
    assert not (tmp_path / "no.h5").exists()
