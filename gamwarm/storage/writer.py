"""The handle that is written through: HDF5 over an overlay, open across transactions."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import h5py

from gamwarm.errors import GamwarmError, StoreDamaged, StoreError
from gamwarm.storage import vfs
from gamwarm.storage.foreign import OpenElsewhere
from gamwarm.storage.header import USER_BLOCK
from gamwarm.storage.neighbours import remove_scratch, scratch_path
from gamwarm.storage.overlay import Overlay
from gamwarm.storage.pager import CHECKPOINT_BYTES, FilePair, NotApplied, Pages
from gamwarm.storage.reader import Peek, ReadHandle, Snapshot, close_quietly, has_header
from gamwarm.storage.vfs import explain

__all__ = ["Writer", "new_image", "unreadable"]

LIBVER: Final = ("v108", "v108")
"""Readable since HDF5 1.8, metadata checksummed, no open-for-write flag to outlive a kill."""


class Writer:
    """A file pair and its HDF5 handle. All but `drop` and `close` runs under the writer lock.

    Attributes
    ----------
    used : bool
        A transaction or a recovery was begun, so `finish` has a journal to clear away.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pair = FilePair(path)
        self.h5: h5py.File | None = None
        self.used = False
        self._overlay: Overlay | None = None
        self._reading: ReadHandle | None = None

    @property
    def latched(self) -> BaseException | None:
        """The first error of the disk under the handle."""
        return self._overlay.error if self._overlay is not None else None

    def load(self) -> None:
        """Bring the file to its last committed state."""
        self.used = True
        self.drop()
        self.pair.load()

    def begin(self) -> h5py.File:
        """The cached handle if the file is unchanged since our last commit, else a new one.

        HDF5 tracks free space per handle; each new one forgets what the last could have reused.
        """
        self.used = True
        self.pair.begin_session()
        if self.h5 is not None and self._overlay is not None and self.pair.unchanged():
            self._overlay.fd = self.pair.main
            self._overlay.still_current = None
            return self.h5
        self.load()
        self._overlay = Overlay(self.pair.main, vfs.DISK.fstat(self.pair.main).st_size)
        try:
            self.h5 = _open_for_writing(self._overlay)
        except Exception as exc:
            latched = self.latched
            self.drop()
            raise unreadable(self.path, "read it", latched, exc) from exc
        return self.h5

    def committed(self, at: Snapshot) -> ReadHandle | None:
        """Return the handle for reading between transactions; None unless the file is as our last
        commit left it.

        The state is checked as for `Reader.handle`. Whoever reads something unexpected must `drop`
        the handle: nothing may be written through what it has cached.
        """
        overlay, h5 = self._overlay, self.h5
        if overlay is None or h5 is None or overlay.dirty or not self.pair.is_at(at):
            return None
        overlay.still_current = partial(has_header, self.pair.main, at.block)
        if self._reading is None:
            self._reading = ReadHandle(h5.id, overlay.peek, changes=True)
        return self._reading

    def commit(self) -> None:
        """Flush HDF5 and commit its pages; a failure before the commit point takes all back."""
        overlay, h5 = self._overlay, self.h5
        assert overlay is not None
        assert h5 is not None
        overlay.quiet = True
        try:
            h5py.h5f.flush(h5.id)
            if overlay.error is not None:
                raise overlay.error
            if overlay.dirty or overlay.size != vfs.DISK.fstat(self.pair.main).st_size:
                self.pair.commit(overlay.dirty, overlay.size)
                overlay.rebase()
        except NotApplied as exc:
            self.drop()
            cause = exc.__cause__
            assert isinstance(cause, OSError)
            raise explain(cause, self.path, "write to it") from cause
        except OpenElsewhere as exc:
            self.drop()
            raise exc.timeout(self.path, 0.0) from None
        except BaseException as exc:
            self.drop()
            if isinstance(exc, GamwarmError) or not isinstance(exc, Exception):
                raise
            raise unreadable(self.path, "commit to it", exc) from exc
        overlay.quiet = False
        if self.pair.journal_end > CHECKPOINT_BYTES:
            # Acknowledged already; a checkpoint that fails is tried again by the next commit.
            with contextlib.suppress(OSError):
                self.pair.checkpoint()

    def finish(self) -> None:
        """Leave only the complete file on disk."""
        self.drop()
        self.pair.begin_session()
        if not self.pair.unchanged():
            self.pair.load()
        self.pair.remove_journal()
        if os.path.lexists(scratch_path(self.path)):  # of a rewrite that was killed
            with contextlib.suppress(StoreError):  # another program's: the next rewrite says so
                remove_scratch(self.path)

    def drop(self) -> None:
        """Close the handle and forget what it wrote since the last commit."""
        overlay, h5 = self._overlay, self.h5
        self._overlay = self.h5 = self._reading = None
        if overlay is not None:
            overlay.dead = overlay.quiet = True
            overlay.still_current = None
        if h5 is not None:
            close_quietly(h5)

    def disarm(self) -> None:
        """Let the handle be, but let nothing that HDF5 still writes count."""
        if self._overlay is not None:
            self._overlay.dead = self._overlay.quiet = True

    def close(self) -> None:
        self.drop()
        self.pair.close()


@lru_cache(maxsize=1)
def _access() -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    return access


class WriteHandle(h5py.File):  # type: ignore[misc]
    """An HDF5 file open for writing, which can be read past HDF5 too."""

    def __init__(self, fid: h5py.h5f.FileID, peek: Peek) -> None:
        super().__init__(fid)
        self._peek = peek

    def flushed(self) -> Peek:
        """Return what reads bytes of the HDF5 image, as this transaction has changed it so far;
        good until the next change.
        """
        h5py.h5f.flush(self.id)
        return self._peek


def _open_for_writing(overlay: Overlay) -> WriteHandle:
    """`h5py.File(overlay, "r+", driver="fileobj", libver=LIBVER)` at a third of its cost."""
    overlay.vets = True
    access = _access().copy()
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, overlay)
    return WriteHandle(h5py.h5f.open(repr(overlay).encode(), h5py.h5f.ACC_RDWR, fapl=access), overlay.peek)


def new_image(create: Callable[[h5py.File], None] | None) -> tuple[Pages, int]:
    """Pages and size of a new file built by `create`."""
    overlay = Overlay(-1, 0)
    h5 = h5py.File(overlay, "w", driver="fileobj", libver=LIBVER, userblock_size=USER_BLOCK)
    try:
        if create is not None:
            create(h5)
        overlay.quiet = True
        h5.flush()
        if overlay.error is not None:
            raise overlay.error
        return dict(overlay.dirty), overlay.size
    finally:
        overlay.dead = overlay.quiet = True
        close_quietly(h5)


def unreadable(path: Path, doing: str, *errors: BaseException | None) -> Exception:
    """Return what to raise where HDF5 has failed: disk, process, or else a damaged file.

    ``errors``: what came from below HDF5, if anything, then what HDF5 said.
    """
    origin = vfs.not_of_the_file(*errors)
    if isinstance(origin, OSError):
        return explain(origin, path, doing)
    if origin is not None:
        return copy.copy(origin)  # not the overlay's own error, which would then keep its frames alive
    return StoreDamaged(
        f"{path}: HDF5 cannot read its metadata ({errors[-1]}). recover the readable entries with "
        "gamwarm.salvage(path, into), or restore a backup.",
        path=str(path),
    )
