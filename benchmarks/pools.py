"""Short fits by the workers of every kind of pool, kept by a store opened per task or by one store
per worker.

Each pool runs in a program of its own, which ends when the pool has ended; then the fits in the
file are counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.ranks import run_ranks
from benchmarks.store import machine
from gamwarm import engine

FITS = 200
WORKERS = 4
WAYS = ("a store per task", "a store per worker")
SECONDS = 600.0

own: gamwarm.IndependentStore | None = None
"""The store of this worker, opened by its first task."""


def task(work: tuple[int, str, str]) -> int:
    """Make one short fit and keep it."""
    number, path, way = work
    rng = np.random.default_rng(number)
    x = rng.uniform(0, 10, 120)
    data = {"x": x, "y": np.sin(x) + 0.3 * rng.normal(size=x.size)}
    case = engine.bind(data, [engine.Intercept(), engine.Smooth("x", k=6)], engine.Gaussian("y")).case()
    if way == WAYS[0]:
        with gamwarm.open(path) as store:
            engine.fit(case, store=store)
    else:
        global own
        if own is None:
            own = gamwarm.open(path).independent()
        engine.fit(case, store=own)
    return number


Tasks = list[tuple[int, str, str]]


def _executor(method: str) -> Callable[[Tasks], None]:
    def run(tasks: Tasks) -> None:
        from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - one pool a program

        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context(method)) as pool:
            list(pool.map(task, tasks))

    return run


def _pool(method: str, *, terminated: bool = False) -> Callable[[Tasks], None]:
    def run(tasks: Tasks) -> None:
        pool = multiprocessing.get_context(method).Pool(WORKERS)
        pool.map(task, tasks, chunksize=1)
        if terminated:
            pool.terminate()
        else:
            pool.close()
        pool.join()

    return run


def _joblib(tasks: Tasks) -> None:
    from joblib import Parallel, delayed  # noqa: PLC0415

    Parallel(WORKERS)(delayed(task)(each) for each in tasks)


def _dask(tasks: Tasks) -> None:
    from distributed import Client, LocalCluster  # noqa: PLC0415

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(task, tasks))


def _mpi(tasks: Tasks) -> None:
    from mpi4py.futures import MPICommExecutor  # noqa: PLC0415

    with MPICommExecutor() as pool:
        if pool is not None:
            list(pool.map(task, tasks))


POOLS: dict[str, Callable[[Tasks], None]] = {
    **{f"concurrent.futures, {method}": _executor(method) for method in ("fork", "forkserver", "spawn")},
    **{f"multiprocessing.Pool, {method}": _pool(method) for method in ("fork", "forkserver", "spawn")},
    "joblib (loky)": _joblib,
    "dask LocalCluster": _dask,
    "mpi4py.futures": _mpi,
    "multiprocessing.Pool, terminated": _pool("fork", terminated=True),
}
NEEDS = {"joblib (loky)": "joblib", "dask LocalCluster": "distributed", "mpi4py.futures": "mpi4py"}


def run_program(name: str, way: str, path: Path, fits: int) -> None:
    """Run one pool in a program of its own, with as many ``fits`` in the store at ``path`` as it
    leaves there.
    """
    arguments = ["-m", "benchmarks.pools", name, way, str(path), str(fits)]
    if name == "mpi4py.futures":
        run_ranks(WORKERS + 1, [sys.executable, *arguments], path.with_suffix(".json"))
        return
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, *arguments], check=True, timeout=SECONDS, cwd=root, stdin=subprocess.DEVNULL)


def fits_in(path: Path) -> int:
    """Return how many fits the file has."""
    with gamwarm.open(path, "r", on_error="raise") as store:
        return len(store.keys())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--fits", type=int, default=FITS, help="fits in each pool (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    console = Console() if Console().is_terminal else Console(width=130)
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    rows: dict[str, Any] = {}
    try:
        where = machine(folder.parent)
        for name in POOLS:
            if name in NEEDS and find_spec(NEEDS[name]) is None:
                console.print(f"{name}: left out, {NEEDS[name]} is not installed")
                continue
            rows[name] = {}
            for way in WAYS:
                path = folder / f"{len(rows)}-{WAYS.index(way)}.h5"
                began = time.perf_counter()
                run_program(name, way, path, arguments.fits)
                rows[name][way] = {"seconds": time.perf_counter() - began, "fits": fits_in(path)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_table(rows, arguments.fits))
    if arguments.json is not None:
        report = {"machine": where, "fits": arguments.fits, "workers": WORKERS, "pools": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _table(rows: dict[str, Any], fits: int) -> Table:
    table = Table(title=f"{fits} short fits, {WORKERS} workers: fits in the file, seconds from start to end")
    table.add_column("pool")
    for way in WAYS:
        table.add_column(way, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[way]['fits']} of {fits}, {row[way]['seconds']:.1f} s" for way in WAYS))
    return table


def program(name: str, way: str, path: str, fits: str) -> None:
    """Run one pool; what `run_program` starts."""
    gamwarm.open(path).close()
    POOLS[name]([(number, path, way) for number in range(int(fits))])
    if name == "mpi4py.futures":
        Path(path).with_suffix(".json").write_text("null")


if __name__ == "__main__":
    from benchmarks import pools  # tasks travel by this name

    pools.program(*sys.argv[1:])
