"""How fast a design is named: gamwarm's digest beside joblib.hash and a plain copy of memory,
serial and over ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

from benchmarks.ranks import run_ranks
from benchmarks.store import machine
from gamwarm import matrix_digest

COLUMNS = 100
ROUNDS = 3
LEAST_OF_JOBLIB = 4.0
MOST_OF_ONE_RANK = 0.55
MOST_EXTRA_MIB = 32.0


@dataclass
class Measure:
    """One line: the best of some rounds, in GB of binary64 numbers (sparse: of stored bytes) per
    second.
    """

    name: str
    threads: int
    wall: float
    cpu: float
    extra_mib: float | None = None
    target: str = ""
    met: bool | None = None


class Hdf5Rows:
    """A lazy design in an HDF5 file."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self.shape: tuple[int, int] = dataset.shape

    def row_chunk(self, start: int, stop: int, /) -> Any:
        """Rows start:stop, read from the file."""
        return self.dataset[start:stop]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--gb", type=float, default=1.0, help="size of the design as float64 (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="each is measured so often, by turns (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: in memory, if there is such)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder or (memory if memory.is_dir() else None))
    )
    try:
        where = machine(folder.parent)
        serial = _serial(arguments.gb, folder, arguments.rounds)
        ranks = _ranks(folder, arguments.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_table(serial, arguments.gb, where))
    console.print(_rank_table(ranks, where))
    if arguments.json is not None:
        report = {"machine": where, "gb": arguments.gb, "measures": [asdict(m) for m in serial], "ranks": ranks}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


# -- one process -----------------------------------------------------------------------------------


def _serial(gb: float, folder: Path, rounds: int) -> list[Measure]:
    n = max(1, round(gb * 1e9 / (8 * COLUMNS)))
    design = np.random.default_rng(20261124).standard_normal((n, COLUMNS))
    np.save(folder / "design.npy", design)
    with h5py.File(folder / "design.h5", "w") as file:
        file["design"] = design
    copy = np.empty_like(design)
    one, every = {min(os.sched_getaffinity(0))}, os.sched_getaffinity(0)
    measures: dict[str, Measure] = {}

    def measure(name: str, cores: set[int], size: float, act: Callable[[], object]) -> None:
        with _on(cores), _peak() as extra:
            wall, cpu = _timed(act)
        key = name if len(cores) == 1 else f"{name}, {len(cores)} threads"
        found = measures.setdefault(key, Measure(key, len(cores), 0.0, 0.0))
        found.wall, found.cpu = max(found.wall, size / wall), max(found.cpu, size / cpu)
        found.extra_mib = max([*extra, found.extra_mib or 0.0]) if extra else None

    size = design.nbytes / 1e9
    dense = {
        "row-major": design,
        "column-major": np.asfortranarray(design),
        "float32": design.astype(np.float32),
    }
    matrix_digest(design[: 8 * 4096])  # so that nothing is done for the first time
    for _ in range(rounds):
        measure("memory copy", one, size, partial(np.copyto, copy, design))
        measure("joblib.hash", one, size, partial(joblib.hash, design))
        for name, form in dense.items():
            measure(name, one, size, partial(matrix_digest, form))
        with h5py.File(folder / "design.h5") as file:
            measure("lazy, from HDF5", one, size, partial(matrix_digest, Hdf5Rows(file["design"])))
        if len(every) > 1:
            for name, form in dense.items():
                measure(name, every, size, partial(matrix_digest, form))
    del dense, copy, design, form
    gc.collect()
    banded = _banded(gb / 2)
    stored = (banded.data.nbytes + banded.indices.nbytes + banded.indptr.nbytes) / 1e9
    for _ in range(rounds):
        measure("sparse, CSR", one, stored, partial(matrix_digest, banded))
    least = LEAST_OF_JOBLIB * measures["joblib.hash"].cpu
    row_major = measures["row-major"]
    row_major.target, row_major.met = f"≥ {LEAST_OF_JOBLIB:g} × joblib.hash", row_major.cpu >= least
    for found in measures.values():
        if found.extra_mib is not None and found.name not in ("memory copy", "joblib.hash"):
            found.met = found.met is not False and found.extra_mib < MOST_EXTRA_MIB
            found.target = f"{found.target}, < {MOST_EXTRA_MIB:g} MiB".removeprefix(", ")
    return list(measures.values())


def _banded(gb: float) -> Any:
    """A CSR matrix of ten entries a row, of about so many GB with its indices."""
    rows = max(1, round(gb * 1e9 / (10 * 12)))
    indices = (np.arange(rows, dtype=np.int32)[:, None] % 190 + np.arange(10, dtype=np.int32)).ravel()
    data = np.tile(np.linspace(-1.0, 1.0, 1000), -(-len(indices) // 1000))[: len(indices)]
    return sparse.csr_array((data, indices, np.arange(rows + 1, dtype=np.int32) * 10), shape=(rows, 200))


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Run on these cores: gamwarm takes as many threads as it may run on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _peak() -> Iterator[list[float]]:
    """Yield a list that holds, afterwards, by how many MiB the peak of resident memory passed what
    was there before.

    It stays empty where the system cannot tell.
    """
    found: list[float] = []
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = _kib("VmRSS")
    except OSError:
        yield found
        return
    yield found
    found.append(max(0, _kib("VmHWM") - before) / 1024)


def _kib(field: str) -> int:
    line = next(ln for ln in Path("/proc/self/status").read_text().splitlines() if ln.startswith(f"{field}:"))
    return int(line.split()[1])


def _timed(act: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def _table(measures: list[Measure], gb: float, where: dict[str, Any]) -> Table:
    by_name = {m.name: m for m in measures}
    copy, joblibs = by_name["memory copy"], by_name["joblib.hash"]
    kind = f"{where['cores']} × {where['processor']}"
    title = f"{where['date']}: {kind}; a design of {gb:g} GB, {COLUMNS} columns; best rounds"
    table = Table(title=title)
    for head in ("", "GB/s", "by CPU time", "/ joblib", "/ copy", "extra MiB", "target", ""):
        table.add_column(head, justify="left" if head in ("", "target") else "right", no_wrap=True)
    for m in measures:
        extra = "–" if m.extra_mib is None or m is joblibs or m is copy else f"{m.extra_mib:.1f}"
        verdict = "" if m.met is None else ("met" if m.met else "[bold]missed[/bold]")
        ratios = f"{m.wall / joblibs.wall:.1f}", f"{m.wall / copy.wall:.2f}"
        table.add_row(m.name, f"{m.wall:.2f}", f"{m.cpu:.2f}", *ratios, extra, m.target, verdict)
    table.caption = "sparse: GB of stored bytes; the verdict on joblib.hash goes by CPU time, which others disturb less"
    return table


# -- ranks -----------------------------------------------------------------------------------------


def _ranks(folder: Path, rounds: int) -> dict[str, Any]:
    """One rank beside two, each on a core of its own with one thread; the design is one file mapped
    by both.
    """
    cores = sorted(os.sched_getaffinity(0))
    answers = {
        n: run_ranks(
            n, [sys.executable, "-m", "benchmarks.fingerprint", str(folder), str(rounds)], folder / f"{n}.json"
        )
        for n in (1, 2)
        if n <= len(cores)
    }
    one, two = answers[1], answers.get(2)
    report: dict[str, Any] = {"one": one, "two": two}
    if two is not None:
        for form in ("replicated", "distributed"):
            wall, cpu = (two[form][k] / one["replicated"][k] for k in ("wall", "cpu"))
            report[form] = {"wall ratio": wall, "cpu ratio": cpu, "met": min(wall, cpu) <= MOST_OF_ONE_RANK}
    return report


def _rank_table(ranks: dict[str, Any], where: dict[str, Any]) -> Table:
    table = Table(title="the same design named by ranks, one core and one thread each")
    for head in (
        "",
        "ranks",
        "wall s",
        "CPU s of the busiest rank",
        "this / 1 rank, wall",
        "by CPU time",
        "target",
        "",
    ):
        table.add_column(head, justify="left" if head in ("", "target") else "right", no_wrap=True)
    one = ranks["one"]["replicated"]
    table.add_row("replicated", "1", f"{one['wall']:.3f}", f"{one['cpu']:.3f}", "", "", "", "")
    if ranks["two"] is None:
        table.caption = f"{where['cores']} core: two ranks were not measured"
        return table
    for form in ("replicated", "distributed"):
        two, ratio = ranks["two"][form], ranks[form]
        verdict = "met" if ratio["met"] else "[bold]missed[/bold]"
        row = f"{two['wall']:.3f}", f"{two['cpu']:.3f}", f"{ratio['wall ratio']:.2f}", f"{ratio['cpu ratio']:.2f}"
        table.add_row(form, "2", *row, f"≤ {MOST_OF_ONE_RANK:g}", verdict)
    sent = ranks["two"]["sent"]
    table.caption = (
        f"distributed rows sent {sent['rows']} of {sent['of']} rows to another rank; the verdict goes by the better of "
        "wall and CPU time: on a machine that does other work, wall time cannot tell"
    )
    return table


def on_ranks(folder: Path, rounds: int) -> None:
    """Name the design of ``folder`` on all ranks; what `run_ranks` starts."""
    from mpi4py import MPI  # noqa: PLC0415 - only where ranks are

    from gamwarm import DistributedRows  # noqa: PLC0415

    comm = MPI.COMM_WORLD
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[comm.rank % len(cores)]})
    design = np.load(folder / "design.npy", mmap_mode="r")
    n = design.shape[0]
    cut = [r * n // comm.size + (7 if 0 < r < comm.size else 0) for r in range(comm.size + 1)]
    local = np.array(design[cut[comm.rank] : cut[comm.rank + 1]])
    float(design[:: 4096 // (8 * COLUMNS)].sum())  # every page is mapped by now
    rows = DistributedRows(local, comm)
    best: dict[str, dict[str, float]] = {}
    digests = set()
    for _ in range(rounds + 1):
        for form, act in (
            ("replicated", partial(matrix_digest, design, comm)),
            ("distributed", partial(matrix_digest, rows)),
        ):
            comm.barrier()
            cpu, wall = time.process_time(), time.perf_counter()
            digests.add(act())
            took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            took = {name: comm.allreduce(value, MPI.MAX) for name, value in took.items()}
            best[form] = {name: min(value, best.get(form, took)[name]) for name, value in took.items()}
    assert len(digests) == 1
    sent = comm.allreduce(rows.traffic.rows_sent) // (rounds + 1)
    if comm.rank == 0:
        (folder / f"{comm.size}.json").write_text(json.dumps({**best, "sent": {"rows": sent, "of": n}}))


if __name__ == "__main__":
    on_ranks(Path(sys.argv[1]), int(sys.argv[2]))
