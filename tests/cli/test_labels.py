"""The folds of a campaign are known by their labels in every command."""

from __future__ import annotations

import pytest

import gamwarm
from gamwarm import folds
from tests.support.campaigns import GROUPS, Solver
from tests.support.stores import carrier_fit, result_of


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "fits.h5"
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        return path, folds.leave_one_out(store, GROUPS, Solver(), progress=False)


def test_ls_has_a_column_of_labels_that_a_narrow_terminal_keeps(gamwarm_command, campaign, monkeypatch):
    path, report = campaign
    monkeypatch.setenv("COLUMNS", "80")

    head, *lines = gamwarm_command("ls", path).lines

    assert head.split()[:4] == ["KEY", "KIND", "LABEL", "VALID"]
    for fold in report.folds:
        assert sum(fold.group in line for line in lines) == 2
    told = gamwarm_command("ls", path, "--json").json_lines
    assert {entry["attributes"].get("group") for entry in told} == {None, *GROUPS}


def test_ls_has_no_such_column_where_nothing_is_labelled(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.keep(carrier_fit(range(7)), result_of(carrier_fit(range(7))))

    assert "LABEL" not in gamwarm_command("ls", tmp_path / "fits.h5").lines[0]


def test_show_and_lineage_name_the_group_of_a_fold(gamwarm_command, campaign):
    path, report = campaign
    fold = report["site 3"]

    assert ["group", "site", "3"] in [line.split() for line in gamwarm_command("show", path, fold.record).lines]
    assert gamwarm_command("show", path, fold.record, "--json").json[0]["attributes"] == {"group": "site 3"}
    (tree,) = gamwarm_command("lineage", path, report.parent.record, "--json").json
    assert {child["label"] for child in tree["children"]} == set(GROUPS)
    drawn = gamwarm_command("lineage", path, report.parent.record).lines
    assert all(any(f"  {group}, transfer" in line for line in drawn) for group in set(GROUPS))


def test_a_fit_that_counts_evaluations_alone_is_not_shown_with_no_formations(gamwarm_command, tmp_path):
    fit = carrier_fit(range(7))
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.keep(fit, result_of(fit, cost=gamwarm.Cost(6, seconds=0.5)), store.start_for(fit))

    assert "  cold, 6 evaluations, " in gamwarm_command("lineage", tmp_path / "fits.h5", fit.key).out
    assert gamwarm_command("report", tmp_path / "fits.h5", "-o", tmp_path / "r.html").code == 0
    assert "0 Hessian" not in (tmp_path / "r.html").read_text()


def test_a_listing_without_entries_is_one_line(gamwarm_command, campaign):
    ended = gamwarm_command("ls", campaign[0], "--attribute", "group=nobody")

    assert (ended.out, ended.err.strip()) == ("", "no entries match")
