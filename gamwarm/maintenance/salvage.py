"""Recover the intact entries of a damaged file into a new one, reading it in a child process that
may hang or crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from gamwarm.entries import Batch, DamagedEntry, Encoded, EntryStore, Problem, check_content, decode, seal_of, texts
from gamwarm.errors import NotAStore, StoreError
from gamwarm.interrupts import PATIENCE, deliver
from gamwarm.maintenance.merging import KEEP_ALL, import_batches
from gamwarm.maintenance.reports import SalvageReport
from gamwarm.storage import missing, status_of, typed

__all__ = ["salvage_file"]

MOST_CHILDREN: Final = 200
"""Each crash or hang costs one; entries that are then not reached are listed."""
START_PATIENCE: Final = 60.0
"""Seconds for a child to start; a busy machine takes some to import HDF5."""

Frame = tuple[dict[str, Any], bytes]


def salvage_file(path: Path, target: Path, time_limit: float) -> SalvageReport:
    """Copy every entry of the file at ``path`` that its digests confirm into a new file at
    ``target``.
    """
    status = status_of(path)
    if status is None:
        raise missing(path)
    if not stat.S_ISREG(status.st_mode):
        raise NotAStore(f"{path}: not a regular file; give the path of a gamwarm file", path=str(path))
    if os.path.lexists(target):
        raise StoreError(
            f"{target}: exists already; salvage only creates new files. Give another path.", path=str(target)
        )
    walk = _ChildReader(Path(os.path.realpath(path)), time_limit)
    entries = EntryStore(target)
    try:
        merged = import_batches(entries, walk.batches(), KEEP_ALL)
    finally:
        entries.close()
    return SalvageReport(merged.added, merged.problems, str(target))


class _ChildReader:
    def __init__(self, path: Path, time_limit: float) -> None:
        self._path = path
        self._time_limit = time_limit
        self._skip: set[str] = set()
        self._listed: set[str] = set()

    def batches(self) -> Iterator[Batch]:
        """Yield what children read; the next child skips a place where one hangs or crashes."""
        for _ in range(MOST_CHILDREN):
            place, reason, known = "/", "", len(self._skip)
            for frame, payload in self._frames():
                if "done" in frame:
                    return
                if "at" in frame:
                    place = frame["at"]
                elif "bad" in frame:
                    yield from self._problem(frame["bad"], frame["reason"])
                elif "entry" in frame:
                    self._skip.add(place)
                    yield self._entry(frame, payload)
                elif "end" in frame:
                    reason = frame["end"]
            if place not in self._skip:
                self._skip.add(place)
                yield from self._problem(place.rstrip("/") or "/", f"reading it {reason}")
            elif len(self._skip) == known:
                break
        yield from self._problem("/", "stopped: entries after those listed here were not reached")

    def _problem(self, place: str, reason: str) -> Iterator[Batch]:
        if place not in self._listed:
            self._listed.add(place)
            yield Batch("", "", [], damaged=[Problem(place, reason)])

    @staticmethod
    def _entry(frame: dict[str, Any], payload: bytes) -> Batch:
        section, key, place = frame["section"], frame["key"], frame["entry"]
        try:
            pieces, start = {}, 0
            for name, dtype, count in frame["parts"]:
                pieces[name] = (dtype, payload[start : start + count])
                start += count
            _, text = pieces.pop("")
            arrays: dict[str, Any] = {
                name: np.frombuffer(data, dtype=dtype).copy() for name, (dtype, data) in pieces.items()
            }
            if seal_of(section, key, text, arrays) != frame["seal"]:
                raise DamagedEntry("the reading process sent inconsistent data")
            entry = Encoded(section, key, texts.parse_text(section, text), arrays)
            check_content(entry)
            decode(entry)
        except (DamagedEntry, ValueError, TypeError, KeyError) as error:
            return Batch(section, key, [], damaged=[Problem(place, str(error))])
        return Batch(section, key, [entry])

    def _frames(self) -> Iterator[Frame]:
        """Yield the frames of one child; a last one with ``end`` says how it failed."""
        command = [sys.executable, "-m", "gamwarm.maintenance.salvage_worker", str(self._path)]
        frames: queue.Queue[Frame | None] = queue.Queue(maxsize=64)
        with typed(self._path, "start the process that reads it"):
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )
        assert child.stdin is not None
        assert child.stdout is not None
        reader = threading.Thread(target=_read_frames, args=(child.stdout, frames), daemon=True)
        reader.start()
        try:
            with contextlib.suppress(OSError):
                child.stdin.write(json.dumps(sorted(self._skip)).encode())
                child.stdin.close()
            patience = max(self._time_limit, START_PATIENCE)
            while True:
                try:
                    frame = _next(frames, patience)
                except queue.Empty:
                    yield {"end": f"made no progress for {self._time_limit:g} s"}, b""
                    return
                if frame is None:
                    yield {"end": f"ended the process that read it (status {child.wait()})"}, b""
                    return
                patience = self._time_limit
                yield frame
        finally:
            child.kill()
            child.wait()
            while reader.is_alive():
                with contextlib.suppress(queue.Empty):
                    frames.get(timeout=0.05)
            child.stdout.close()


def _next(frames: queue.Queue[Frame | None], patience: float) -> Frame | None:
    deadline = time.monotonic() + patience
    while True:
        deliver()
        left = deadline - time.monotonic()
        try:
            return frames.get(timeout=max(0.0, min(left, PATIENCE)))
        except queue.Empty:
            if left <= PATIENCE:
                raise


def _read_frames(stream: IO[bytes], frames: queue.Queue[Frame | None]) -> None:
    try:
        while line := stream.readline():
            frame = json.loads(line)
            payload = stream.read(frame["bytes"])
            if len(payload) < frame["bytes"]:
                break
            frames.put((frame, payload))
    except (ValueError, OSError):
        pass
    frames.put(None)
