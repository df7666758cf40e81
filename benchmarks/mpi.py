"""One collective save beside as many single ones under the lock; a collective look-up beside a
local one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.ranks import run_ranks
from benchmarks.rivals import record_of
from benchmarks.store import machine
from benchmarks.timing import quiet_seconds
from gamwarm.parallel import as_communicator
from gamwarm.storage.vfs import DISK

RANKS = 4
RECORDS = 256
LOOKUPS = 200
LEAST_FEWER_SYNCS = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--ranks", type=int, default=RANKS, help="ranks that save together (%(default)s)")
    parser.add_argument("--records", type=int, default=RECORDS, help="records of all ranks (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    try:
        where = machine(folder.parent)
        command = [sys.executable, "-m", "benchmarks.mpi", str(folder), str(arguments.records)]
        found = run_ranks(arguments.ranks, command, folder / "answer.json")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = {"machine": where, "ranks": arguments.ranks, "records": arguments.records, **found, **_verdicts(found)}
    console.print(_table(report))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _verdicts(found: dict[str, Any]) -> dict[str, Any]:
    single, together = found["single saves"], found["collective save"]
    fewer = single["syncs"] / max(1, together["syncs"])
    return {
        "times fewer syncs": fewer,
        "times faster": single["seconds"] / together["seconds"],
        "met": fewer >= LEAST_FEWER_SYNCS,
    }


def _table(report: dict[str, Any]) -> Table:
    where = report["machine"]
    kind = f"{where['cores']} × {where['processor']}, {where['file system']}"
    table = Table(title=f"{where['date']}: {kind}; {report['records']} records from {report['ranks']} ranks")
    for head in ("", "", "beside", "ratio", "target", ""):
        table.add_column(head, justify="left" if head in ("", "target") else "right", no_wrap=True)
    single, together = report["single saves"], report["collective save"]
    verdict = "met" if report["met"] else "[bold]missed[/bold]"
    fewer, faster = report["times fewer syncs"], report["times faster"]
    target = f"≥ {LEAST_FEWER_SYNCS:g}"
    table.add_row(
        "syncs of one collective save", f"{together['syncs']}", f"{single['syncs']}", f"{fewer:.0f}", target, verdict
    )
    table.add_row("seconds", f"{together['seconds']:.3f}", f"{single['seconds']:.3f}", f"{faster:.1f}", "", "")
    for name in ("get_record, from the file", "get_record, again", "start_for, exact hit", "start_for, transfer"):
        ours, local = report["look-ups"][name]
        table.add_row(f"{name}, µs", f"{ours:.0f}", f"{local:.0f}", f"{ours / local:.2f}", "", "")
    for name in ("agreement", "broadcast of 4 KB"):
        table.add_row(f"one {name}, µs", f"{report['messages'][name]:.1f}", "", "", "", "")
    table.caption = (
        "saves: beside single ones of the same ranks under the lock; "
        f"look-ups: by {report['looking']} ranks, beside a serial store's"
    )
    return table


# -- what the ranks do -----------------------------------------------------------------------------


class Syncs:
    """Counts this process' calls of fdatasync, and of fsync on directories."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Syncs:
        for name in ("fdatasync", "fsync_dir"):
            setattr(DISK, name, self._counting(getattr(DISK, name)))
        return self

    def _counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.count += 1
            return real(*args)

        return counted

    def __exit__(self, *_: object) -> None:
        for name in ("fdatasync", "fsync_dir"):
            delattr(DISK, name)


def on_ranks(folder: Path, records: int) -> None:
    """Save and look up on all ranks; what `run_ranks` starts."""
    from mpi4py import MPI  # noqa: PLC0415 - only where ranks are

    comm = MPI.COMM_WORLD
    mine = [record_of(number) for number in range(comm.rank, records, comm.size)]
    rounds = -(-records // comm.size)

    def together() -> None:
        with gamwarm.open(folder / "together.h5", comm=comm, on_error="raise") as store, store.transaction():
            for turn in range(rounds):
                store.put_record(mine[turn] if turn < len(mine) else None, each=True)

    def single() -> None:
        with gamwarm.open(folder / "single.h5", on_error="raise") as store:
            for record in mine:
                assert store.put_record(record).written

    answer: dict[str, Any] = {}
    for name, save in (("collective save", together), ("single saves", single)):
        comm.barrier()
        started = time.perf_counter()
        with Syncs() as syncs:
            save()
        seconds = comm.allreduce(time.perf_counter() - started, MPI.MAX)
        answer[name] = {"syncs": comm.allreduce(syncs.count), "seconds": seconds}
    comm.barrier()
    # Ranks that share a core wait for each other's time slices: look-ups are measured with a core
    # each.
    answer["looking"] = looking = min(comm.size, len(os.sched_getaffinity(0)))
    part = comm.Split(0 if comm.rank < looking else 1, comm.rank)
    if comm.rank < looking:
        answer["look-ups"] = _lookups(part, folder, records)
        answer["messages"] = _messages(part)
    wait_quietly(comm)
    part.Free()
    if comm.rank == 0:
        with gamwarm.open(folder / "single.h5", "r") as one, gamwarm.open(folder / "together.h5", "r") as other:
            assert one.entry_ids() == other.entry_ids()
            assert len(one) == records
        (folder / "answer.json").write_text(json.dumps(answer))


def wait_quietly(comm: Any) -> None:
    """Meet the other ranks without turning in circles meanwhile, as MPI's own barrier does."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.01)


def _lookups(comm: Any, folder: Path, records: int) -> dict[str, tuple[float, float]]:
    """Return µs in a collective store, and in a serial one that rank 0 alone has while the others
    wait.
    """
    from tests.support.stores import carrier_fit, result_of  # noqa: PLC0415 - fits of a smooth and a factor

    keys = [record_of(number).key for number in range(min(LOOKUPS, records))]
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    path = folder / "look.h5"
    with gamwarm.open(path, comm=comm, on_error="raise") as store, store.transaction():
        for number in range(len(keys)):
            store.put_record(record_of(number))
        store.keep(parent, result_of(parent))

    def measured(store: Any) -> dict[str, float]:
        found = {"get_record, from the file": 1e6 * quiet_seconds([lambda k=k: store.get_record(k) for k in keys])}
        found["get_record, again"] = 1e6 * quiet_seconds([lambda k=k: store.get_record(k) for k in keys])
        for name, fit in (("exact hit", parent), ("transfer", child)):
            store.start_for(fit)
            found[f"start_for, {name}"] = 1e6 * quiet_seconds([lambda fit=fit: store.start_for(fit)] * len(keys))
        return found

    with gamwarm.open(path, "r", comm=comm) as store:
        ours = measured(store)
    local: dict[str, float] = {}
    if comm.rank == 0:
        with gamwarm.open(path, "r") as store:
            local = measured(store)
    local = comm.bcast(local)
    return {name: (ours[name], local[name]) for name in ours}


def _messages(comm: Any) -> dict[str, float]:
    from gamwarm.parallel import agree  # noqa: PLC0415

    ranks = as_communicator(comm)
    page = b"x" * 4096
    return {
        "agreement": 1e6 * quiet_seconds([lambda: agree(ranks, "bench", None)] * LOOKUPS),
        "broadcast of 4 KB": 1e6 * quiet_seconds([lambda: ranks.bcast(page)] * LOOKUPS),
    }


if __name__ == "__main__":
    on_ranks(Path(sys.argv[1]), int(sys.argv[2]))
