"""Files next to the store: its journal, a new file until it is complete, journals of other files.

Nothing here is removed or moved unless its content says that it is gamwarm's.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from gamwarm.formats import FILE_MAGIC
from gamwarm.storage import redo_journal, vfs
from gamwarm.storage.header import BODY_OFFSET, HDF5_SIGNATURE, USER_BLOCK
from gamwarm.storage.vfs import create_auxiliary, in_the_way, open_auxiliary

__all__ = [
    "clear_journal",
    "journal_path",
    "make_scratch",
    "move_aside",
    "own_journal",
    "remove_scratch",
    "scratch_path",
]

_log = logging.getLogger("gamwarm")


def journal_path(path: Path) -> Path:
    """Return where the journal of the file at ``path`` is."""
    return path.with_name(path.name + "-journal")


def scratch_path(path: Path) -> Path:
    """Where a new file is built; the name is fixed, so the next creator overwrites debris."""
    return path.with_name(path.name + "-new")


def make_scratch(path: Path, like: os.stat_result | None) -> int:
    """Open an empty new file for the store at ``path``, replacing a killed creation's remains."""
    remove_scratch(path)
    return create_auxiliary(scratch_path(path), like, None if like is None else stat.S_IMODE(like.st_mode))


def remove_scratch(path: Path) -> None:
    """Remove an unfinished new file of the store at ``path``; a foreign file is refused."""
    scratch = scratch_path(path)
    try:
        fd = open_auxiliary(scratch, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        # Header and user block are written last, so before that the block is a hole, and HDF5's
        # signature may be one, or cut.
        start = vfs.DISK.pread(fd, BODY_OFFSET, 0)
        block, signature = start[:USER_BLOCK], start[USER_BLOCK:]
        blank = not any(block) and HDF5_SIGNATURE.startswith(signature.rstrip(b"\0"))
        ours = blank or block.startswith(FILE_MAGIC) or FILE_MAGIC.startswith(block)
        if not ours or vfs.DISK.fstat(fd).st_nlink > 1:
            raise in_the_way(scratch)
    finally:
        vfs.DISK.close(fd)
    vfs.DISK.unlink(scratch)


def own_journal(fd: int, path: Path, uuid: bytes) -> int:
    """Bytes of the open journal of the file ``uuid``; -1 if it is another gamwarm file's.

    Raises
    ------
    StoreError
        It is not a journal, or one of another version, or has a second name, under which it may
        belong to someone else.
    """
    status = vfs.DISK.fstat(fd)
    of = redo_journal.made_for(fd, path)
    if of is None:
        raise in_the_way(path)
    if status.st_nlink > 1:
        raise in_the_way(path, "a file with a second name (hard link)")
    return -1 if of and of != uuid else status.st_size


def move_aside(journal: Path) -> None:
    """Move another file's journal aside: it may hold what that file has acknowledged."""
    fd = open_auxiliary(journal, os.O_RDONLY)
    try:
        of = redo_journal.made_for(fd, journal) or b""
    finally:
        vfs.DISK.close(fd)
    stem, count = f"{journal.name}-of-{of.hex()[:8]}", 1
    aside = journal.with_name(stem)
    while os.path.lexists(aside):
        count += 1
        aside = journal.with_name(f"{stem}-{count}")
    vfs.DISK.rename(journal, aside)
    _log.warning(
        "%s: the journal of another gamwarm file; moved to %s. Move it next to its file, under the name of its "
        "journal, or remove it",
        journal,
        aside.name,
    )


def clear_journal(path: Path) -> None:
    """Keep the journal of a file that was removed or moved away from a new file."""
    try:
        fd = open_auxiliary(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        size = own_journal(fd, path, b"")
    finally:
        vfs.DISK.close(fd)
    if size < 0:
        move_aside(path)
    else:
        vfs.DISK.unlink(path)
