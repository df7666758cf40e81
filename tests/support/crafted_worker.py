"""Looks at crafted files, many per process: ``python -m tests.support.crafted_worker <folder>
<jobs>``.

Reads the numbers of cases from standard input, one a line, and prints one line of JSON for each.
The parent knows which case a child died or hung on.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import gamwarm
from gamwarm import Curvature, GamwarmError, InnerMode
from gamwarm.archive import export_archive, import_archive, verify_archive
from gamwarm.cli import main
from gamwarm.report import write_report
from tests.support import crafted
from tests.support.stores import artifact_of, carrier_fit, record_of, result_of

__all__ = ["Case", "cases", "fill", "look"]

ENGINE: dict[str, Any] = {"engine": "tests", "engine_version": "1"}
NEW = record_of(77, producer=gamwarm.Producer("tests", "1"))


def fill(folder: Path) -> None:
    """Write a store that has every kind of value, and an archive of it."""
    path = folder / "base.h5"
    with gamwarm.open(path, **ENGINE) as store:
        store.put_record(record_of(1, active_sets=[[0, 4], None], attributes={"job": "4711"}))
        wide = record_of(
            2,
            block_names=["x"],
            block_dims=[9000],
            block_beta=[np.full(9000, 1.5)],
            curvature=Curvature(np.zeros(2), np.eye(2), np.ones(2), np.zeros(2, dtype=bool)),
            inner=InnerMode(-1.0, 0.5, 4, True, np.zeros(1), np.zeros(1)),
        )
        store.put_record(wide)
        fit = carrier_fit(range(12))
        kept = store.keep(fit, result_of(fit), store.start_for(fit))
        store.put_artifact(artifact_of())
        assert kept.artifact.entry_id is not None
        store.pin(kept.artifact.entry_id)
        store.pin(next(iter(sorted(store.entry_ids() - {kept.artifact.entry_id}))))
    export_archive(path, folder / "base-archive.h5", title="crafted", creators="A. B.", license="CC0-1.0")


class Case:
    """One value of a file replaced by something else, under a right seal or not."""

    def __init__(self, base: str, place: crafted.Stored, what: str, put: Callable[[Any, bytes], None], sealed: bool):
        self.base, self.place, self.what, self.put, self.sealed = base, place, what, put, sealed

    def __str__(self) -> str:
        group, name = self.place
        return f"{self.base}: {group}/{name} as {self.what}{', sealed anew' if self.sealed else ''}"


def cases(folder: Path) -> list[Case]:
    """Return all cases, in one order."""
    found = []
    for base in ("base.h5", "base-archive.h5"):
        for place in crafted.stored_values(folder / base):
            entry = "block_records" in place[0] or place[0].count("/") > 1
            if base == "base-archive.h5" and not place[0].startswith("archive"):
                continue
            for what, put in crafted.replacements():
                found.append(Case(base, place, what, put, sealed=False))
                if entry and place[1] not in ("seal", "pinned"):
                    found.append(Case(base, place, what, put, sealed=True))
    return found


def craft(case: Case, folder: Path, path: Path) -> bool:
    """Make the file of a case; False if HDF5 itself does not let it be made."""
    shutil.copy(folder / case.base, path)
    try:
        with h5py.File(path, "r+") as h5:
            crafted.replace(h5, case.place, case.put)
            if case.sealed:
                crafted.reseal(h5[case.place[0]])
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def look(path: Path, whole: dict[str, Any], changed: str, *, thorough: bool = False) -> Iterator[str]:
    """Do to a file what users do; yield what must not be.

    ``whole`` are the records of the sound file by exact key; of ``changed``, a place, other numbers
    may be served under a right seal, if `verify` lists it.
    """
    said: list[str] = []

    def tried(what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except GamwarmError:
            return None
        except Exception as error:
            said.append(f"{what}: bare {type(error).__name__}: {str(error)[:200]}")
            return None

    served: list[str] = []
    problems: Any = None
    for mode in ("r", "a"):
        store = tried(f"open {mode}", lambda: gamwarm.open(path, mode, on_error="raise", **ENGINE))  # noqa: B023
        if store is None:
            continue
        with contextlib.closing(store):
            for key, expected in whole.items():
                found = tried("get_record", lambda: store.get_record(key))  # noqa: B023
                if found is not None and found != expected:
                    served.append(key)
            tried("start_for", lambda: store.start_for(carrier_fit(range(11))))  # noqa: B023
            tried("explain", lambda: store.explain(carrier_fit(range(11))))  # noqa: B023
            tried("frozen", store.frozen)
            for name in ("keys", "entry_ids", "savings", "__len__", "__repr__"):
                tried(name, getattr(store, name))
            tried("generation", lambda: store.generation)  # noqa: B023
            tried("evict, dry", lambda: store.evict(size_budget=10, dry_run=True))  # noqa: B023
            report = tried("verify", store.verify)
            problems = report.problems + report.repaired if report is not None and mode == "r" else problems
            if mode == "r":
                continue
            outcome = tried("put_record", lambda: store.put_record(NEW))  # noqa: B023
            if outcome is not None and outcome.written and store.get_record(NEW.key) != NEW:
                said.append("a put is acknowledged and not there")
            tried("keep", lambda: store.keep(fit := carrier_fit(range(11)), result_of(fit)))  # noqa: B023
            for key in whole:
                tried("put of what is there", lambda: store.put_record(record_of(int(key[3:], 16), 3.0)))  # noqa: B023
            for entry_id in sorted(tried("entry_ids", store.entry_ids) or ())[:1]:
                tried("pin", lambda: store.pin(entry_id))  # noqa: B023
            tried("evict", lambda: store.evict(size_budget=60_000))  # noqa: B023
            tried("compact", store.compact)
            tried("verify after all", store.verify)
    if served and not problems and problems is not None:
        said.append(f"other numbers are served of {served}, and verify finds nothing")
    if [key for key in served if key not in changed]:
        said.append(f"other numbers are served of {served}, {changed} was changed")
    yield from said
    said.clear()
    beside = path.with_name("beside")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    with contextlib.closing(gamwarm.open(beside / "into.h5", on_error="raise")) as store:
        tried("merge", lambda: store.merge(path))
        if not store.put_record(NEW).written:
            said.append("a put after the merge is not written")
    tried("export", lambda: export_archive(path, beside / "out.h5", title="x", creators="A. B.", license="CC0-1.0"))
    tried("report", lambda: write_report(path, beside / "out.html"))
    tried("verify_archive", lambda: verify_archive(path))
    tried("import_archive", lambda: import_archive(path, beside / "imported.h5"))
    commands = (
        [["ls"], ["ls", "--json"], ["verify"], ["stats"], ["lineage"]] if thorough else [["ls", "--full"], ["stats"]]
    )
    commands += [["show", key] for key in list(whole)[:2]] if thorough else []
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([command[0], str(path), *command[1:]])
        if code == 70 or "Traceback" in err.getvalue():
            said.append(f"gamwarm {' '.join(command)}: exit code {code}: {err.getvalue()[-200:]}")
    if thorough:
        tried("salvage", lambda: gamwarm.salvage(path, beside / "saved.h5", 20.0))
    yield from said


def run(folder: Path, scratch: Path) -> None:
    """Serve a parent."""
    logging.disable(logging.CRITICAL)
    every = cases(folder)
    with contextlib.closing(gamwarm.open(folder / "base.h5", "r")) as store:
        whole = {key: store.get_record(key) for key in sorted(store.keys())}
    scratch.mkdir()
    for line in sys.stdin:
        number, thorough = json.loads(line)
        case, path = every[number], scratch / "crafted.h5"
        for old in scratch.glob("crafted.h5*"):
            old.unlink()
        wrong = None
        if craft(case, folder, path):
            wrong = list(look(path, whole, "/".join(case.place), thorough=thorough))
        print(json.dumps([number, wrong]), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
