"""How long writers wait for each other: many processes that keep fits in one file at once."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.rivals import record_of
from benchmarks.store import machine

PROCESSES = (4, 16, 64)
KEEPS = 20
LOCKS = ("flock", "soft")
PATIENCE = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES, help="how many at once (4 16 64)")
    parser.add_argument("--keeps", type=int, default=KEEPS, help="records that each of them keeps (%(default)s)")
    parser.add_argument("--locks", nargs="+", default=LOCKS, choices=LOCKS, help="kinds of lock (both)")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    try:
        where = machine(folder.parent)
        rows = [
            crowd(folder / f"{lock}-{count}.h5", lock, count, arguments.keeps)
            for lock in arguments.locks
            for count in arguments.processes
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_table(where, rows, arguments.keeps))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": where, "rows": rows}, indent=1) + "\n")


def crowd(path: Path, lock: str, count: int, keeps: int) -> dict[str, Any]:
    """Let so many processes keep records in one file at once, each as fast as it can."""
    gamwarm.open(path, lock=lock, on_error="raise").close()
    fork = multiprocessing.get_context("fork")  # 64 imports would take longer than what is measured
    start, told = fork.Barrier(count), fork.Queue()
    workers = [fork.Process(target=_keep, args=(path, lock, who, keeps, start, told)) for who in range(count)]
    for worker in workers:
        worker.start()
    answers = [told.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join()
    with gamwarm.open(path, "r") as store:
        assert len(store.keys()) == count * keeps, "a record is missing"
    took = sorted(seconds for answer in answers for seconds in answer["took"])
    seconds = max(a["ended"] for a in answers) - min(a["began"] for a in answers)
    return {
        "lock": lock,
        "processes": count,
        "keeps a second": len(took) / seconds,
        "median ms": 1e3 * took[len(took) // 2],
        "99 % ms": 1e3 * took[int(0.99 * (len(took) - 1))],
        "longest ms": 1e3 * took[-1],
        "seconds": seconds,
        "first done": min(a["ended"] for a in answers) - min(a["began"] for a in answers),
    }


def _keep(path: Path, lock: str, who: int, keeps: int, start: Any, told: Any) -> None:
    records = [record_of(who * keeps + number) for number in range(keeps)]
    took = []
    with gamwarm.open(path, lock=lock, on_error="raise") as store:
        start.wait()
        began = time.monotonic()
        for record in records:
            before = time.monotonic()
            assert store.put_record(record).written
            took.append(time.monotonic() - before)
        ended = time.monotonic()
    told.put({"took": took, "began": began, "ended": ended})


def _table(where: dict[str, Any], rows: list[dict[str, Any]], keeps: int) -> Table:
    kind = f"{where['cores']} × {where['processor']}, {where['file system']}"
    table = Table(title=f"{where['date']}: {kind}; {keeps} keeps of each process")
    for head in rows[0]:
        table.add_column(head, justify="left" if head == "lock" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    table.caption = "one keep: from asking for the lock until it is on disk; first done: the process that ends first"
    return table
