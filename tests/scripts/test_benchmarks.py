"""The benchmarks can be started by the names that scripts/bench lists, and what they compute and
simulate adds up.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.__main__ import COMMANDS
from gamwarm.engine import Factor, Intercept, Poisson, Smooth

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_and_the_module_know_the_same_benchmarks():
    said = subprocess.run([ROOT / "scripts" / "bench", "--help"], check=True, capture_output=True, text=True).stdout

    assert re.findall(r"^  ([a-z]\w*) ", said, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_takes_a_file_for_its_figures(name):
    module = import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)

    assert parser.parse_args(["--json", "figures.json"]).json == Path("figures.json")
    assert callable(module.main)


@pytest.fixture(scope="module")
def scaling():
    return import_module("benchmarks.scaling")


@pytest.fixture(scope="module")
def constants(scaling):
    return scaling.Constants(30, 500, 2500, 3500, 4000.0, 6e-5, 1e-3, 1e-3, 1e-4, 7e-4)


def test_a_lock_in_little_use_makes_no_one_wait_and_one_in_too_much_use_falls_behind(scaling, constants):
    easy = scaling.job_array(100, 600.0, "single puts", constants)
    crowded = scaling.job_array(10_000, 10.0, "single puts", constants)

    # 100 fits in 600 s, each holding the lock for 2 ms.
    assert easy["lock utilization"] == pytest.approx(100 * 0.002 / 600.0, rel=0.5)
    assert easy["mean wait s"] < 1e-3
    # 1000 fits a second would need 2 s of the lock each second: after 600 s the last waits for 600
    # s and more.
    assert crowded["lock utilization"] > 2.0
    assert crowded["longest wait s"] > 600.0


def test_batches_take_fewer_commits_and_less_of_the_lock(scaling, constants):
    each, batched, grouped = (
        scaling.job_array(10_000, 60.0, mode, constants) for mode in ("single puts", "independent", "aggregators")
    )

    assert each["commits/s"] > 2 * batched["commits/s"] > 20 * grouped["commits/s"]
    assert each["lock utilization"] > batched["lock utilization"] > grouped["lock utilization"]


def test_a_round_costs_rank_0_in_proportion_to_the_ranks(scaling, constants):
    small, large = (scaling.collective_round(p, constants, 2e-6, 1e10) for p in (100, 10_000))

    assert large["MB through rank 0"] == pytest.approx(100 * small["MB through rank 0"])
    assert large["file access on rank 0 s"] == pytest.approx(10_000 * 1.06e-3, rel=0.01)
    assert large["message depth"] == 6 * 14


@pytest.fixture
def layer():
    return import_module("benchmarks.layer")


def test_a_part_of_the_layer_that_begins_inside_another_interrupts_it(layer, monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0])
    monkeypatch.setattr(layer.time, "process_time", lambda: next(now))
    watch = layer.Stopwatch()
    inner = watch.around("inner", lambda: None)
    with watch.of("outer"):
        inner()
        watch.around("never", lambda: None, inside="elsewhere")()
        with watch.of("other"):
            pass

    assert dict(watch.seconds) == {"outer": 1.0 + 4.0 + 16.0, "inner": 2.0, "other": 8.0}


def test_every_part_of_the_layer_is_timed_and_the_watched_functions_are_put_back(layer, tmp_path):
    from gamwarm import StartGuard
    from gamwarm.storage.vfs import DISK

    before = layer.codec.decode, layer.lookup.start_from, StartGuard.admit
    bench = layer.Bench(layer.DATA_SETS["mcycle"], 2, None, None)

    folds = layer.measure(bench, tmp_path, cold=True)
    figures = layer.figures_of(bench, folds)

    assert len(folds) == 2
    means = figures["seconds per fold"]
    assert means["layer"] == pytest.approx(sum(means[part] for part in layer.PARTS))
    for fold in folds:
        # The parent is decoded by the fold before.
        assert {part for part in layer.ALL if fold.get(part, 0.0) <= 0.0} <= {"decode"}
    assert (layer.codec.decode, layer.lookup.start_from, StartGuard.admit) == before
    assert not {"fdatasync", "fsync_dir"} & set(vars(DISK))


def test_an_adapter_is_measured_alone_from_a_parent_and_again():
    from benchmarks.adapters_data import chosen

    adapters = import_module("benchmarks.adapters")
    (tool,) = chosen("squares-indometh")

    row = adapters.measure(tool, 2, 1)

    assert [row[kind]["converged"] for kind in adapters.KINDS] == [2, 2, 2]
    assert (row["again"]["evaluations"], row["again"]["iterations"]) == (1.0, 0.0)
    assert row["warm"]["iterations"] < row["cold"]["iterations"]
    assert row["worse by"] < 1e-6
    with pytest.raises(SystemExit, match="there is no tool 'nobody'"):
        next(chosen("nobody"))


def test_growth_finds_a_parent_of_each_kind_in_files_of_each_size(tmp_path, monkeypatch):
    growth = import_module("benchmarks.growth")
    monkeypatch.setattr(growth, "ROUNDS", 4)

    jobs = growth.growth(tmp_path, [2, 4])
    folds = growth.campaign(tmp_path, 4)
    whole = growth.whole_file(tmp_path, [4])

    assert all(jobs[store][size][job] > 0 for store in growth.STORES for size in (2, 4) for job in growth.JOBS)
    assert all(cost > 0 for each in folds.values() for cost in each.values())
    assert all(cost > 0 for cost in whole[4].values())


def test_a_fold_without_an_answer_is_listed_and_counts_in_no_arm(tmp_path):
    loso, data = import_module("benchmarks.loso"), import_module("benchmarks.loso_data")
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b", "c"], 60)
    site = np.where((group == "b") & (rng.random(180) < 0.5), "2", rng.choice(["0", "1"], 180))
    site[:20] = "2"
    y = np.where((site == "2") & (group == "a"), 0, rng.poisson(2, 180))  # of site 2, "b" alone has events
    columns = {"x": rng.uniform(0, 1, 180), "site": site, "group": group, "y": y.astype(float)}
    terms = (Intercept(), Factor("site"), Smooth("x", 6))
    bench = loso.Bench(
        data.DataSet("made", "made", lambda: columns, terms, Poisson("y"), "group", None, (1.0, 1.0)),
        None,
        1,
        Console(file=StringIO()),
    )

    figure = bench.run(tmp_path)

    assert figure["per fold"]["labels"] == ["a", "c"]
    assert all("without b" in line and "no finite optimum" in line for line in bench.unanswered)
    assert len(figure["per fold"]["warm formations"]) == len(figure["per fold"]["cold formations, zero"]) == 2
