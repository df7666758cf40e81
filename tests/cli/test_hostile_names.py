"""Names from files of others: nothing that a terminal, a page or a log would obey leaves as
it is.
"""

from __future__ import annotations

import json
import logging

import h5py
import pytest

import gamwarm
from gamwarm.archive import export_archive
from tests.support.stores import artifact_of, carrier_fit, record_of, result_of

EVIL = "x\x1b[31mred\x1b]0;title\x07\x9b32m\x7f\u202eold\u2066\u200b\u2028\nline\x00\tend"
MARKS = [c for c in EVIL if ord(c) < 32 or not c.isprintable()]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits\x1b[7m\u202e.h5"
    fit = carrier_fit(range(9))
    with gamwarm.open(path, engine="e" + EVIL, engine_version=EVIL) as store:
        store.put_record(
            record_of(1, block_names=[EVIL, "b"], attributes={EVIL: EVIL}, producer=gamwarm.Producer(EVIL, EVIL))
        )
        store.put_artifact(artifact_of(EVIL, attributes={EVIL: EVIL}))
        store.keep(fit, result_of(fit), store.start_for(fit))
    with h5py.File(path, "r+") as h5:
        h5["block_records"].create_group("\x1b[31m\x9b\u202eX")
        h5["fit_artifacts"].create_group("a" * 64 + "/\x1b[31m\u202e")
    return path


def raw(text):
    """Return what a terminal would obey in a text; line breaks and colours are the command's
    own.
    """
    return sorted({c for c in text if c in MARKS and c not in "\n\t"})


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "--full"],
        ["ls", "--json"],
        ["show", "cf-" + "0" * 30],
        ["show", "cf-" + "0" * 30, "--json"],
        ["stats"],
        ["stats", "--json"],
        ["lineage"],
        ["lineage", "--json"],
        ["verify"],
        ["verify", "--json"],
        ["explain", "cf-" + "0" * 30],
        ["evict", "--size", "1", "--dry-run"],
        ["ls", EVIL.replace("\0", "")],
        ["show", EVIL.replace("\0", "")],
        ["merge", EVIL.replace("\0", "")],
    ],
)
def test_no_control_character_of_a_name_reaches_the_output(gamwarm_command, path, command):
    ended = gamwarm_command(command[0], path, *command[1:])

    assert raw(ended.out) == []
    assert raw(ended.err) == []
    assert ended.code != 70, ended.err


def test_json_gives_the_names_back(gamwarm_command, path):
    found = gamwarm_command("ls", path, "--json").json_lines

    assert {EVIL: EVIL} in [entry["attributes"] for entry in found]
    assert "\x1b[31m\x9b\u202eX" in [entry["key"] for entry in found]


def test_pages_archives_errors_reprs_and_the_log_show_names_escaped(path, tmp_path, caplog):
    from gamwarm.report import write_report

    caplog.set_level(logging.DEBUG, logger="gamwarm")
    write_report(path, tmp_path / "out.html", title=EVIL)
    out = tmp_path / "out.h5"
    export_archive(path, out, title="evil " + EVIL.replace("\0", ""), creators="A. B.", license="CC0-1.0")
    with gamwarm.open(path, "r") as store:
        record = store.get_record(record_of(1).key)
        shown = [repr(record), record._repr_html_(), repr(store), store._repr_html_(), str(store.savings())]
        shown += [str(problem) for problem in store.verify().problems]
        shown += [str(store.explain(carrier_fit(range(8)))), repr(store.start_for(carrier_fit(range(8))))]
    with pytest.raises(gamwarm.GamwarmError) as caught:
        gamwarm.open(str(path) + EVIL, "r")
    shown += [str(caught.value), *(record.getMessage() for record in caplog.records)]
    with h5py.File(out) as h5:
        crate = h5["archive/ro-crate-metadata.json"][()].tobytes().decode()
    shown += [crate, (tmp_path / "out.html").read_text()]

    assert [raw(text) for text in shown] == [[]] * len(shown)
    assert any("evil " + EVIL.replace("\0", "") == entity.get("name") for entity in json.loads(crate)["@graph"])
