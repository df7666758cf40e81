"""What ten thousand ranks and ten million records would cost: constants measured here, the rest
computed or simulated.

Measured: bytes that travel (pickled as they would be), times of look-ups, puts and commits, bytes
per record. Assumed: the network (``--latency``, ``--gbit``), and how long fits take.
"""

from __future__ import annotations

import argparse
import heapq
import json
import pickle
import random
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.rivals import key_of, record_of
from benchmarks.store import machine
from benchmarks.timing import quiet_seconds
from gamwarm.store.keep import prepare
from gamwarm.store.lookup import answer, describe
from tests.support.stores import carrier_fit, result_of

RANKS = (100, 1000, 10_000)
RECORDS = (10**5, 10**6, 10**7)
FIT_SECONDS = (10.0, 60.0, 600.0)
FLUSH_SECONDS = 30.0
RANKS_PER_AGGREGATOR = 100
SIMULATED_SECONDS = 600.0
POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Constants:
    """What was measured: bytes, and seconds."""

    report_bytes: int
    request_bytes: int
    answer_bytes: int
    filing_bytes: int
    record_bytes: float
    lookup: float
    put: float
    commit: float
    verify: float
    open_and_get: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--latency", type=float, default=2.0, help="assumed: µs per message (%(default)s)")
    parser.add_argument("--gbit", type=float, default=100.0, help="assumed: Gbit/s into one node (%(default)s)")
    parser.add_argument("--records", type=int, default=2000, help="records of the file measured (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where it is made (default: the system's temporary folder)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, compute, simulate, print the tables, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    try:
        where = machine(folder.parent)
        constants = measured(folder, arguments.records)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"{where['date']}: {where['cores']} × {where['processor']}, {where['file system']}", constants)
    rounds = [collective_round(p, constants, arguments.latency * 1e-6, arguments.gbit * 1e9 / 8) for p in RANKS]
    arrays = [
        {"tasks": tasks, "fit seconds": seconds, "mode": mode, **job_array(tasks, seconds, mode, constants)}
        for tasks in RANKS
        for seconds in FIT_SECONDS
        for mode in ("single puts", "independent", "aggregators")
    ]
    files = [one_file(n, constants) for n in RECORDS]
    for title, lines in (
        ("one round of one fit per rank: a look-up and a keep", rounds),
        (f"job arrays on one file, {SIMULATED_SECONDS:g} s simulated", arrays),
        ("one file", files),
    ):
        console.print(_table(title, lines))
    if arguments.json is not None:
        report = {"machine": where, "constants": asdict(constants), "rounds": rounds, "arrays": arrays, "files": files}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


# -- measured --------------------------------------------------------------------------------------


def measured(folder: Path, records: int) -> Constants:
    """Measure on a small file. A time is what a tenth of the calls beat, so that other work
    disturbs it less.
    """
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    request = describe(child, child.key, None)
    filing = prepare(child, child.key, result_of(child), None)
    path = folder / "fits.h5"
    with gamwarm.open(path, on_error="raise") as store:
        store.keep(parent, result_of(parent))
        empty = path.stat().st_size
        with store.transaction():
            puts = quiet_seconds([lambda r=r: store.put_record(r) for r in map(record_of, range(records))])
        kept = [carrier_fit(range(k % 30, 37), n=60 + k) for k in range(60)]
        for fit in kept:
            assert fit.key
        with store.transaction():
            put = quiet_seconds([lambda fit=fit: store.keep(fit, result_of(fit)) for fit in kept])
        one = [record_of(k) for k in range(records, records + 200)]
        commit = quiet_seconds([lambda r=r: store.put_record(r) for r in one]) - puts
        found = answer(store._file, request)
        lookup = quiet_seconds([lambda k=k: store._file.find_record(key_of(k), None) for k in range(records)])
        verify = quiet_seconds([store.verify] * 10) / len(store)
    size = path.stat().st_size - empty

    def open_and_get() -> None:
        with gamwarm.open(path, "r") as store:
            store.get_record(key_of(1))

    return Constants(
        report_bytes=len(pickle.dumps(("start_for", None, False, None), -1)),
        request_bytes=len(pickle.dumps(request, -1)),
        answer_bytes=len(pickle.dumps(found, -1)),
        filing_bytes=len(pickle.dumps(filing, -1)),
        record_bytes=size / (records + 260),
        lookup=lookup,
        put=put,
        commit=max(commit, 0.0),
        verify=verify,
        open_and_get=quiet_seconds([open_and_get] * 50),
    )


# -- computed --------------------------------------------------------------------------------------


def collective_round(ranks: int, c: Constants, latency: float, bandwidth: float) -> dict[str, float]:
    """One look-up and one keep with ``each=True``: two agreements, two gathers, two scatters, one
    transaction.
    """
    depth = (ranks - 1).bit_length()
    through_root = ranks * (2 * c.report_bytes + c.request_bytes + c.answer_bytes + c.filing_bytes)
    messages = 6 * depth * latency
    network = through_root / bandwidth
    root = ranks * (c.lookup + c.put) + c.commit
    return {
        "ranks": ranks,
        "message depth": 6 * depth,
        "MB through rank 0": through_root / 1e6,
        "network s": messages + network,
        "file access on rank 0 s": root,
        "share of a 60 s fit": (messages + network + root) / 60.0,
    }


def one_file(records: int, c: Constants) -> dict[str, float]:
    """A file of so many records; what walks over all entries grows with them, a look-up does
    not.
    """
    return {
        "records": records,
        "GB": records * c.record_bytes / 1e9,
        "open + get ms": c.open_and_get * 1e3,
        "get µs": c.lookup * 1e6,
        "verify, min": records * c.verify / 60.0,
        "merge into one, min": records * c.put / 60.0,
        "compact at 1 GB/s, min": 2 * records * c.record_bytes / 1e9 / 60.0,
    }


# -- simulated -------------------------------------------------------------------------------------


def job_array(tasks: int, fit_seconds: float, mode: str, c: Constants) -> dict[str, float]:
    """Simulate tasks that fit and write under one lock, first come, first served.

    Fits take a log-normal time about ``fit_seconds``. "single puts": every fit is a transaction.
    "independent": what waited ``FLUSH_SECONDS`` is written in the next call. "aggregators": of
    ``RANKS_PER_AGGREGATOR`` tasks one writes for all, each ``FLUSH_SECONDS``.

    Returns
    -------
    dict
        Utilisation of the lock (above 1: it falls behind for ever), mean and longest wait in
        seconds, commits a second.
    """
    pick = random.Random(f"{tasks} {fit_seconds} {mode}")
    requests = _requests(tasks, fit_seconds, mode, pick)
    free, waits, busy, demanded, commits = 0.0, [], 0.0, 0.0, 0
    for at, entries in requests:
        hold = c.commit + entries * c.put
        begin = max(at, free)
        if begin > at:  # whoever waits looks again every POLL_SECONDS: half of that passes with the lock free
            begin += POLL_SECONDS / 2
            demanded += POLL_SECONDS / 2
        waits.append(begin - at)
        free = begin + hold
        demanded += hold
        busy += hold
        commits += 1
    return {
        "lock utilization": demanded / SIMULATED_SECONDS,
        "mean wait s": statistics.fmean(waits) if waits else 0.0,
        "longest wait s": max(waits, default=0.0),
        "commits/s": commits / SIMULATED_SECONDS,
    }


def _requests(tasks: int, fit_seconds: float, mode: str, pick: random.Random) -> list[tuple[float, int]]:
    """Return (time, entries) of the writes that tasks would make if none ever waited."""
    sigma = 0.5
    mean = fit_seconds * 2.718281828459045 ** (-(sigma**2) / 2)  # so that fit_seconds is the mean
    group = RANKS_PER_AGGREGATOR if mode == "aggregators" else 1
    ends = [(pick.uniform(0.0, fit_seconds), task) for task in range(tasks)]
    heapq.heapify(ends)
    waiting: dict[int, tuple[float, int]] = {}
    found = []
    while ends[0][0] < SIMULATED_SECONDS:
        at, task = ends[0]
        since, count = waiting.get(task // group, (at, 0))
        if mode == "single puts" or at - since >= FLUSH_SECONDS:
            found.append((at, count + 1))
            waiting.pop(task // group, None)
        else:
            waiting[task // group] = since, count + 1
        heapq.heapreplace(ends, (at + mean * pick.lognormvariate(0.0, sigma), task))
    return found


def _table(title: str, lines: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for head, value in lines[0].items():
        table.add_column(head, justify="left" if isinstance(value, str) else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(_short(value) for value in line.values()))
    return table


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
