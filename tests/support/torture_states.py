"""Crash states of whole entries: a recorded life of a store, and what a run that opens any image of
it must find.

The images are those of `tests.support.crash_simulator`; here they are looked at through
`EntryStore`, entry by entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from gamwarm import maintenance
from gamwarm.entries import EntryStore
from gamwarm.storage import header as _header
from tests.support import crash_simulator as kit
from tests.support.torture_model import STORE_PRODUCER, Model, Seen, random_artifact, random_record, see

__all__ = ["Life", "check_image", "check_plain", "crash_points", "crash_round", "power_round", "record_life"]

TEARS = (0.02, 0.3, 0.5, 0.97)


@dataclass
class Life:
    """A recorded life of a store; `states[i]` is what it shows after i transactions, `plain[i]` a
    digest of it all.
    """

    recorder: kit.Recorder
    path: Path
    states: list[Seen] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)


def open_store(path: Path, mode: str = "a") -> EntryStore:
    return EntryStore(path, mode=mode, producer=STORE_PRODUCER, lock_timeout=5.0)  # type: ignore[arg-type]


def plain_digest(h5: h5py.File) -> str:
    """Digest everything in the file that any HDF5 program can see."""
    digest = hashlib.sha256()

    def visit(name: str, thing: h5py.HLObject) -> None:
        digest.update(f"\n{name}:".encode())
        for label in sorted(thing.attrs):
            digest.update(label.encode() + np.asarray(thing.attrs[label]).tobytes())
        if isinstance(thing, h5py.Dataset):
            digest.update(np.asarray(thing[()]).tobytes())

    visit("/", h5)
    h5.visititems(visit)
    return digest.hexdigest()


def _step(store: EntryStore, model: Model, rng: random.Random, salt: int) -> None:
    """One put, and the same in the model."""
    big = rng.random() < 0.08
    if rng.random() < 0.6:
        record = random_record(rng, salt=salt, big=big)
        outcome, expected = store.put_record(record), model.put_record(record)
    else:
        artifact = random_artifact(rng, salt=salt, big=big)
        outcome, expected = store.put_artifact(artifact), model.put_artifact(artifact)
    assert (outcome.written or outcome.pending) == (expected in ("new", "same")), (expected, outcome)


def _look_after(store: EntryStore, model: Model, *, evict: bool) -> None:
    """Evict the oldest third, or write the file anew."""
    if not evict:
        maintenance.compact(store)
        return
    live = maintenance.evict(store, dry_run=True).bytes_before
    report = maintenance.evict(store, size_budget=live * 2 // 3)
    assert report.evicted
    model.forget(report.entry_ids)


def record_life(
    directory: Path, *, seed: int = 0, transactions: int = 5, forget_syncs_of: tuple[str, ...] = ()
) -> Life:
    """Puts, transactions, a rollback, a checkpoint, an eviction, close, open, and again with a
    compact.
    """
    kit.fresh(directory)
    recorder = kit.Recorder(forget_syncs_of)
    life = Life(recorder, directory / kit.NAME)
    rng = random.Random(seed)
    model = Model()

    def remember(store: EntryStore) -> None:
        shown, expected = see(store), model.seen()
        assert shown == expected, "the store and the model differ before any crash"
        life.states.append(shown)
        life.plain.append(store.container.read(plain_digest))

    with kit.disk(recorder):
        with contextlib.closing(open_store(life.path)) as store:
            for salt in range(5):
                with store.transaction():
                    _step(store, model, rng, salt)
        recorder.begin(directory)
        salt = 100
        for session in range(2):
            with contextlib.closing(open_store(life.path)) as store:
                if not life.states:
                    remember(store)
                for turn in range(transactions):
                    before = store.generation
                    with store.transaction():
                        for _ in range(1 if turn % 2 == 0 else rng.randrange(2, 5)):
                            salt += 1
                            _step(store, model, rng, salt)
                    if store.generation != before:
                        recorder.mark("ack")
                        remember(store)
                    if turn == 1 + session:
                        with contextlib.suppress(ZeroDivisionError), store.transaction():
                            store.put_record(random_record(rng, salt=9000 + session))
                            store.put_artifact(random_artifact(rng, salt=9000 + session))
                            raise ZeroDivisionError
                        store.container._writer.pair.checkpoint()
                    if turn == 2 - session:
                        _look_after(store, model, evict=session == 0)
                        recorder.mark("ack")
                        remember(store)
    acked = 0
    life.acked = [0]
    for op in recorder.log:
        acked += op.kind == "mark"
        life.acked.append(acked)
    return life


def crash_points(log: list[kit.Op], *, thorough: bool = False) -> Iterator[tuple[int, float | None]]:
    """Every call, and every write torn: (number of calls done, part of the last one that is)."""
    for count in range(len(log) + 1):
        yield count, None
        op = log[count - 1] if count else None
        if op is None or op.kind != "write":
            continue
        if len(op.data) == _header.HEADER_BYTES and op.offset == 0:
            cuts = range(1, _header.HEADER_BYTES) if thorough else (1, 13, 14, 45, 61)
            yield from ((count, cut / _header.HEADER_BYTES) for cut in cuts)
        else:
            yield from ((count, torn) for torn in TEARS if round(len(op.data) * torn) < len(op.data))


def check_image(path: Path, life: Life, acked: int, *, mode: str, boot_as: bytes | None = None) -> None:
    """Open an image as the next run would: sound, and what was acknowledged (or that and the one in
    flight), whole.
    """
    where = f"mode {mode}, after {acked} acknowledged transactions"
    try:
        with kit.boot(boot_as), contextlib.closing(open_store(path, mode)) as store:
            report = maintenance.verify(store)
            shown = see(store)
            count = len(store)
    except Exception as exc:
        raise kit.Wrong(f"{where}: {type(exc).__name__}: {exc}") from exc
    if not report.ok:
        raise kit.Wrong(f"{where}: verify says {[str(problem) for problem in report.problems]}")
    if shown not in life.states[acked : acked + 2]:
        known = [index for index, state in enumerate(life.states) if state == shown]
        raise kit.Wrong(f"{where}: the store shows state {known or 'of no transaction'}")
    if count != len(shown.ids):
        raise kit.Wrong(f"{where}: len() is {count} of {len(shown.ids)}")


def check_plain(path: Path, life: Life, acked: int) -> bool:
    """Plain h5py on an image that nobody recovered sees a committed state, or refuses. Returns
    whether it opened.
    """
    digest = kit.look_plainly(path, plain_digest)
    if digest is not None and digest not in life.plain[acked : acked + 2]:
        raise kit.Wrong("plain h5py saw a state that was never committed")
    return digest is not None


def check_life_goes_on(path: Path, boot_as: bytes | None = None) -> None:
    """After recovery the store takes a put, and stands alone when closed."""
    record = random_record(random.Random(1), salt=77_000, keys=1)
    with kit.boot(boot_as), contextlib.closing(open_store(path)) as store:
        before = store.entry_ids()
        outcome = store.put_record(record)
        after = store.entry_ids()
    if not outcome.written or outcome.entry_id not in after or len(after) < len(before):
        raise kit.Wrong(f"a put after recovery: {outcome}")
    with contextlib.closing(open_store(path, "r")) as store:
        if store.entry_ids() != after or not maintenance.verify(store).ok:
            raise kit.Wrong("a put after recovery did not survive")
    left = sorted(other.name for other in path.parent.iterdir() if kit.is_ours(other.name))
    if left != [kit.NAME]:
        raise kit.Wrong(f"left after close: {left}")


def recovery_of(files: kit.Files, directory: Path, boot_as: bytes | None = None) -> kit.Recorder:
    """Record what the next run does to an image."""
    try:
        return kit.recovery_of(files, directory, boot_as)
    except Exception as exc:
        raise kit.Wrong(f"recovery: {type(exc).__name__}: {exc}") from exc


def crash_round(
    life: Life, directory: Path, seed: int, *, every: int = 1, recoveries: int = 60, thorough: bool = False
) -> Counter[str]:
    """Kill images of the life, and of the recoveries of some of them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    points = list(crash_points(life.recorder.log, thorough=thorough))
    again = set(rng.sample(range(len(points)), min(recoveries, len(points))))
    with kit.disk(kit.Fast()):
        for index, (count, torn) in enumerate(points):
            if index % every and index not in again:
                continue
            files = kit.kill_image(life.recorder, count, torn)
            path = kit.put_files(directory / "image", files)
            acked = life.acked[count]
            counts["plain h5py opened" if check_plain(path, life, acked) else "plain h5py refused"] += 1
            if index % 3 == 0:
                check_image(path, life, acked, mode="r")
                if kit.read_files(path.parent) != files:
                    raise kit.Wrong("mode 'r' changed a file")
            check_image(path, life, acked, mode="a")
            if index % 11 == 0:
                check_life_goes_on(path)
            counts["kill images"] += 1
            if index in again:
                recovery = recovery_of(files, directory / "first")
                spots = list(crash_points(recovery.log))
                spot = rng.choice(spots)
                path = kit.put_files(directory / "second", kit.kill_image(recovery, *spot))
                check_plain(path, life, acked)
                check_image(path, life, acked, mode="a")
                counts["kill images inside recovery"] += 1
    return counts


def power_round(life: Life, directory: Path, seed: int, images: int) -> Counter[str]:
    """Images of a power loss, and of a second one inside the recovery from it."""
    counts: Counter[str] = Counter()
    with kit.disk(kit.Fast()):
        for case in range(images):
            rng = random.Random(seed * 1_000_003 + case)
            count = rng.randrange(len(life.recorder.log) + 1)
            files = kit.power_image(life.recorder, count, rng, shear_header=case % 2 == 0)
            acked = life.acked[count]
            if case % 4 == 0:
                recovery = recovery_of(files, directory / "first", kit.OTHER_BOOT)
                done = rng.randrange(len(recovery.log) + 1)
                files = kit.power_image(recovery, done, rng)
                counts["power loss inside recovery"] += 1
            path = kit.put_files(directory / "image", files)
            if case % 3 == 0:
                check_image(path, life, acked, mode="r", boot_as=b"3rd boot")
            check_image(path, life, acked, mode="a", boot_as=b"3rd boot")
            if case % 13 == 0:
                check_life_goes_on(path, boot_as=b"3rd boot")
            counts["power loss images"] += 1
    return counts
