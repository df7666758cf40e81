"""``doctor``: test a directory and this environment before a long job."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import h5py
import typer
from rich.text import Text

from gamwarm.cli.exit_codes import Exit
from gamwarm.cli.options import Json, command
from gamwarm.cli.output import facts, human_bytes, show, write_json
from gamwarm.entries import EntryStore
from gamwarm.errors import InvalidInput, StoreError, StoreNotFound
from gamwarm.storage import (
    PROBE_PREFIX,
    Coherence,
    DirectoryProbe,
    Safety,
    choose_lock,
    meet_peer,
    probe,
    remember,
    status_of,
    try_two,
    typed,
)
from gamwarm.version import __version__

__all__ = ["doctor"]

MPI_PATIENCE: Final = 60.0
LITTLE_SPACE: Final = 1_000_000_000
_LAUNCHERS: Final = (
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ()),
    ("PMI_RANK", "PMI_SIZE", ()),
)
"""How launchers tell a task its number, how many there are, and which job it is."""
_ASK_MPI: Final = "from mpi4py import MPI; print(MPI.Get_library_version().strip(chr(0) + chr(10)).splitlines()[0])"


@command("doctor", "test a directory before a long job")
def doctor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="the directory of the file", show_default=False)],
    other: Annotated[
        Path | None,
        typer.Option("--with", metavar="PATH", help="another mount of DIR to test with", show_default=False),
    ] = None,
    peer: Annotated[
        int | None,
        typer.Option(
            "--peer",
            metavar="NUMBER",
            min=0,
            max=1,
            help="test together with another host: 0 on one, 1 on the other, at the same time; automatic for ranks "
            "0 and 1 under srun -N2 or mpiexec",
            show_default=False,
        ),
    ] = None,
    mpi: Annotated[bool, typer.Option("--mpi/--no-mpi", help="start MPI once, to see which it is")] = True,
    as_json: Json = False,
) -> Exit:
    """Try a directory: which lock works there, whether a store can be written, and what is not
    safe.

    With two clients of the directory (--with, --peer, or as a job of two tasks) it also says
    whether several hosts may write one file there. If they may not, or only with the soft lock, a
    note stays in the directory, which stores keep to: .gamwarm-doctor.json.

    Also reports the versions of Python, h5py, HDF5 and MPI. Test files are removed. Exit code 0:
    all is well; 1: something is not safe, or will not work.
    """
    place = _directory_of(directory)
    worries: list[str] = []
    job = _task_of_job() if peer is None and other is None else None
    if other is not None and peer is not None:
        raise InvalidInput("--with and --peer exclude each other: give a second mount or a second host")
    if job is not None and job[0] > 1:
        show(Text(f"task {job[0]}: tasks 0 and 1 test the directory"))
        return Exit.OK
    side, word = job if job is not None else (peer, "peer")
    coherence = _take_turns(place, other, side, word)
    found: dict[str, Any] = {"directory": str(place), **_of_the_place(place, coherence, worries)}
    # An MPI that is started by a task of an MPI job disturbs the job.
    environment = _of_the_environment(worries, mpi=mpi and job is None)
    if as_json:
        write_json({**found, "environment": environment, "worries": worries, "ok": not worries})
        return Exit.NO if worries else Exit.OK
    show(Text(str(place), style="bold"), facts(_place_rows(found)), "", Text("environment", style="bold"))
    show(facts((name, str(value or "-")) for name, value in environment.items()), "")
    if worries:
        show(*(Text(f"! {worry}", style="yellow") for worry in worries))
    else:
        show(Text("no problems found", style="green"))
    return Exit.NO if worries else Exit.OK


def _is_directory(path: Path) -> bool:
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _directory_of(path: Path) -> Path:
    """Return the directory meant by a path: its own, or that of a file, which may be missing.

    A missing path without a suffix is a directory to be made, not a file: its parent may be of
    another file system.
    """
    status = status_of(path)
    place = path if status is not None and stat.S_ISDIR(status.st_mode) else path.parent
    if (status is None and not path.suffix) or not _is_directory(place):
        raise StoreNotFound(f"{path}: no such directory; create it first")
    return place


def _take_turns(place: Path, other: Path | None, side: int | None, word: str) -> Coherence | None:
    if other is not None:
        other = _directory_of(other)
        if _is_same_mount(place, other):
            raise InvalidInput(
                f"{other}: the same mount as {place}, or a bind mount of it: both share one cache, so a test would "
                "say nothing about a second client"
            )
        coherence = try_two(place, other)
    elif side is not None:
        coherence = meet_peer(place, side, word)
    else:
        return None
    remember(place, coherence)
    return coherence


def _is_same_mount(one: Path, other: Path) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def _task_of_job() -> tuple[int, str] | None:
    """Return this task's number and a name of its job, if a launcher has started several."""
    for rank, size, job in _LAUNCHERS:
        numbers = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 1:
            return int(numbers[0]), "-".join(["job", *(os.environ.get(name, "") for name in job)])
    return None


def _of_the_place(place: Path, coherence: Coherence | None, worries: list[str]) -> dict[str, Any]:
    with typed(place, "ask for its free space"):
        free = shutil.disk_usage(place).free
    found: dict[str, Any] = {"free_bytes": free, "writable": os.access(place, os.W_OK | os.X_OK)}
    if free < LITTLE_SPACE:
        worries.append(
            f"only {human_bytes(free)} are free; a full disk switches a store off for the run (fits continue cold)"
        )
    if not found["writable"]:
        worries.append("this account may not write here: stores can be read, but fits cannot be stored")
        return found
    try:
        tried = probe(place, child=True)
    except StoreError as error:
        worries.append(str(error))
        return found
    found |= {
        "file_system": tried.file_system or "unknown",
        "shared": tried.shared,
        "flock": tried.flock,
        "hard_links": tried.hard_links,
        "rename": tried.rename,
        "fsync": tried.fsync,
        "several_writers": None if coherence is None else str(coherence.safety),
        "lock": _lock(place, worries),
    }
    worries += _worries_about(tried, coherence)
    found["trial_seconds"] = _trial(place, worries)
    return found


def _lock(place: Path, worries: list[str]) -> str | None:
    try:
        return choose_lock(place / f"{PROBE_PREFIX}lock.h5", "auto", 0.0).kind
    except StoreError as error:
        worries.append(str(error))
        return None


def _worries_about(tried: DirectoryProbe, coherence: Coherence | None) -> Iterator[str]:
    if coherence is None:
        coherence = tried.coherence
        if tried.shared:
            yield (
                "other hosts may see this directory, and it was tested from this one alone: it is not known whether "
                "flock excludes them and whether they see what is written here. Test it with two hosts: `srun -N2 "
                "gamwarm "
                "doctor DIR`, `gamwarm doctor DIR --peer 0` here and `--peer 1` there, or `--with` another mount"
            )
    if coherence is not None and coherence.safety is Safety.ONE_WRITER:
        yield (
            f"{coherence.safety}: {_broken(coherence)}. Give each host a file of its own and `gamwarm merge` them, or "
            "let one rank write (comm=); a store here refuses writes from two hosts"
        )
    elif coherence is not None and not coherence.flock:
        yield (
            "flock does not exclude the other side; stores here use the soft lock. For a file FILE written earlier, "
            "remove FILE.lock first, when no process on any host uses it"
        )
    if not tried.rename:
        yield "renaming does not replace a file here: `gamwarm compact` will fail"
    if tried.fsync is False:
        yield "files or directories cannot be synced here: acknowledged entries may be lost in a power failure"
    if tried.file_system in ("tmpfs", "ramfs"):
        yield f"{tried.file_system} is in memory: files here are lost when the machine restarts"


def _broken(coherence: Coherence) -> str:
    if not (coherence.flock or coherence.links):
        return "neither flock nor a hard link excludes the other side"
    if coherence.lost:
        return f"{coherence.lost} records that one side had synced were overwritten by the other"
    return "a file opened under the lock does not show what the other side has synced"


def _trial(place: Path, worries: list[str]) -> float | None:
    """Make a store, open it again, remove it; return the seconds that took."""
    path = place / f"{PROBE_PREFIX}{secrets.token_hex(8)}.h5"
    started = time.monotonic()
    try:
        for _ in range(2):
            entries = EntryStore(path, lock_timeout=10.0)
            with entries.transaction():
                pass
            entries.close()
    except StoreError as error:
        worries.append(f"a test store did not work: {error}")
        return None
    finally:
        for leftover in (path, path.with_name(path.name + ".lock"), path.with_name(path.name + "-journal")):
            with suppress(OSError):
                leftover.unlink()
    return time.monotonic() - started


def _place_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "free", human_bytes(found["free_bytes"])
    yield "writable", _yes(found["writable"])
    if "file_system" not in found:
        return
    where = "other nodes may see it" if found["shared"] else "of this machine alone"
    yield "file system", f"{found['file_system']}, {where}"
    yield "lock", {"flock": "flock", "soft": "soft (hard-linked claims)", None: "none works"}[found["lock"]]
    yield "flock excludes", _yes(found["flock"])
    yield "hard links", _yes(found["hard_links"])
    yield "rename replaces", _yes(found["rename"])
    yield "sync works", _yes(found["fsync"])
    yield "several writers", found["several_writers"] or "not tested with two hosts"
    if found["trial_seconds"] is not None:
        yield "trial", f"a store was written, opened again and removed in {found['trial_seconds'] * 1000:.0f} ms"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "NO", None: "not tested"}[value]


def _of_the_environment(worries: list[str], *, mpi: bool) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "gamwarm": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        "h5py": h5py.version.version,
        "HDF5": h5py.version.hdf5_version,
        "NumPy": _version("numpy"),
        "filelock": _version("filelock"),
        "mpi4py": _version("mpi4py"),
        "mpiexec": os.environ.get("GAMWARM_MPIEXEC") or shutil.which("mpiexec") or shutil.which("srun"),
    }
    if found["mpi4py"] is not None and mpi:
        found["MPI"] = _mpi_library(worries)
    for variable in ("HDF5_USE_FILE_LOCKING", "SLURM_JOB_ID", "SLURM_JOB_END_TIME", "PBS_JOBID", "PBS_WALLTIME"):
        if variable in os.environ:
            found[variable] = os.environ[variable]
    return found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _mpi_library(worries: list[str]) -> str | None:
    """Ask MPI what it is, in a child: one that cannot start must not take this process with it."""
    try:
        said = subprocess.run(
            [sys.executable, "-c", _ASK_MPI],
            capture_output=True,
            text=True,
            timeout=MPI_PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        worries.append(f"MPI did not start: {error}")
        return None
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["no reason given"])[-1]
        worries.append(f"mpi4py is installed, but MPI does not start ({last}); serial stores work")
        return None
    return said.stdout.strip()
