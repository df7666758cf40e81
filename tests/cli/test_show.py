"""`show`, `stats`, `lineage`, `explain`: their output for a small campaign, and how short a key may
be.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import Curvature
from gamwarm.cli.exit_codes import Exit
from gamwarm.records import attributes_of_cold_run
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of


@pytest.mark.parametrize("digits", [4, 12, 64])
def test_the_beginning_of_an_exact_key_is_enough_with_or_without_cf(gamwarm_command, stored, digits):
    for key in (stored.full[: 3 + digits], stored.full[3 : 3 + digits]):
        ended = gamwarm_command("show", stored.path, key, "--json")

        assert ended.code == 0
        assert [entry["key"] for entry in ended.json] == [stored.full]


def test_an_artifact_is_found_by_entry_id_or_descriptor_key(gamwarm_command, stored):
    (by_id,) = gamwarm_command("show", stored.path, stored.parent[:10], "--json").json
    (by_key,) = gamwarm_command("show", stored.path, by_id["key"][:10], "--json").json

    assert by_id == by_key
    assert by_id["entry_id"] == stored.parent
    assert by_id["meta"]["fit_key"] == stored.full


def test_a_record_is_found_by_its_entry_id_too(gamwarm_command, stored):
    (entry,) = gamwarm_command("show", stored.path, stored.full, "--json").json

    (again,) = gamwarm_command("show", stored.path, entry["entry_id"][:8], "--json").json

    assert again == entry


def test_a_key_as_the_log_writes_it_is_taken(gamwarm_command, stored):
    assert gamwarm_command("show", stored.path, f"{stored.full[:15]}…").code == 0


def test_an_unknown_key_is_exit_code_4_and_names_the_key(gamwarm_command, stored):
    ended = gamwarm_command("show", stored.path, "cf-ffff")

    assert (ended.code, ended.out) == (4, "")
    assert "cf-ffff" in ended.err


def test_an_ambiguous_key_is_exit_code_4_and_lists_the_candidates(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        for number in (1, 2):
            store.put_record(record_of(number))

    ended = gamwarm_command("show", tmp_path / "fits.h5", "cf-0000")

    assert (ended.code, ended.out) == (4, "")
    assert all(f"{number:064x}" in ended.err for number in (1, 2))
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("key", ["cf-", "abc", "not a key", "zzzz", ""])
def test_what_cannot_be_a_key_is_exit_code_2(gamwarm_command, stored, key):
    assert gamwarm_command("show", stored.path, key).code == 2


def test_show_tells_what_was_fitted_from_what_at_which_cost(gamwarm_command, stored):
    ended = gamwarm_command("show", stored.path, stored.folds[0])

    for text in (
        stored.folds[0],
        "tests.carrier",
        "tests 1",
        f"transfer from {stored.parent}",
        "25 Hessian formations",
    ):
        assert text in ended.out
    assert "mean carrier" in ended.out


def test_show_names_the_cold_run_and_the_work_for_later_fits_apart(gamwarm_command, tmp_path):
    cost = gamwarm.Cost(7, 5, 20, 40, seconds=2.0, for_children=12, seconds_for_children=0.5)
    fit, cold = plain_fit(1), attributes_of_cold_run(gamwarm.Cost(9, 6, 30, 60, seconds=3.0), 1.25)
    with gamwarm.open(tmp_path / "fits.h5") as store, store.fit(fit, attributes={"group": "AA", **cold}) as going:
        going.keep(result_of(fit, cost=cost))

    shown = gamwarm_command("show", tmp_path / "fits.h5", fit.key).out
    listed = gamwarm_command("ls", tmp_path / "fits.h5", "--json").json_lines

    assert re.search(r"cost +7 evaluations, 28 Hessian formations \(and 12 for later fits\), 1.5 s", shown)
    assert re.search(r"its cold run +9 evaluations, 60 Hessian formations, 3 s, objective 1.25", shown)
    assert "cold_evaluations" not in shown
    assert listed[0]["attributes"]["cold_evaluations"] == 9


def test_show_values_prints_every_coefficient(gamwarm_command, stored):
    (entry,) = gamwarm_command("show", stored.path, stored.full, "--values", "--json").json

    assert len(entry["values"]["beta"]) == 4 + 37
    assert entry["values"]["rho"] == entry["rho"] == [0.5, 1.5]


def test_all_entries_of_a_key_are_shown_the_best_first(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.put_record(record_of(1, 3.0, kind="checkpoint"))
        store.put_record(record_of(1, 2.0))

    entries = gamwarm_command("show", tmp_path / "fits.h5", "cf-0000", "--json").json

    assert [entry["kind"] for entry in entries] == ["final", "checkpoint"]


def test_stats_counts_entries_bytes_and_starts(gamwarm_command, stored):
    told = gamwarm_command("stats", stored.path, "--json").json

    assert told["entries"] == 9
    assert told["exact_keys"] == 5
    assert told["descriptor_keys"] == 4
    assert told["file_bytes"] == stored.path.stat().st_size
    assert told["starts"] == {"cold": 1, "transfer": 3, "not told": 1}
    with gamwarm.open(stored.path, "r") as store:
        assert told["live_bytes"] == store.verify().nbytes


def test_stats_adds_up_what_starts_saved_as_the_store_does(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        parent = None
        for levels, seconds in ((37, 8.0), (36, 1.0), (35, 3.0)):
            fit = carrier_fit(range(levels))
            start = store.start_for(fit, parent=parent)
            kept = store.keep(fit, result_of(fit, cost=gamwarm.Cost(seconds=seconds)), start)
            parent = parent or kept.artifact.entry_id
        saved = store.savings().by_source["transfer"]

    told = gamwarm_command("stats", tmp_path / "fits.h5", "--json").json["savings"]["by_source"]["transfer"]
    shown = gamwarm_command("stats", tmp_path / "fits.h5")

    assert told["fits"] == saved.fits == 2
    assert told["saved"] == vars(saved.saved)
    assert saved.saved.seconds == pytest.approx((8.0 - 1.0) + (8.0 - 3.0))
    assert "saved: an estimate, against the nearest cold fit of the same model" in shown.out


def test_the_lineage_of_a_parent_lists_what_started_from_it(gamwarm_command, stored):
    (tree,) = gamwarm_command("lineage", stored.path, stored.full, "--json").json
    drawn = gamwarm_command("lineage", stored.path, stored.parent)

    assert tree["source"] == "cold"
    assert [child["key"] for child in tree["children"]] == list(stored.folds)
    assert all(child["parent"] == stored.parent for child in tree["children"])
    assert drawn.lines[0].startswith(stored.full[:12])
    assert [line.split()[1] for line in drawn.lines[1:]] == [fold[:12] for fold in stored.folds]


def test_the_lineage_of_a_fold_begins_with_its_parent(gamwarm_command, stored):
    (tree,) = gamwarm_command("lineage", stored.path, stored.folds[1], "--json").json
    drawn = gamwarm_command("lineage", stored.path, stored.folds[1])

    assert tree["ancestors"] == [stored.full]
    assert stored.full[:12] in drawn.lines[0]
    assert stored.folds[1][:12] in drawn.lines[1]
    assert "2 others" in drawn.out


def test_a_key_of_several_fits_gets_one_tree_or_their_exact_keys(gamwarm_command, tmp_path):
    path, (full, fold) = tmp_path / "fits.h5", (carrier_fit(), carrier_fit(n=50))
    with gamwarm.open(path) as store:
        store.keep(full, result_of(full), store.start_for(full))
        store.keep(fold, result_of(fold), store.start_for(fold))
    artifacts = gamwarm_command("ls", path, "--kind", "artifact", "--json").lines
    (key,) = {json.loads(line)["key"] for line in artifacts}
    drawn = gamwarm_command("lineage", path, key)
    refused = gamwarm_command("explain", path, key)

    assert [line.count("cf-") for line in drawn.lines] == [1, 1]
    assert drawn.out == gamwarm_command("lineage", path, full.key).out
    assert refused.code == Exit.NO_SUCH_KEY
    assert full.key in refused.err
    assert fold.key in refused.err


def test_a_parent_that_is_gone_is_named_as_gone(gamwarm_command, stored, tmp_path):
    with gamwarm.open(tmp_path / "rest.h5") as store, gamwarm.open(stored.path, "r") as source:
        store.put_record(source.get_record(stored.folds[0]))

    ended = gamwarm_command("lineage", tmp_path / "rest.h5", stored.folds[0])

    assert f"transfer from {stored.parent[:12]}, which is not in this file" in ended.out


def test_a_long_brood_is_cut_and_says_so(gamwarm_command, stored):
    ended = gamwarm_command("lineage", stored.path, stored.full, "--limit", 2)

    assert len(ended.lines) == 1 + 2 + 1
    assert "and 1 more" in ended.lines[-1]


def test_explain_says_what_tells_two_fits_apart(gamwarm_command, tmp_path):
    one, other = plain_fit(1), plain_fit(1, fingerprint="y:2", outer_tol=1e-7)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        for fit in (one, other):
            store.keep(fit, result_of(fit))
        expected = [str(d) for d in store.explain(plain_fit(1, fingerprint="y:3")).differences]
    assert expected == ["family fingerprint"]

    ended = gamwarm_command("explain", tmp_path / "fits.h5", one.key, other.key, "--json")
    nearest = gamwarm_command("explain", tmp_path / "fits.h5", one.key, "--json")

    (compared,) = ended.json["compared"]
    assert [d["text"] for d in compared["differences"]] == ["family fingerprint", "option 'outer_tol'"]
    assert nearest.json == ended.json


@pytest.mark.parametrize(("levels", "columns"), [(36, ""), (35, "; mean carrier with 36 and 35 columns")])
def test_explain_of_two_folds_is_one_line(gamwarm_command, tmp_path, levels, columns):
    one, two = carrier_fit(range(36), n=50, seed=1), carrier_fit(range(levels), n=40, seed=2)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        for fit, group in ((one, "AA"), (two, "U\x1bA")):
            with store.fit(fit, attributes={"group": group}) as going:
                going.keep(result_of(fit))

    ended = gamwarm_command("explain", tmp_path / "fits.h5", one.key, two.key)
    told = gamwarm_command("explain", tmp_path / "fits.h5", one.key, two.key, "--json").json["compared"][0]

    (line,) = ended.lines
    assert line.endswith(f": the same model on other rows, 50 (without AA) and 40 (without U\\x1bA){columns}")
    assert told["same_model"] is True
    assert len(told["differences"]) > 1


def test_another_option_or_another_covariate_is_not_taken_for_other_rows(gamwarm_command, tmp_path):
    one = carrier_fit(range(36), n=50, seed=1)
    options, columns = carrier_fit(range(36), n=40, rho_bound=12.0), carrier_fit(range(36), n=50, seed=2)
    for n, other in enumerate((options, columns)):
        with gamwarm.open(tmp_path / f"{n}.h5") as store:
            for fit in (one, other):
                store.keep(fit, result_of(fit))

        ended = gamwarm_command("explain", tmp_path / f"{n}.h5", one.key, other.key)

        assert "the same model" not in ended.out
        assert len(ended.lines) > 1


def test_explain_ranks_the_nearest_fits_first(gamwarm_command, tmp_path):
    near, far = plain_fit(1, inner_tol=1e-7), plain_fit(2, fingerprint="y:2", inner_tol=1e-7)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        for fit in (far, plain_fit(1), near):
            store.keep(fit, result_of(fit))

    found = gamwarm_command("explain", tmp_path / "fits.h5", plain_fit(1).key, "--json").json["compared"]

    assert [each["key"] for each in found] == [near.key, far.key]


def test_explain_of_a_key_that_is_not_there_says_what_can_and_cannot_be_known(gamwarm_command, stored):
    ended = gamwarm_command("explain", stored.path, "cf-" + 64 * "f")

    assert ended.code == 4
    assert "store.explain(problem)" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_explain_finds_the_artifact_of_a_fit_whose_record_is_gone(gamwarm_command, stored, tmp_path):
    with gamwarm.open(tmp_path / "rest.h5") as store, gamwarm.open(stored.path, "r") as source:
        store.put_artifact(source.get_artifact(carrier_fit().descriptor.key))

    ended = gamwarm_command("explain", tmp_path / "rest.h5", stored.full)

    assert ended.code == 4
    assert stored.parent[:12] in ended.err


def test_explain_says_that_a_record_put_by_hand_does_not_tell(gamwarm_command, stored):
    ended = gamwarm_command("explain", stored.path, stored.by_hand)

    assert ended.code == 0
    assert "directly" in ended.out


# -- outer coordinates -----------------------------------------------------------------------------


@pytest.fixture
def negative_binomial(tmp_path):
    plain = plain_fit()
    fit = gamwarm.FitProblem(plain.family, plain.specs, plain.options, engine="tests", nuisance=["log theta"])
    curvature = Curvature(gradient=[1e-9, 2e-9], edf=[3.5, 0.0], plateau=[False, False])
    with gamwarm.open(tmp_path / "fits.h5") as store:
        kept = store.keep(fit, replace(result_of(fit), rho=np.array([0.5, -1.25]), curvature=curvature))
        yield tmp_path / "fits.h5", fit.key, kept.artifact.entry_id, store.get_record(fit.key)


def test_a_nuisance_coordinate_has_its_name_and_no_degrees_of_freedom(gamwarm_command, negative_binomial):
    path, key, artifact, record = negative_binomial
    (term,) = (name for name, count in zip(record.block_names, record.components.penalties, strict=True) if count)

    lines = gamwarm_command("show", path, key).lines
    outer = lines[next(i for i, line in enumerate(lines) if line.startswith("OUTER")) :]
    (told,) = gamwarm_command("show", path, key, "--json").json

    assert [line.split()[:5] for line in outer] == [
        ["OUTER", "OF", "RHO", "GRADIENT", "EDF"],
        ["0", *term.split(), "0.5", "1.00e-09", "3.5"][:5],
        ["1", "log", "theta", "-1.25", "2.00e-09"],
    ]
    assert outer[2].split()[5:] == ["-", "-", "settled"]
    assert [each["name"] for each in told["outer"]] == [term, "log theta"]
    assert [each["edf"] for each in told["outer"]] == [3.5, None]
    assert [each["is_nuisance"] for each in told["outer"]] == [False, True]
    assert gamwarm_command("show", path, artifact).lines[-1].split() == ["log", "theta", "nuisance", *"---", "-1.25"]
    assert '<th style="text-align:left">log theta</th><td style="text-align:left">-1.25</td>' in record._repr_html_()


def test_a_fit_without_outer_coordinates_has_no_table_of_them(gamwarm_command, tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.put_record(record_of(1, rho=[]))
        store.put_record(record_of(2))

    assert "OUTER" not in gamwarm_command("show", tmp_path / "fits.h5", record_of(1).key).out
    assert "\n    0  -   " in gamwarm_command("show", tmp_path / "fits.h5", record_of(2).key).out


# -- what is printed is taken ----------------------------------------------------------------------


def test_every_key_and_id_that_is_printed_is_taken_by_every_command_that_takes_one(gamwarm_command, stored, tmp_path):
    printed = {line.split()[0] for line in gamwarm_command("ls", stored.path).lines[1:]}
    for entry in list(printed):
        said = " ".join(gamwarm_command(what, stored.path, entry).out for what in ("show", "lineage", "explain"))
        printed |= set(re.findall(r"\b(?:cf-)?[0-9a-f]{8,64}\b", said))

    assert {len(each.removeprefix("cf-")) for each in printed} == {9, 12, 32, 64}
    for entry in printed:
        for what in ("show", "lineage", "explain"):
            assert gamwarm_command(what, stored.path, entry).code == 0, (what, entry)
        assert gamwarm_command("ls", stored.path, "--select", entry).lines[1:], entry
        exported = gamwarm_command("export", stored.path, "-o", tmp_path / "a.h5", "--overwrite", "--select", entry)
        assert exported.code == 0, entry
        pinned = gamwarm_command("pin", stored.path, entry)
        assert pinned.code == 0 or "give the entry id of one" in pinned.err, entry


def test_what_the_command_prints_in_short_is_refused_in_python_with_advice(stored):
    with gamwarm.open(stored.path) as store:
        for call in (store.get_record, store.get_artifact, store.pin, lambda key: store.start_for(carrier_fit(), key)):
            with pytest.raises(gamwarm.InvalidKey, match="gamwarm show"):
                call(stored.parent[:12])


def test_a_label_given_as_a_key_is_told_how_to_look_it_up(gamwarm_command, stored):
    assert "`gamwarm ls FILE --attribute group=LABEL`" in gamwarm_command("show", stored.path, "AA").err
