"""Record every call that the shipped code makes on its files, and build the states that a crash
could leave.

`Recorder` stands in for `gamwarm.storage.vfs.DISK`: it does the calls on real files and logs them.
`kill_image` is what the page cache holds after the first k calls (the k-th perhaps torn);
`power_image` is what the media could hold: of what was not synced, any subset, sector by sector,
and of the directory, any of its changes since its last sync. The checks open an image with the
shipped code, as a next run would.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import h5py
import numpy as np

from gamwarm.storage import attempts, vfs
from gamwarm.storage import container as container_module
from gamwarm.storage import header as _header
from gamwarm.storage.container import Container

SECTOR = 512
NAME = "fits.h5"
OLD = 12
OTHER_BOOT = b"rebooted"

T = TypeVar("T")
State = dict[str, bytes]
Files = dict[str, bytes]


@dataclass(frozen=True)
class Op:
    kind: str
    ino: int = -1
    offset: int = 0
    data: bytes = b""
    name: str = ""
    target: str = ""


class Fast(vfs.Disk):
    """Does everything but wait for the media: the images are simulated, so real syncs would only
    cost time.
    """

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_dir(self, path: Path) -> None:
        pass


class Recorder(Fast):
    """Logs calls. ``forget_syncs_of`` leaves out the syncs of files whose name ends so: the
    negative controls.
    """

    def __init__(self, forget_syncs_of: tuple[str, ...] = ()) -> None:
        self.log: list[Op] = []
        self._inos: dict[str, int] = {}
        self._fds: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._next = 0
        self._forget = forget_syncs_of
        self.start: dict[str, tuple[int, bytes]] = {}

    def begin(self, directory: Path) -> None:
        self.log.clear()
        self._inos = {}
        for name, content in read_files(directory).items():
            self.start[name] = (self._new(name), content)

    def _new(self, name: str) -> int:
        self._next += 1
        self._inos[name], self._names[self._next] = self._next, name
        return self._next

    def mark(self, label: str) -> None:
        self.log.append(Op("mark", name=label))

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        existed = path.exists()
        fd = super().open(path, flags, mode)
        if not is_ours(path.name):
            return fd
        if not existed:
            self.log.append(Op("create", self._new(path.name), name=path.name))
        elif flags & os.O_TRUNC:
            self.log.append(Op("truncate", self._inos[path.name], 0))
        self._fds[fd] = self._inos[path.name]
        return fd

    def pwrite(self, fd: int, data: Any, offset: int) -> None:
        super().pwrite(fd, data, offset)
        if len(data):
            self.log.append(Op("write", self._fds[fd], offset, bytes(data)))

    def ftruncate(self, fd: int, size: int) -> None:
        super().ftruncate(fd, size)
        self.log.append(Op("truncate", self._fds[fd], size))

    def fallocate(self, fd: int, offset: int, count: int) -> None:
        super().fallocate(fd, offset, count)
        self.log.append(Op("truncate", self._fds[fd], offset + count))

    def fdatasync(self, fd: int) -> None:
        ino = self._fds[fd]
        if not any(self._names[ino].endswith(end) for end in self._forget):
            self.log.append(Op("sync", ino))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        del self._inos[path.name]
        self.log.append(Op("unlink", name=path.name))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        ino = self._inos[target.name] = self._inos.pop(source.name)
        self._names[ino] = target.name
        self.log.append(Op("rename", ino, name=source.name, target=target.name))

    def fsync_dir(self, path: Path) -> None:
        self.log.append(Op("syncdir"))


@contextlib.contextmanager
def disk(new: vfs.Disk) -> Iterator[None]:
    old, vfs.DISK = vfs.DISK, new
    patience, attempts.HALFWAY_ATTEMPTS = attempts.HALFWAY_ATTEMPTS, 1  # type: ignore[misc]
    try:
        yield
    finally:
        vfs.DISK, attempts.HALFWAY_ATTEMPTS = old, patience  # type: ignore[misc]


@contextlib.contextmanager
def shared(on: bool = True) -> Iterator[None]:
    """Open containers as on a file system that other hosts may see."""
    with contextlib.ExitStack() as patches:
        if on:
            patches.enter_context(mock.patch.object(container_module, "may_be_shared", return_value=True))
            patches.enter_context(mock.patch.object(vfs, "CACHE_PATIENCE", 0.02))
        yield


@contextlib.contextmanager
def boot(identity: bytes | None) -> Iterator[None]:
    old = vfs.boot_identity
    if identity is not None:
        vfs.boot_identity = lambda: identity  # type: ignore[assignment]
    try:
        yield
    finally:
        vfs.boot_identity = old


def read_files(directory: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if is_ours(path.name)}


def is_ours(name: str) -> bool:
    return not name.endswith(".lock") and not name.endswith(".filelock")


def put_files(directory: Path, files: Files) -> Path:
    """Make `directory` hold exactly these files (lock files of dead processes stay, as they
    would).
    """
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if is_ours(path.name):
            path.unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory / NAME


# -- images ----------------------------------------------------------------------------------------


def _apply(content: bytearray, op: Op, data: bytes) -> None:
    if op.kind == "truncate":
        if op.offset < len(content):
            del content[op.offset :]
        else:
            content.extend(bytes(op.offset - len(content)))
    else:
        end = op.offset + len(data)
        if end > len(content):
            content.extend(bytes(end - len(content)))
        content[op.offset : end] = data


def kill_image(recorder: Recorder, count: int, torn: float | None = None) -> Files:
    """Files after the first `count` calls; of the last of them, a write, only the first part if
    `torn`.
    """
    names = {name: ino for name, (ino, _) in recorder.start.items()}
    contents = {ino: bytearray(content) for ino, content in recorder.start.values()}
    for index, op in enumerate(recorder.log[:count]):
        if op.kind == "create":
            names[op.name], contents[op.ino] = op.ino, bytearray()
        elif op.kind in ("write", "truncate"):
            last = torn is not None and index == count - 1
            data = op.data[: max(1, round(len(op.data) * torn))] if last and torn is not None else op.data
            _apply(contents[op.ino], op, data)
        else:
            _rename(names, op)
    return {name: bytes(contents[ino]) for name, ino in names.items()}


def power_image(recorder: Recorder, count: int, rng: random.Random, *, shear_header: bool = False) -> Files:
    """One of the states of the media after power was lost behind the first `count` calls.

    With `shear_header` the header's sector, if it was being written, is a mixture byte by byte:
    media whose sectors are not atomic, which the header's CRC (but nothing else) must survive.
    """
    durable_names = {name: ino for name, (ino, _) in recorder.start.items()}
    durable = {ino: bytearray(content) for ino, content in recorder.start.values()}
    pending: dict[int, list[Op]] = {}
    directory: list[Op] = []
    for op in recorder.log[:count]:
        if op.kind == "create":
            durable[op.ino] = bytearray()
            directory.append(op)
        elif op.kind in ("write", "truncate"):
            pending.setdefault(op.ino, []).append(op)
        elif op.kind == "sync":
            for done in pending.pop(op.ino, []):
                _apply(durable[op.ino], done, done.data)
        elif op.kind in ("unlink", "rename"):
            directory.append(op)
        elif op.kind == "syncdir":
            for done in directory:
                _rename(durable_names, done)
            directory.clear()
    share = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
    for ino, ops in pending.items():
        for op in ops:
            _lose(durable[ino], op, rng, share, shear_header)
    for op in directory:
        if rng.random() < 0.5:
            _rename(durable_names, op)
    return {name: bytes(durable[ino]) for name, ino in durable_names.items()}


def _lose(content: bytearray, op: Op, rng: random.Random, share: float, shear_header: bool) -> None:
    if op.kind == "truncate":
        if rng.random() < share:
            _apply(content, op, b"")
        return
    if shear_header and op.offset == 0 and len(op.data) == _header.HEADER_BYTES and len(content) >= len(op.data):
        for index, byte in enumerate(op.data):
            if rng.random() < 0.5:
                content[index] = byte
        return
    start = op.offset
    end = op.offset + len(op.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if rng.random() < share:
            _apply(content, Op("write", offset=start), op.data[start - op.offset : stop - op.offset])
        start = stop


def _rename(names: dict[str, int], op: Op) -> None:
    if op.kind == "create":
        names[op.name] = op.ino
    elif op.kind == "unlink":
        names.pop(op.name, None)
    elif op.kind == "rename":
        names.pop(op.name, None)
        names[op.target] = op.ino


# -- a workload and its model ----------------------------------------------------------------------


def lay_out(h5: h5py.File) -> None:
    h5.create_group("records")


def dump(h5: h5py.File) -> State:
    """Everything in the file, byte for byte."""
    state: State = {}
    records = h5["records"].id
    for name in records:
        group = h5py.h5g.open(records, name)
        values = h5py.h5a.open(group, b"values")
        data = np.empty(values.shape)
        values.read(data)
        state[name.decode()] = data.tobytes()
        if b"big" in group:
            state[name.decode() + "/big"] = h5py.Dataset(h5py.h5d.open(group, b"big"))[()].tobytes()
    return state


def put(h5: h5py.File, name: str, values: np.ndarray, big: int = 0) -> None:
    records = h5["records"]
    if name in records:
        del records[name]
    group = records.create_group(name)
    group.attrs["values"] = values
    if big:
        group.create_dataset("big", data=np.resize(values, big))


@dataclass
class Story:
    """A recorded workload: `states[i]` is the file after i transactions; `acked[k]` of them were
    promised by call k.
    """

    recorder: Recorder
    states: list[State]
    first_generation: int
    acked: list[int] = field(default_factory=list)
    path: Path = Path()

    def finish(self) -> None:
        acked = 0
        self.acked = [0]
        for op in self.recorder.log:
            acked += op.kind == "mark"
            self.acked.append(acked)


def make_base(directory: Path, sequence: int = 252, old: int = OLD) -> Path:
    """A closed file with some records; its sequence is such that the next transactions carry into
    the second byte.
    """
    path = directory / NAME
    rng = np.random.default_rng(1)
    with disk(Fast()):
        container = Container.open(path, create=lay_out)
        with container.write() as h5:
            for index in range(old):
                put(h5, name_of_old(index), rng.normal(size=60))
        container.close()
    data = bytearray(path.read_bytes())
    header = _header.parse(bytes(data), NAME)
    data[: _header.HEADER_BYTES] = _header.Header(sequence, header.uuid, header.boot, 0).pack()
    path.write_bytes(data)
    return path


def name_of_old(index: int) -> str:
    """Of a record of the base; from the hundredth on so long that HDF5 soon has heap blocks of many
    pages.
    """
    return f"old{index:02}".ljust(900 if index >= 100 else 0, "x")


def record_story(
    directory: Path, *, seed: int = 0, commits: int = 5, forget_syncs_of: tuple[str, ...] = (), old: int = OLD
) -> Story:
    """Commits (adds, overwrites, removals, one big), checkpoints, a rollback, close, reopen, more
    of it, close.

    ``old``: records of the file before.
    """
    path = make_base(directory, old=old)
    recorder = Recorder(forget_syncs_of)
    rng = np.random.default_rng(seed)
    story = Story(recorder, [], 0, path=path)
    with disk(recorder):
        recorder.begin(directory)
        for session in range(2):
            container = Container.open(path)
            if not story.states:
                story.states.append(container.read(dump))
                story.first_generation = container.generation
            for step in range(commits):
                with container.write() as h5:
                    put(h5, f"new{session}{step}", rng.normal(size=200))
                    put(h5, name_of_old(int(rng.integers(old))), rng.normal(size=70))
                    if step == 1:
                        put(h5, "large", rng.normal(size=50), big=3000 + 2000 * session)
                    if step == 3:
                        del h5["records"][f"new{session}0"]
                    state = dump(h5)
                recorder.mark("ack")
                story.states.append(state)
                if step == 2:
                    with contextlib.suppress(ZeroDivisionError), container.write() as h5:
                        put(h5, "never", rng.normal(size=100))
                        h5.flush()
                        raise ZeroDivisionError
                    container._writer.pair.checkpoint()
            container.close()
            recorder.mark("closed")
    # "closed" marks are not transactions.
    recorder.log[:] = [op for op in recorder.log if op.name != "closed"]
    story.finish()
    return story


# -- checks ----------------------------------------------------------------------------------------


class Wrong(AssertionError):
    """An image whose reopened state is not one of the two allowed."""


def check_open(path: Path, story: Story, acked: int, *, mode: str, boot_as: bytes | None = None) -> None:
    """Open as the next run would: the state must be that after `acked` transactions, or the one in
    flight.
    """
    try:
        with boot(boot_as), contextlib.closing(Container.open(path, mode=mode, lock_timeout=5.0)) as container:  # type: ignore[arg-type]
            state = container.read(dump)
            generation = container.generation
            allowed = range(acked, min(acked + 2, len(story.states)))
            found = [index for index in allowed if story.states[index] == state]
            if not found:
                known = [index for index, other in enumerate(story.states) if other == state]
                raise Wrong(
                    f"mode {mode}: after {acked} acknowledged transactions the file holds state {known or 'none'}"
                )
            if mode == "a" and generation - story.first_generation not in found:
                raise Wrong(f"mode {mode}: state {found} under generation {generation - story.first_generation}")
    except Wrong:
        raise
    except Exception as exc:
        raise Wrong(f"mode {mode}: after {acked} acknowledged transactions: {type(exc).__name__}: {exc}") from exc


def check_usable(path: Path, boot_as: bytes | None = None) -> None:
    """After recovery the file takes a new transaction and stands alone when closed."""
    with boot(boot_as):
        container = Container.open(path)
        before = container.read(dump)
        values = np.arange(50.0)
        with container.write() as h5:
            put(h5, "afterwards", values)
        container.close()
    expected = {**before, "afterwards": values.tobytes()}
    with h5py.File(path, "r") as plain:
        if dump(plain) != expected:
            raise Wrong("a transaction after recovery did not survive")
    left = sorted(other.name for other in path.parent.iterdir() if is_ours(other.name))
    if left != [NAME]:
        raise Wrong(f"left after close: {left}")


def look_plainly(path: Path, look: Callable[[h5py.File], T]) -> T | None:
    """Return what ``look`` sees through plain h5py on an image that nobody recovered; None if h5py
    refuses it.
    """
    try:
        plain = h5py.File(path, "r", locking=False)
    except OSError:
        return None
    with plain:
        try:
            return look(plain)
        except Exception as exc:
            raise Wrong(f"plain h5py opened a torn file: {exc}") from exc


def check_plain(path: Path, story: Story, acked: int) -> bool:
    """Plain h5py on an image nobody recovered: a committed state, or refused. Returns whether it
    opened.
    """
    state = look_plainly(path, dump)
    if state is not None and state not in story.states[acked : acked + 2]:
        raise Wrong("plain h5py saw a state that was never committed")
    return state is not None


def recovery_of(files: Files, directory: Path, boot_as: bytes | None = None) -> Recorder:
    """Record what the next run does to this image."""
    path = put_files(directory, files)
    recorder = Recorder()
    recorder.begin(directory)
    with disk(recorder), boot(boot_as):
        container = Container.open(path)
        container.close()
    return recorder


def failures(check: Callable[[int], None], cases: range) -> list[str]:
    """Run all cases and collect what went wrong: for the negative controls."""
    wrong = []
    for case in cases:
        try:
            check(case)
        except Wrong as exc:
            wrong.append(str(exc))
    return wrong


def fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
