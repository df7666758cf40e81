"""Entries behind transactions: put, look up, verify. Nothing about starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from weakref import WeakSet

import h5py

from gamwarm.checks import file_path
from gamwarm.encoding import (
    ARTIFACTS,
    KINDS,
    RECORDS,
    DamagedEntry,
    Encoded,
    Refused,
    Retain,
    decode,
    encode,
    private_copy,
    stamped_at,
)
from gamwarm.entries import clock
from gamwarm.entries.decoded_cache import DecodedCache
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.eviction import evict_entries
from gamwarm.entries.hdf5_errors import Hdf5Errors
from gamwarm.entries.index import Candidate, CandidateSource, Wanted, candidates
from gamwarm.entries.layout import Irreplaceable, check_file, create_file
from gamwarm.entries.outcome import Pending, PutOutcome, rolled_back
from gamwarm.entries.stored import ParentSnapshot, StoredArtifact, StoredRecord, record_meant
from gamwarm.errors import GamwarmError, StoreUnavailable
from gamwarm.identity import check_exact_key
from gamwarm.interrupts import critical
from gamwarm.records import (
    BlockRecord,
    FitArtifact,
    Producer,
    check_entry_id,
)
from gamwarm.storage import Container, ForkSafeLock, LockChoice, RetryRead

__all__ = [
    "EntryStore",
    "StoredArtifact",
    "StoredRecord",
]

log = logging.getLogger("gamwarm")
T = TypeVar("T")
_Whole = tuple[Encoded, Any]
_Damaged = tuple[str, str]  # no exceptions: their frames would keep handles of the file
_DECODED_OVERHEAD = 4096  # bytes of Python objects in a decoded record, about
MANY_ENTRIES: Final = 100
SLACK: Final = 16
"""In a file of many entries an automatic eviction goes this share below the budget."""
UNCHANGED = "unchanged: the file already holds this entry"


@dataclass
class _Transaction:
    """The open one: its view of the file, its puts' outcomes, what ended one halfway."""

    view: EntryEditor
    pending: Pending
    half_done: str = ""


class _Together(NamedTuple):
    """What the reads of one `read_together` share: a view, and the damage that they met."""

    view: EntryEditor
    damaged: list[tuple[str, list[_Damaged]]]


class _KnownParent(NamedTuple):
    """A decoded artifact. It is what the file holds if that seal is at that path."""

    path: str
    seal: bytes
    stored: StoredArtifact


class EntryStore:
    """Records and artifacts in one file. Every method is local; threads take turns.

    Parameters
    ----------
    path, mode, lock
        As in `gamwarm.open`.
    producer : Producer
        Stamps entries that come without one.
    keep_last : int
        Finals that an exact key keeps.
    size_budget : int, optional
        Live bytes beyond which a commit evicts the oldest entries.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["r", "a"] = "a",
        lock: LockChoice = "auto",
        lock_timeout: float = 60.0,
        producer: Producer | None = None,
        keep_last: int = 1,
        size_budget: int | None = None,
    ) -> None:
        self._producer = producer or Producer()
        self._mode = mode
        self.keep_last = keep_last
        self._size_budget = size_budget
        self.held: WeakSet[ParentSnapshot] = WeakSet()
        self._open: _Transaction | None = None
        self._together: _Together | None = None
        self._seen: tuple[h5py.File, EntryEditor] | None = None
        self._written: tuple[h5py.File, EntryEditor] | None = None
        self._parents: DecodedCache[str, _KnownParent] = DecodedCache()
        self._warned: set[str] = set()
        # Held for the full transaction: other threads neither join it nor see pending entries.
        self.call_lock = ForkSafeLock(self._forget_transaction)
        self._path = file_path(path)
        self._translated = Hdf5Errors(self._path)
        self._lock_options: dict[str, Any] = {"lock": lock, "lock_timeout": lock_timeout}
        self.container = self._open_container(self._path)

    def _open_container(self, path: Path) -> Container:
        return Container.open(path, mode=self._mode, create=create_file, check=self._check, **self._lock_options)

    def open_again(self) -> None:
        """Reopen the file for writing in a forked child."""
        self.container = self._open_container(self.container.path)
        self._seen = self._written = None

    def _forget_transaction(self) -> None:
        self._open = self._together = None

    def _check(self, h5: h5py.File) -> None:
        # Not the store's own, which remembers: while a writer is at work the read repeats.
        with Hdf5Errors(self._path):
            check_file(h5, self._path, writing=self._mode == "a")

    # -- transactions ------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of this object is open."""
        return self._open is not None

    @contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[None]:
        """Make the puts inside one atomic write; an inner one of the same thread joins it.

        ``patience``: seconds to wait for other writers, where it is not the file's own
        ``lock_timeout``.
        """
        with self.call_lock:
            if self._open is not None:
                self.container.check_opened_here()  # nobody would commit what a forked child puts
                yield
                return
            self._translated.check_writable()
            committing, written, reason = False, False, ""
            pending = Pending()
            try:
                with self.container.write(patience) as h5:
                    with self._translated:
                        view = self._writing_view(h5)
                        index = view.index
                        live_bytes = 0 if self._size_budget is None else view.total("live_bytes")
                    self._open = _Transaction(view, pending)
                    try:
                        yield
                        self._check_complete()
                        with self._translated:
                            self._stay_within_budget(view, live_bytes)
                            view.write_totals()
                    finally:
                        self._open = None
                        index.warn_of_unreadable()
                    committing = True
                written, reason = True, ""
            except BaseException as error:
                reason = str(error) if committing and isinstance(error, GamwarmError) else rolled_back(error)
                raise
            finally:
                pending.settle(written=written, reason=reason)

    def _writing_view(self, h5: h5py.File) -> EntryEditor:
        """One view per handle, as for reading: handles last until another process commits."""
        written = self._written
        if written is None or written[0] is not h5:
            written = self._written = (h5, EntryEditor(h5, keeps_totals=True))
        return written[1]

    @contextmanager
    def editing(self) -> Iterator[EntryEditor]:
        """Begin a transaction, or join the open one, and yield the editor of the file."""
        with self.transaction(), self._translated:
            assert self._open is not None
            try:
                yield self._open.view
            except Exception as error:
                self._note_half_done(error)
                raise

    @critical
    def rewrite(self, fill: Callable[[h5py.File, h5py.File], T]) -> tuple[T, int, int]:
        """Replace the file by what ``fill(old, new)`` copies; see `Container.rewrite`."""
        with self.call_lock, self._translated:
            return self.container.rewrite(fill)

    def flush(self) -> int:
        """Return 0: puts go to the file at once here; see `BufferedEntries.flush`."""
        return 0

    def protected_ids(self) -> set[str]:
        """Return what this process must not evict: its campaigns' parents, its open puts."""
        held = {entry_id for parents in self.held for entry_id in parents.ids}
        return held if self._open is None else held | self._open.pending.ids()

    @critical
    def pin(self, entry_id: str, *, pinned: bool = True) -> bool:
        """Keep an entry from eviction (or no longer); return whether it is there."""
        check_entry_id(entry_id)
        with self.editing() as editor:
            section = editor.section_of(entry_id)
            for each in KINDS:
                ids = editor.pins(each)
                editor.set_pins(each, ids | {entry_id} if pinned and each == section else ids - {entry_id})
        return section is not None

    def _stay_within_budget(self, view: EntryEditor, live_bytes_before: int) -> None:
        budget = self._size_budget
        if budget is None:
            return
        with self._translated:
            if not budget < view.total("live_bytes") > live_bytes_before:
                return
            if view.total("n_entries") > MANY_ENTRIES:
                budget -= budget // SLACK  # so that a commit does not have to scan all entries
            report = evict_entries(view, size_budget=budget, before=None, protected=self.protected_ids())
        log.info(
            "%s: %d oldest entries evicted, %d live bytes left", self._path, len(report.evicted), report.bytes_after
        )

    def unchanged(self, entry_id: str) -> PutOutcome:
        """Return the outcome of putting what the file holds, as pending as the first put."""
        return self._write(lambda _: self._again(entry_id))

    def _again(self, entry_id: str) -> PutOutcome:
        pending = self._open is not None and entry_id in self._open.pending.ids()
        return PutOutcome(written=not pending, pending=pending, reason=UNCHANGED, entry_id=entry_id)

    @critical
    def _write(self, change: Callable[[EntryEditor], PutOutcome]) -> PutOutcome:
        with self.call_lock:
            if self._open is None:
                with self.transaction():
                    return self._write(change)
            self._check_complete()
            with self._translated:
                try:
                    outcome = change(self._open.view)
                except Irreplaceable as error:
                    log.warning("%s: %s", self.container.path, error)
                    return PutOutcome(reason=str(error))
                except Exception as error:
                    self._note_half_done(error)
                    raise
            self._open.pending.add(outcome)
            return outcome

    def _note_half_done(self, error: Exception) -> None:
        if self._open is not None and not isinstance(error, GamwarmError):
            self._open.half_done = f"{type(error).__name__}: {error}".removesuffix(": ")

    def _check_complete(self) -> None:
        """Refuse to continue a transaction in which a change ended halfway and was caught."""
        self._translated.check_writable()
        if self._open is not None and self._open.half_done:
            raise StoreUnavailable(
                f"{self._path}: a change in this transaction ended halfway ({self._open.half_done}), so none of it is "
                "written; begin another one",
                path=str(self._path),
            )

    # -- putting -----------------------------------------------------------------------------------

    def put_record(self, record: BlockRecord) -> PutOutcome:
        """File a record if the gates let it pass; pending until the transaction around it ends."""
        return self.put(record)

    def put_artifact(self, artifact: FitArtifact) -> PutOutcome:
        """File an artifact; pending until the transaction around it ends."""
        return self.put(artifact)

    def put(self, entry: Any) -> PutOutcome:
        """File an entry of any kind."""
        return self.put_encoded(encode(entry, self._producer))

    def put_encoded(self, entry: Encoded | Refused) -> PutOutcome:
        """File what `encode` gave, here or on another rank, or say why not; its time is now."""
        if isinstance(entry, Refused):
            log.debug("entry of %s not written: %s", entry.key, entry.reason)
            return PutOutcome(reason=entry.reason)
        retain = KINDS[entry.section].retain
        if retain is None:
            return self._write(lambda view: self._file_child(view, entry))
        return self._write(lambda view: self._file_competing(view, entry, retain))

    def _file_competing(self, view: EntryEditor, new: Encoded, retain: Retain) -> PutOutcome:
        paths = view.entry_paths(new.section, new.key)
        whole, damaged = self._decoded(view, new.section, paths)
        self._warn_damaged(new.section, damaged)
        entries = {encoded.entry_id: encoded for encoded, _ in whole}
        if new.entry_id in entries:
            return self._again(new.entry_id)
        new = stamped_at(new, view.next_created(clock.now()))
        if not paths:
            view.write_key(new.section, new.key, [new], replaced=())
            return PutOutcome(pending=True, entry_id=new.entry_id)
        replaced = None if damaged else list(entries.values())
        entries[new.entry_id] = new
        kept = [said.entry_id for said in retain([each.summary() for each in entries.values()], self.keep_last)]
        if new.entry_id not in kept:
            return PutOutcome(reason="a better checkpoint of this fit is stored", entry_id=new.entry_id)
        view.write_key(new.section, new.key, [entries[entry_id] for entry_id in kept], replaced=replaced)
        return PutOutcome(pending=True, entry_id=new.entry_id)

    def _file_child(self, view: EntryEditor, new: Encoded) -> PutOutcome:
        section, path = new.section, f"{new.key}/{new.entry_id}"
        stamped = stamped_at(new, view.next_created(clock.now()))
        if not view.write_new_child(stamped):
            try:
                view.read(section, path)
            except DamagedEntry as error:
                self._warn_damaged(section, [(path, str(error))])
            else:
                return self._again(new.entry_id)
            view.write_child(stamped)
        return PutOutcome(pending=True, entry_id=new.entry_id)

    # -- looking up --------------------------------------------------------------------------------

    @critical
    def read(self, look: Callable[[EntryEditor], T]) -> T:
        """Return what ``look`` returns of the file; called again where a writer came between."""

        def with_view(h5: h5py.File) -> T:
            view = self._view_of(h5)
            view.index.forget_unreadable()
            before = view.damage_met
            found = look(view)
            if view.damage_met > before and self.container.may_retry:
                raise RetryRead
            return found

        with self.call_lock:
            if self._together is not None:  # an error is the outer read's: it may be a writer's doing
                return look(self._together.view)
            with self._translated:
                if self._open is not None:
                    return look(self._open.view)
                found = self.container.read(with_view)
            if self._seen is not None:
                self._seen[1].index.warn_of_unreadable()
            return found

    def read_together(self, act: Callable[[], T]) -> T:
        """Return what ``act`` returns; its reads are of one state of the file, which is looked at
        once. Called again where a writer came between.
        """
        damaged: list[tuple[str, list[_Damaged]]] = []

        def look(view: EntryEditor) -> T:
            damaged.clear()
            outer, self._together = self._together, _Together(view, damaged)
            try:
                return act()
            finally:
                self._together = outer

        with self.call_lock:
            found = self.read(look)
            for section, some in damaged:
                self._warn_damaged(section, some)
        return found

    def _view_of(self, h5: h5py.File) -> EntryEditor:
        """One view per handle: it keeps open what every look-up goes through."""
        seen = self._seen
        if seen is None or seen[0] is not h5:
            seen = self._seen = (h5, EntryEditor(h5, keeps_groups=not h5.changes))
        return seen[1]

    @staticmethod
    def _decoded(view: EntryEditor, section: str, paths: list[str]) -> tuple[list[_Whole], list[_Damaged]]:
        whole: list[_Whole] = []
        damaged: list[_Damaged] = []
        for path in paths:
            try:
                encoded = view.read(section, path)
                whole.append((encoded, decode(encoded)))
            except DamagedEntry as error:
                damaged.append((path, str(error)))
        return whole, damaged

    def _entries(self, section: str, list_paths: Callable[[EntryEditor], list[str]]) -> list[_Whole]:
        whole, damaged = self.read(lambda view: self._decoded(view, section, list_paths(view)))
        self._warn_damaged(section, damaged)
        return whole

    def _warn_damaged(self, section: str, damaged: list[_Damaged]) -> None:
        if self._together is not None:  # this look may be repeated
            self._together.damaged.append((section, damaged))
            return
        for path, reason in damaged:
            place = f"/{section}/{path}"
            if place not in self._warned:
                self._warned.add(place)
                log.warning(
                    "%s: entry %s is damaged (%s) and counts as missing; verify() lists all such entries",
                    self.container.path,
                    place,
                    reason,
                )

    def find_record(self, key: str, producer: Producer | None) -> StoredRecord | None:
        """Return the record that ``producer`` means under an exact key, or None."""
        check_exact_key(key)

        def look(view: EntryEditor) -> tuple[list[_Whole], list[_Damaged]]:
            if not view.has(RECORDS, key):  # of most fits; HDF5's own error takes long
                return [], []
            lone = view.read_lone_record(key)
            if lone is not None:
                with suppress(DamagedEntry):
                    return [(lone, decode(lone))], []
            return self._decoded(view, RECORDS, view.entry_paths(RECORDS, key))

        whole, damaged = self.read(look)
        self._warn_damaged(RECORDS, damaged)
        return record_meant(whole, producer)

    def find_artifact(self, entry_id: str) -> StoredArtifact | None:
        """Return one artifact by its entry id."""
        check_entry_id(entry_id)
        # The id of an artifact names its key too: where it was, it is, if it is there at all.
        known = self._parents.get(entry_id)
        likely = None if known is None else known.path
        return self._artifact_at(lambda view: view.path_of(ARTIFACTS, entry_id), likely)

    def find_artifact_of_fit(self, exact_key: str) -> StoredArtifact | None:
        """Return the newest artifact of a fit."""
        check_exact_key(exact_key)

        def path_of(view: EntryEditor) -> str | None:
            newest = view.index.newest_of_fit(exact_key)
            return None if newest is None else view.path_of(ARTIFACTS, newest[1])

        found = self._artifact_at(path_of)
        return found if found is not None and found.artifact.fit_key == exact_key else None

    def find_key_of_record(self, entry_id: str) -> str | None:
        """Return the exact key that a record of this entry id is filed under."""
        check_entry_id(entry_id)
        return self.read(lambda view: view.index.key_of(RECORDS, entry_id))

    def waiting(self) -> list[Encoded]:
        """Return the buffered entries; here none do."""
        return []

    def snapshot_parents(self) -> ParentSnapshot:
        """Return the file's artifacts; while that lives, they are not evicted here."""
        held = ParentSnapshot(*self.read(lambda view: (frozenset(view.index.ids(ARTIFACTS)), view.index.snapshot())))
        self.held.add(held)
        return held

    def find_parent(
        self, wanted: Wanted, held: ParentSnapshot | None = None, *, usable: bool = True
    ) -> StoredArtifact | None:
        """Return the best parent that is intact.

        Parameters
        ----------
        wanted : Wanted
        held : ParentSnapshot, optional
            Choose among these alone.
        usable : bool
            Pass over those that no fit may start from by default.
        """

        def look(view: EntryEditor) -> tuple[StoredArtifact | None, list[_Damaged]]:
            source = self._candidates(view.index if held is None else held.index, held)
            damaged: list[_Damaged] = []
            tried: set[str] = set()
            found = self._first_intact(view, candidates(source, wanted), tried, damaged, usable=usable)
            if found is None and damaged:  # there may be others that no table has room for
                everything = view.read_index(None if held is None else held.ids)
                source = self._candidates(everything, held)
                found = self._first_intact(view, candidates(source, wanted), tried, damaged, usable=usable)
            return found, damaged

        # A look may be repeated because of a writer; only the last one's damage is warned of.
        found, damaged = self.read(look)
        self._warn_damaged(ARTIFACTS, damaged)
        return _handed_out_artifact(found)

    def _candidates(self, source: CandidateSource, held: ParentSnapshot | None) -> CandidateSource:
        """Return a source with what waits to be filed; here nothing does."""
        return source

    def _first_intact(
        self,
        view: EntryEditor,
        rows: Iterable[Candidate],
        tried: set[str],
        damaged: list[_Damaged],
        *,
        usable: bool,
    ) -> StoredArtifact | None:
        for row in rows:
            if row.entry_id in tried or (usable and not row.usable):
                continue
            tried.add(row.entry_id)
            found = self._artifact_in(view, row.path, damaged)
            if found is not None and (found.artifact.is_usable or not usable):
                return found
        return None

    def _artifact_in(self, view: EntryEditor, path: str, damaged: list[_Damaged]) -> StoredArtifact | None:
        """Return the artifact at a path; None if nothing is there, or what is there is damaged."""
        known = self._parents.get(path.rpartition("/")[2])
        if known is not None and known.path != path:
            known = None
        if known is not None and view.has_seal(ARTIFACTS, path, known.seal):
            return known.stored
        seal = view.stored_seal(ARTIFACTS, path)
        if known is not None and known.seal == seal:  # where its header alone does not tell
            return known.stored
        if seal is None and not view.may_have(ARTIFACTS, path):
            return None
        try:
            return self._decoded_artifact(view, path, seal)
        except DamagedEntry as error:
            damaged.append((path, str(error)))
            return None

    def _artifact_at(
        self, find_path: Callable[[EntryEditor], str | None], likely: str | None = None
    ) -> StoredArtifact | None:
        """``likely``: a path to try first."""

        def look(view: EntryEditor) -> tuple[StoredArtifact | None, list[_Damaged]]:
            damaged: list[_Damaged] = []
            found = None if likely is None else self._artifact_in(view, likely, damaged)
            if found is None and not damaged:
                path = find_path(view)
                found = None if path is None else self._artifact_in(view, path, damaged)
            return found, damaged

        found, damaged = self.read(look)
        self._warn_damaged(ARTIFACTS, damaged)
        return _handed_out_artifact(found)

    def _decoded_artifact(self, view: EntryEditor, path: str, seal: bytes | None) -> StoredArtifact | None:
        """Read an artifact, and keep it by its seal: a campaign's parent is decoded once."""
        encoded = view.read(ARTIFACTS, path)
        artifact = decode(encoded)
        if not isinstance(artifact, FitArtifact):
            return None
        found = StoredArtifact(artifact, encoded.entry_id)
        if seal is not None:
            self._parents.keep(encoded.entry_id, _KnownParent(path, seal, found), _DECODED_OVERHEAD + encoded.nbytes)
        return found

    # -- the whole file ----------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """Return the exact keys that have a record, sorted."""
        return self._keys(RECORDS)

    def _keys(self, section: str) -> list[str]:
        return [name for name in self.read(lambda view: view.keys(section)) if KINDS[section].is_key(name)]

    def descriptor_keys(self) -> list[str]:
        """Return the strict descriptor keys that have artifacts, sorted."""
        return self._keys(ARTIFACTS)

    def entry_ids(self) -> set[str]:
        """Return the logical content of the file: the entry ids of all intact entries."""

        def look(view: EntryEditor) -> set[str]:
            ids = set()
            for section, path in view.all_paths():
                try:
                    encoded = view.read(section, path)
                    decode(encoded)
                    ids.add(encoded.entry_id)
                except DamagedEntry:
                    continue
            return ids

        return self.read(look)

    def __len__(self) -> int:
        return self.read(lambda view: view.total("n_entries"))

    @property
    def generation(self) -> int:
        """Number of committed transactions."""
        return self.container.generation

    @critical
    def close(self) -> None:
        """Checkpoint and close; idempotent."""
        self.container.close()


def _handed_out_artifact(found: StoredArtifact | None) -> StoredArtifact | None:
    return None if found is None else StoredArtifact(private_copy(found.artifact), found.entry_id)
