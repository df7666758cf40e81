"""The file and its journal as bytes: load (with recovery), commit, checkpoint, creation.

Everything in this module but `create` and `FilePair.reserve_directory` runs under the writer lock.
docs/file-format.md argues the order of the calls case by case; the short form:

* the ``fdatasync`` of the journal in `FilePair.commit` is the commit point;
* the file is marked (odd sequence, no HDF5 signature) before its first page changes and unmarked
  after its last;
* the header is only ever rewritten while the journal can repair it;
* the journal is only cut after an ``fdatasync`` of the file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gamwarm.errors import StoreDamaged, StoreNotFound, StoreUnavailable
from gamwarm.storage import redo_journal, vfs
from gamwarm.storage.foreign import READER_PATIENCE, OpenElsewhere, Presence
from gamwarm.storage.header import (
    BODY_OFFSET,
    HDF5_SIGNATURE,
    HEADER_BYTES,
    PAGE,
    SIGNATURE_OFFSET,
    USER_BLOCK,
    Header,
    TornHeader,
    parse,
)
from gamwarm.storage.late_close import restoration, undone
from gamwarm.storage.neighbours import clear_journal, journal_path, make_scratch, move_aside, own_journal, scratch_path
from gamwarm.storage.vfs import UNKNOWN_BOOT, create_auxiliary, in_the_way, open_auxiliary, share_if_ours

__all__ = ["CHECKPOINT_BYTES", "FilePair", "NotApplied", "create", "leading_bytes", "trusted"]

CHECKPOINT_BYTES: Final = 4 * 1024 * 1024

_log = logging.getLogger("gamwarm")

Pages = Mapping[int, bytes | bytearray | memoryview]
Mark = tuple[bytes, int, int, int, int]


class NotApplied(Exception):
    """After the commit point even the mark failed; the transaction was taken back."""


def leading_bytes(fd: int) -> bytes:
    """Read what comes before the HDF5 superblock's body: the header and the signature."""
    return vfs.DISK.pread(fd, BODY_OFFSET, 0)


def trusted(header: Header, *, shared: bool) -> bool:
    """Whether all written under this header is in the page cache or on the media.

    Never where other hosts may see the file: a boot identity names one page cache, and not the
    server's.
    """
    return not shared and not header.applying and header.boot == vfs.boot_identity() != UNKNOWN_BOOT


class FilePair:
    """A file, its journal, and what this process knows about both.

    Attributes
    ----------
    main, journal : int
        Descriptors, -1 when not open.
    header : Header
        As of the last `load` or `commit`.
    journal_end : int
        Where the next frame goes.
    syncs : int
        fsync and fdatasync calls so far.
    recoveries : int
        Journals replayed so far.
    shared : bool
        Other hosts may see the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = os.fspath(path)
        self.journal_path = journal_path(path)
        self.shared = False
        self._presence = Presence()
        self.main = self.journal = -1
        self.header = Header(0, b"", UNKNOWN_BOOT, 0)
        self.journal_end = 0
        self.syncs = 0
        self.recoveries = 0
        self._mark: Mark | None = None
        self._named = False
        self._behind = False
        self._warned_of_plain_reader = False

    def boot(self) -> bytes:
        """The boot identity for a header that is written now."""
        return UNKNOWN_BOOT if self.shared else vfs.boot_identity()

    # -- opening -----------------------------------------------------------------------------------

    def begin_session(self) -> None:
        """The first thing under the writer lock. Raises `OpenElsewhere`.

        Where other hosts may see the file, file and journal are reopened: what was read before is
        not trusted. The journal is opened by creating it, because a host may cache for long that a
        name does not exist.
        """
        if self.shared and self.main < 0:
            self.main = vfs.open_afresh(self.path, os.O_RDWR, count=PAGE)
            self.journal = vfs.open_or_create_auxiliary(self.journal_path, vfs.DISK.fstat(self.main))
            if self._mark is None or vfs.DISK.pread(self.main, HEADER_BYTES, 0) != self._mark[0]:
                vfs.DISK.forget(self.main)
        if self.main >= 0:
            self._presence.show(self.main)

    def end_session(self) -> None:
        """The last thing under the lock: a shared file must be complete on the server."""
        if self.shared and self.main >= 0:
            mark = None
            with contextlib.suppress(OSError):
                self.checkpoint()
                if self._mark is not None:
                    vfs.DISK.forget(self.main, PAGE)
                    mark = self._look()
            self._close_journal()
            self._close_main()
            self._mark = mark
        elif self.main >= 0:
            self._presence.leave(self.main)

    def unchanged(self) -> bool:
        """Whether file and journal are as our last commit left them (header, inode, mtime)."""
        if self._mark is None or self.main < 0:
            return False
        try:
            if self._look() != self._mark:
                return False
            if self.shared:
                return vfs.DISK.fstat(self.journal).st_size == 0
            if self.journal < 0:
                return not os.path.lexists(self.journal_path)
            beside = os.lstat(self.journal_path)
        except OSError:
            return False
        ours = vfs.DISK.fstat(self.journal)
        return (beside.st_dev, beside.st_ino, ours.st_size) == (ours.st_dev, ours.st_ino, self.journal_end)

    def load(self) -> None:
        """Reopen both files, and bring the main file to its last committed state if needed."""
        previous, self._mark = self._mark, None
        known = (0, 0) if self.shared else self._reopen()
        self.begin_session()
        self._behind = False  # its header tells, as the last writer left it
        try:
            header = parse(leading_bytes(self.main), str(self.path))
        except TornHeader as torn:
            self._keep_own_journal(torn.uuid, known)
            self._recover(None, torn.uuid)
        else:
            size = self._keep_own_journal(header.uuid, known)
            self.header = header
            length = vfs.DISK.fstat(self.main).st_size
            if header.applying or (size and not trusted(header, shared=self.shared)):
                self._recover(header, header.uuid)
            elif undone(self.main, header, length):
                self._restore(header, length)
            elif size and self._frames_end(header, known):
                # Frames beyond were never acknowledged: their writer died before it marked the
                # file.
                self.journal_end = header.journal_length
                self._named = self.journal_end > 0
                if size > self.journal_end:
                    vfs.DISK.ftruncate(self.journal, self.journal_end)
                if previous is None or previous[0] == header.pack():
                    # Somebody may have edited the file with plain HDF5; the journal must not
                    # outlive such an edit, for after a power loss it would be replayed over it.
                    self.checkpoint()
            else:
                self._discard_journal(size or header.journal_length)
        self.remember()

    def _frames_end(self, header: Header, known: tuple[int, int]) -> bool:
        """Whether the journal leads up to the header; a known part is checked briefly."""
        fd, uuid, sequence, length = self.journal, header.uuid, header.sequence, header.journal_length
        if known[0] and redo_journal.frames_end_at(fd, uuid, sequence, length, known):
            return True
        return redo_journal.frames_end_at(fd, uuid, sequence, length)

    def _reopen(self) -> tuple[int, int]:
        """Open what was replaced; return the journal's known bytes and their last sequence."""
        known = self.journal_end, self.header.sequence
        status = vfs.DISK.stat(self.path)
        if self.main >= 0:
            ours = vfs.DISK.fstat(self.main)
            if (ours.st_dev, ours.st_ino) != (status.st_dev, status.st_ino):
                self._close_main()
        if self.main < 0:
            self.main = vfs.DISK.open(self.path, os.O_RDWR)
            known = 0, 0
        before = vfs.DISK.fstat(self.journal) if self.journal >= 0 else None
        self._close_journal()
        with contextlib.suppress(FileNotFoundError):
            self.journal = open_auxiliary(self.journal_path, os.O_RDWR)
            after = vfs.DISK.fstat(self.journal)
            if before is not None and (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino):
                return known
        return 0, 0

    def _keep_own_journal(self, uuid: bytes, known: tuple[int, int]) -> int:
        """Move another file's journal aside; return the bytes of this file's own."""
        if self.journal < 0:
            return 0
        if known[0]:
            return vfs.DISK.fstat(self.journal).st_size
        size = own_journal(self.journal, self.journal_path, uuid)
        if size < 0:
            self._close_journal()
            move_aside(self.journal_path)
            return 0
        share_if_ours(self.journal, vfs.DISK.fstat(self.main))
        return size

    def _recover(self, header: Header | None, uuid: bytes) -> None:
        replay = redo_journal.scan(self.journal, uuid, self.main, self.path) if self.journal >= 0 else None
        if replay is None or (header is not None and not replay.follows(header.sequence)):
            if header is not None and not header.applying:
                # A complete state, and a journal that does not continue it (of another file, or of
                # a later history than this restored copy): replaying would destroy the file.
                self._discard_journal(1)
                return
            raise cut_short(self.path)
        disturbed = header is None or header.sequence != replay.last or self._differs(replay)
        self._replay(replay, uuid)
        self.recoveries += disturbed

    def _replay(self, replay: redo_journal.Replay, uuid: bytes) -> None:
        self.header = Header(replay.last, uuid, self.boot(), replay.length, replay.size)
        self._apply(replay.pages, replay.size)
        self.journal_end = replay.length
        self.checkpoint()

    def _differs(self, replay: redo_journal.Replay) -> bool:
        """Whether the file differs from the journal; an even header may hide unwritten pages."""
        disk, main = vfs.DISK, self.main
        if disk.fstat(main).st_size != replay.size:
            return True
        for number, page in replay.pages.items():
            start, skip = number * PAGE, 0 if number else BODY_OFFSET
            stop = min(PAGE, replay.size - start)
            if disk.pread(main, stop - skip, start + skip) != page[skip:stop]:
                return True
        return False

    def _restore(self, header: Header, length: int) -> None:
        """Restore what a plain HDF5 handle undid by closing after our commit, if possible."""
        journal = redo_journal.scan(self.journal, header.uuid, self.main, self.path) if self.journal >= 0 else None
        found = restoration(self.main, header, length, journal)
        if found is None:
            raise cut_off(self.path, length)
        if found is journal:
            self._replay(found, header.uuid)
        else:
            self._discard_journal(1)
            self.commit(found.pages, found.size)
        self.recoveries += 1
        _log.warning(
            "%s: another program that had it open for writing with plain HDF5 closed it and thereby undid what had "
            "been committed in the meantime; it was restored. Open a store in use with h5py's mode 'r' only",
            self.path,
        )

    def _discard_journal(self, stood_for: int) -> None:
        """Go on without the journal; if it covers unsynced bytes, sync those first."""
        self.journal_end = 0
        if stood_for:
            self._sync(self.main)
            if self.journal >= 0:
                vfs.DISK.ftruncate(self.journal, 0)

    # -- committing --------------------------------------------------------------------------------

    def commit(self, pages: Pages, size: int) -> None:
        """Make one transaction durable, then apply it.

        Raises
        ------
        OSError
            Before the commit point: both files are as before. `NotApplied` wraps the cause if it
            occurred just after.
        OpenElsewhere
            Another program has opened the file for writing in the meantime; the transaction was
            taken back.

        Notes
        -----
        An `OSError` while the pages are applied is swallowed: the transaction is committed,
        `unchanged` turns false and the next `load` replays it.
        """
        if self.shared:
            self._confirm_base()
        before, end_before = self.header, self.journal_end
        sequence = before.sequence + 2
        old_size = vfs.DISK.fstat(self.main).st_size
        self._mark = None
        try:
            self._create_journal()
            if size > old_size:
                # A full disk must strike before the commit point.
                vfs.DISK.fallocate(self.main, old_size, size - old_size)
            frame = redo_journal.build_frame(sequence, size, before.uuid, pages)
            vfs.DISK.pwrite(self.journal, frame, self.journal_end)
            self._sync(self.journal)
        except BaseException:
            self._take_back(old_size)
            raise
        self.journal_end += len(frame)
        self.header = Header(sequence, before.uuid, self.boot(), self.journal_end, size)
        self._behind = True
        try:
            self._exclude_readers()
            self._apply(pages, size)
            self.remember()
        except OpenElsewhere:
            self.header, self.journal_end, self._behind = before, end_before, False
            self._take_back(None)
            raise
        except OSError as exc:
            if not self._marked(before):
                self.header, self.journal_end, self._behind = before, end_before, False
                self._take_back(old_size)
                raise NotApplied from exc
            _log.warning(
                "%s: committed to the journal, but the file could not be updated (%s); the next transaction, or the "
                "next reader that may write, will finish it",
                self.path,
                exc,
            )

    def _confirm_base(self) -> None:
        """Raise if the file on the server is not at the transaction that this one was built on."""
        fd = vfs.open_afresh(self.path, os.O_RDONLY, count=PAGE)
        try:
            found = parse(leading_bytes(fd), str(self.path))
            there, ours = vfs.DISK.fstat(fd), vfs.DISK.fstat(self.main)
            same = (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        except TornHeader:
            found, same = self.header, False
        finally:
            vfs.DISK.close(fd)
        if not same or (found.uuid, found.sequence) != (self.header.uuid, self.header.sequence):
            raise StoreUnavailable(
                f"{self.path}: another writer has changed it although this one held the lock (it began at generation "
                f"{self.header.generation}, the file is at {found.generation}). Nothing was written. The lock does not "
                "exclude on this file system: let one process write, or give each a file and merge them.",
                path=str(self.path),
            )

    def _take_back(self, old_size: int | None) -> None:
        """Undo an append. What fails here the next `load` mends by the header's length.

        The file keeps the space that was reserved if `old_size` is None.
        """
        with contextlib.suppress(OSError):
            if self.journal >= 0:
                vfs.DISK.ftruncate(self.journal, self.journal_end)
        with contextlib.suppress(OSError):
            if old_size is not None and vfs.DISK.fstat(self.main).st_size != old_size:
                vfs.DISK.ftruncate(self.main, old_size)

    def _marked(self, before: Header) -> bool:
        """Whether the file shows that it is behind the journal; if not, mark it."""
        try:
            if parse(leading_bytes(self.main), str(self.path)) != before:
                return True
        except (TornHeader, OSError):
            pass
        try:
            self._put_header(self.header, applying=True)
        except OSError:
            return False
        return True

    def _apply(self, pages: Pages, size: int) -> None:
        """Bring the main file to `self.header`. Idempotent: may be repeated from the start."""
        disk, main = vfs.DISK, self.main
        self._put_header(self.header, applying=True)
        disk.pwrite(main, bytes(len(HDF5_SIGNATURE)), SIGNATURE_OFFSET)
        if self.shared:  # a client sends its writes in any order, and readers elsewhere go by the header
            self._sync(main)
        for first, count in redo_journal.window([number for number in pages if number]):
            run = b"".join([pages[number] for number in range(first, first + count)])
            disk.pwrite(main, memoryview(run)[: max(0, size - first * PAGE)], first * PAGE)
        if disk.fstat(main).st_size != size:
            disk.ftruncate(main, size)
        if 0 in pages:
            disk.pwrite(main, memoryview(pages[0])[BODY_OFFSET : min(PAGE, size)], BODY_OFFSET)
        disk.pwrite(main, HDF5_SIGNATURE, SIGNATURE_OFFSET)
        if self.shared:
            self._sync(main)
        self._put_header(self.header)
        self._behind = False

    def _put_header(self, header: Header, *, applying: bool = False) -> None:
        vfs.DISK.pwrite(self.main, header.pack(applying=applying), 0)

    def _create_journal(self) -> None:
        if self.journal < 0:
            self.journal = create_auxiliary(self.journal_path, vfs.DISK.fstat(self.main))
            self.journal_end = 0
        if self.journal_end == 0 and not self._named:
            self.sync_directory()
            self._named = True

    def _exclude_readers(self) -> None:
        """Hold an exclusive flock meanwhile: a plain h5py open fails loudly (best effort)."""
        if self.shared:
            return
        before = self._look()
        alone = self._presence.exclude_readers(self.main, 0.0 if self._warned_of_plain_reader else READER_PATIENCE)
        if self._look() != before:
            raise OpenElsewhere("another program")
        if not alone and not self._warned_of_plain_reader:
            _log.warning(
                "%s: open in another program through plain HDF5; what that program reads while gamwarm writes may be "
                "torn",
                self.path,
            )
        self._warned_of_plain_reader = not alone

    # -- checkpoint and closing --------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make the main file durable and cut the journal, unless the journal is ahead of it."""
        if self.journal < 0 or self.journal_end == 0 or self._behind:
            return
        mark, self._mark = self._mark, None
        try:
            self._sync(self.main)
        except OSError:
            # After a failed sync the kernel may call the lost pages clean, and the next sync would
            # succeed without them. The mark makes the next process write them again from the
            # journal.
            with contextlib.suppress(OSError):
                self._put_header(self.header, applying=True)
            raise
        # The header keeps the old journal length. Rewriting it would be the one write that no
        # journal could repair.
        vfs.DISK.ftruncate(self.journal, 0)
        self.journal_end = 0
        self._mark = mark

    def remove_journal(self) -> None:
        """Checkpoint, then leave nothing next to the file."""
        self.checkpoint()
        if self.journal >= 0:
            ours, there = vfs.DISK.fstat(self.journal), os.lstat(self.journal_path)
            if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
                raise in_the_way(self.journal_path)
            vfs.DISK.unlink(self.journal_path)
            self._close_journal()

    def sync_directory(self) -> None:
        self.syncs += 1
        vfs.DISK.fsync_dir(self.path.parent)

    def close(self) -> None:
        """Close the descriptors; touches nothing else."""
        self._mark = None
        self._close_journal()
        self._close_main()

    def _close_main(self) -> None:
        if self.main >= 0:
            self._presence.leave(self.main)
            with contextlib.suppress(OSError):
                vfs.DISK.close(self.main)
            self.main = -1

    def _close_journal(self) -> None:
        if self.journal >= 0:
            with contextlib.suppress(OSError):
                vfs.DISK.close(self.journal)
            self.journal = -1
        self.journal_end, self._named = 0, False

    def _sync(self, fd: int) -> None:
        self.syncs += 1
        vfs.DISK.fdatasync(fd)

    def is_at(self, snapshot: Mark) -> bool:
        """Whether a state of the file is the one that our last commit left; never where other hosts
        may write.
        """
        return not self.shared and self.main >= 0 and self._mark == snapshot

    def remember(self) -> None:
        self._mark = self._look()

    def _look(self) -> Mark:
        status = vfs.DISK.stat(self._name)
        block = vfs.DISK.pread(self.main, HEADER_BYTES, 0)
        return block, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def create(path: Path, pages: Pages, size: int, uuid: bytes, *, shared: bool) -> int:
    """Put a new file in the place of a missing one, atomically; return the number of syncs.

    Under the writer lock. The file is written under a temporary name and renamed, so that no state
    of a half-made file needs its own recovery rule.
    """
    disk, scratch = vfs.DISK, scratch_path(path)
    clear_journal(journal_path(path))
    fd = make_scratch(path, None)
    try:
        image = bytearray(size)
        for number, page in pages.items():
            start = number * PAGE
            image[start : start + PAGE] = page[: max(0, min(PAGE, size - start))]
        boot = UNKNOWN_BOOT if shared else vfs.boot_identity()
        image[:USER_BLOCK] = Header(2, uuid, boot, 0, size).pack().ljust(USER_BLOCK, b"\0")
        disk.pwrite(fd, image, 0)
        disk.fdatasync(fd)
        try:
            disk.rename(scratch, path)
        except FileNotFoundError:
            # FUSE sets aside the file that a rename replaces if it is open on this host, and fails
            # if another host has removed it. An empty file (as good as none) gives it one that can
            # be replaced.
            disk.close(disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            disk.rename(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(scratch)
        raise
    finally:
        disk.close(fd)
    disk.fsync_dir(path.parent)
    return 2


def cut_short(path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"{path}: a write was interrupted, and {journal_path(path).name}, which could complete it, is missing, "
        "damaged or of another file. Put that journal back next to the file, or recover the readable entries with "
        "gamwarm.salvage(path, into).",
        path=str(path),
    )


def cut_off(path: Path, length: int) -> StoreDamaged:
    return StoreDamaged(
        f"{path}: shortened since the last commit (to {length} bytes), as a plain HDF5 handle for writing does that "
        "was opened before it and closed after it, and the journal cannot restore the lost part. "
        "recover the readable entries with gamwarm.salvage(path, into), or restore a backup.",
        path=str(path),
    )


def missing(path: Path) -> StoreNotFound:
    return StoreNotFound(
        f"{path}: no such file. Check the path; mode='a' creates a missing file.", path=str(path), errno=errno.ENOENT
    )
