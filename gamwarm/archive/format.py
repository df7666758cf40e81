"""Archives as bytes: a gamwarm file written once, with a manifest (docs/file-format.md).

The same entries, texts and version of gamwarm give the same bytes: no times but those of the
entries, no identity of a machine, everything in one order.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from blake3 import blake3
from h5py import h5d, h5g, h5p, h5s, h5t

from gamwarm.checks import file_path
from gamwarm.entries import (
    ARCHIVE,
    ARCHIVE_TEXT,
    UNREADABLE,
    DamagedEntry,
    Encoded,
    EntryEditor,
    EntryStore,
    EntrySummary,
    Problem,
    Progress,
    check_content,
    check_file,
    create_file,
    decode,
    iter_batches,
    list_entries,
    report_progress,
    sealed_parts,
    stored_values,
    timeless,
)
from gamwarm.errors import NewerFormat, NotAStore, OlderFormat, StoreDamaged, StoreError
from gamwarm.formats import ARCHIVE as ARCHIVE_FORMAT
from gamwarm.formats import ARCHIVE_MARK, MANIFEST_TITLE
from gamwarm.interrupts import deliver
from gamwarm.maintenance import KEEP_ALL, MergeReport, import_batches, read_batches
from gamwarm.storage import (
    HEADER_BYTES,
    USER_BLOCK,
    UUID_BYTES,
    Header,
    TornHeader,
    fill_through,
    make_scratch,
    missing,
    parse,
    scratch_path,
    vfs,
)

__all__ = [
    "BundleCheck",
    "BundleContents",
    "BundleWritten",
    "absorb_bundle",
    "check_bundle",
    "write_bundle",
]

MANIFEST: Final = "manifest"
MARK_OFFSET: Final = HEADER_BYTES
DIGEST_OFFSET: Final = MARK_OFFSET + len(ARCHIVE_MARK)
_DIGEST_BYTES: Final = 32
_CHUNK: Final = 1 << 20
_README: Final = (
    "This file is a gamwarm archive: a gamwarm file that is written once. 'manifest' has one line per entry: BLAKE3 of "
    "its sealed bytes, and where it lies. 'ro-crate-metadata.json' says who made it (RO-Crate 1.1), 'file-format.md' "
    "how to read it. Attribute 'digest' is BLAKE3 of the manifest and names the contents."
)


@dataclass(frozen=True)
class BundleContents:
    """What goes into an archive: chosen entries, the title, and what makes the texts."""

    chosen: Sequence[EntrySummary]
    describe: Callable[[Sequence[EntrySummary]], Mapping[str, str]]
    title: str


@dataclass(frozen=True)
class BundleWritten:
    """What an archive holds (entries, digest of the manifest, bytes), and what was left out."""

    kept: Sequence[EntrySummary]
    digest: str
    nbytes: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class BundleCheck:
    """What the check of an archive found.

    Attributes
    ----------
    problems : tuple of Problem
    entries, nbytes : int
        Whole entries, and their payload bytes.
    digest : str
        Of the manifest: 64 hex digits.
    title : str
    texts : dict of str to str
        The texts inside, by name.
    complete : bool
        False if the progress callback ended the walk.
    """

    problems: tuple[Problem, ...]
    entries: int
    nbytes: int
    digest: str
    title: str
    texts: dict[str, str]
    complete: bool = True


# -- writing ---------------------------------------------------------------------------------------


def write_bundle(
    store: EntryStore,
    target: Path,
    choose: Callable[[list[EntrySummary]], BundleContents],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BundleWritten:
    """Write the entries that ``choose`` picks to a new file at ``target``.

    They are chosen from their summaries and read in batches, so that a busy writer cannot keep a
    large export from ending; what it replaces or removes meanwhile is left out and listed.
    """
    if not overwrite:
        vfs.refuse_existing(target)
    vfs.require_directory(target)
    summaries, unreadable = list_entries(store)
    problems = [Problem(place, "it cannot be read") for place in unreadable]
    contents = choose(summaries)
    scratch = scratch_path(target)
    with vfs.typed(target, "write it"):
        fd = make_scratch(target, None)
        try:
            digest, kept = fill_through(
                fd, lambda h5: _fill(h5, target, store, contents, problems, progress), timeless(h5p.FILE_CREATE)
            )
            _finish(fd, bytes.fromhex(digest)[:UUID_BYTES])
            nbytes = vfs.DISK.fstat(fd).st_size
            vfs.DISK.rename(scratch, target)
        except BaseException:
            with contextlib.suppress(OSError):
                vfs.DISK.unlink(scratch)
            raise
        finally:
            vfs.DISK.close(fd)
    with contextlib.suppress(OSError):
        vfs.DISK.fsync_dir(target.parent)
    return BundleWritten(kept, digest, nbytes, tuple(problems))


def _fill(
    h5: h5py.File,
    path: Path,
    source: EntryStore,
    contents: BundleContents,
    problems: list[Problem],
    progress: Progress | None,
) -> tuple[str, list[EntrySummary]]:
    """Lay out all but the header; return the manifest's digest and the summaries of the entries."""
    kept: list[EntrySummary] = []
    lines: list[str] = []
    create_file(h5)
    target = _BundleView(h5)
    done = 0
    keys = [list(group) for _, group in groupby(contents.chosen, key=lambda summary: (summary.section, summary.key))]
    for summaries, found in zip(keys, iter_batches(source, keys, _sound_or_why), strict=True):
        sound: list[Encoded] = []
        for summary, entry in zip(summaries, found, strict=True):
            if not report_progress(progress, done, len(contents.chosen)):
                raise StoreError(f"{path}: the export was stopped by its progress callback; nothing was written")
            done += 1
            if isinstance(entry, str):
                problems.append(Problem(summary.place, entry))
                continue
            kept.append(summary)
            sound.append(entry)
        if sound:
            section, key = summaries[0].section, summaries[0].key
            target.absorb(section, key, sound, KEEP_ALL)
            paths = target.entry_paths(section, key)
            lines += [f"{_digest(target.read(section, path))}  {section}/{path}" for path in paths]
    target.rebuild_index()
    texts = contents.describe(kept)
    listed = [f"{_hex(text.encode())}  {name}" for name, text in sorted(texts.items())]
    manifest = "\n".join([MANIFEST_TITLE, *listed, *lines, ""])
    digest = _hex(manifest.encode())
    _write_texts(h5, texts, contents.title, manifest, digest)
    report_progress(progress, done, len(contents.chosen))
    return digest, kept


def _sound_or_why(view: EntryEditor, summaries: Sequence[EntrySummary]) -> list[Encoded | str]:
    """Read chosen entries of one key, wherever they lie in it by now; say why one is not sound."""
    found: list[Encoded | str] = []
    for summary in summaries:
        paths = [
            summary.path,
            *(path for path in view.entry_paths(summary.section, summary.key) if path != summary.path),
        ]
        why = "it was replaced or removed during the export"
        for path in paths:
            try:
                entry = _sound(view, summary.section, path)
            except DamagedEntry as error:
                why = str(error) if path == summary.path else why
                continue
            if entry.entry_id == summary.entry_id:
                found.append(entry)
                break
        else:
            found.append(why)
    return found


def _sound(view: EntryEditor, section: str, path: str) -> Encoded:
    """Read an entry that seal, content digest and decoding confirm."""
    entry = view.read(section, path)
    check_content(entry)
    decode(entry)
    return entry


def _write_texts(h5: h5py.File, texts: Mapping[str, str], title: str, manifest: str, digest: str) -> None:
    group = h5g.create(h5["/"].id, ARCHIVE.encode(), gcpl=timeless(h5p.GROUP_CREATE))
    stored_values.write_text(group, b"README", _README.encode())
    stored_values.set_integer(group, b"archive_format", ARCHIVE_FORMAT.current)
    stored_values.write_text(group, b"digest", digest.encode())
    stored_values.write_text(group, b"title", title.encode())
    for name, text in [(MANIFEST, manifest), *sorted(texts.items())]:
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        dcpl = timeless(h5p.DATASET_CREATE)
        dcpl.set_layout(h5d.CONTIGUOUS)
        space = h5s.create_simple((len(data),))
        h5d.create(group, name.encode(), h5t.STD_U8LE, space, dcpl).write(h5s.ALL, h5s.ALL, data)


def _finish(fd: int, uuid: bytes) -> None:
    """Write header, mark and the digest of all that follows the user block; sync."""
    with open(os.dup(fd), "rb") as file:
        file.seek(USER_BLOCK)
        body = _digest_of_rest(file)
    vfs.DISK.pwrite(fd, (Header(2, uuid, bytes(8), 0).pack() + ARCHIVE_MARK + body).ljust(USER_BLOCK, b"\0"), 0)
    vfs.DISK.fdatasync(fd)


def _digest_of_rest(file: Any) -> bytes:
    hasher = blake3()
    while chunk := file.read(_CHUNK):
        deliver()
        hasher.update(chunk)
    return bytes(hasher.digest())


def _hex(data: bytes) -> str:
    return str(blake3(data).hexdigest())


def _digest(entry: Encoded) -> str:
    """Return 64 hex digits, the first half of which are the seal."""
    return _hex(sealed_parts(entry.section, entry.key, entry.text(), entry.arrays))


class _BundleView(EntryEditor):
    """Writes the index once, at the end, in order."""

    def _index_entry(self, entry: Encoded) -> None:
        """Leave it to the end."""


# -- reading ---------------------------------------------------------------------------------------


def check_bundle(path: str | os.PathLike[str], progress: Progress | None = None) -> BundleCheck:
    """Check everything in an archive against its digests. Only reads, without lock or journal.

    Raises
    ------
    StoreNotFound, NotAStore, NewerFormat, OlderFormat, StoreDamaged
        There is no such file, it is not an archive, or so damaged that HDF5 cannot list its
        contents.
    """
    place = file_path(path)
    problems: list[Problem] = []
    _check_bytes(place, problems)
    with _opened(place) as h5:
        try:
            check_file(h5, place)
            size = h5.id.get_filesize()
            group = stored_values.open_group(h5g.open(h5.id, b"/"), ARCHIVE.encode())
            ARCHIVE_FORMAT.check(stored_values.read_integer(group, b"archive_format", size), place)
            texts = _texts(group, size, problems)
            stated = [stored_values.read(group, name, size) or b"" for name in (b"title", b"digest")]
            title, digest = (text.decode("utf-8", "replace") for text in stated)
            view = EntryEditor(h5, keeps_groups=True)
            return _check_contents(view, texts, title, digest, problems, progress)
        except (DamagedEntry, *UNREADABLE) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreDamaged(
                f"{place}: HDF5 cannot read what lists the archive's contents ({error}); recover the readable "
                "entries with gamwarm.salvage(path, into)"
            ) from error


def _check_bytes(path: Path, problems: list[Problem]) -> None:
    """Refuse a file that is not an archive; note bytes that changed after the export."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NotAStore(f"{path}: not a regular file; give the path of an archive", path=str(path))
        with open(path, "rb", opener=_open_at_once) as file:
            block = file.read(USER_BLOCK)
            rest = _digest_of_rest(file)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise vfs.explain(error, path, "read it") from error
    marked = block[MARK_OFFSET:DIGEST_OFFSET] == ARCHIVE_MARK
    try:
        header: Header | None = parse(block, str(path))
    except TornHeader:
        header = None
    except (NotAStore, NewerFormat, OlderFormat):
        if not marked:
            raise
        header = None
    if not marked and header is not None:
        with _opened(path) as h5:
            if not stored_values.has(h5g.open(h5.id, b"/"), ARCHIVE.encode()):
                raise NotAStore(
                    f"{path}: a gamwarm store, not an archive; use verify() of the store, merge it into "
                    "another store, or export it to an archive",
                    path=str(path),
                )
    if not marked or header is None or header != Header(2, header.uuid, bytes(8), 0):
        problems.append(Problem("header", "the first 512 bytes are not those of an archive"))
    elif block[DIGEST_OFFSET + _DIGEST_BYTES :].strip(b"\0"):
        problems.append(Problem("header", "there are bytes after the digest in the first 512 bytes"))
    if block[DIGEST_OFFSET : DIGEST_OFFSET + _DIGEST_BYTES] != rest:
        problems.append(Problem("file", "its bytes changed after the export"))


def _open_at_once(path: str, flags: int) -> int:
    return vfs.DISK.open(Path(path), flags | os.O_NONBLOCK)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        h5 = h5py.File(path, "r", locking=False, libver=("v108", "v108"))
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreDamaged(
            f"{path}: HDF5 cannot open the file ({error}); recover the readable entries with gamwarm.salvage(path, "
            "into)",
            path=str(path),
        ) from error
    try:
        yield h5
    finally:
        with contextlib.suppress(*UNREADABLE):
            h5.close()


def _texts(group: Any, size: int, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in stored_values.names_in(group):
        try:
            data = stored_values.read(group, stored_values.encoded(name), size, ARCHIVE_TEXT) or b""
            found[name] = data.decode()
        except (DamagedEntry, *UNREADABLE) as error:
            problems.append(Problem(f"/{ARCHIVE}/{name}", f"it cannot be read ({type(error).__name__}: {error})"))
    return found


def _check_contents(
    view: EntryEditor,
    texts: dict[str, str],
    title: str,
    stated: str,
    problems: list[Problem],
    progress: Progress | None,
) -> BundleCheck:
    manifest = texts.pop(MANIFEST, "")
    digest = _hex(manifest.encode())
    if stated != digest:
        problems.append(Problem(f"/{ARCHIVE}/{MANIFEST}", "its digest is not the one that the archive states"))
    listed = _parse_manifest(manifest, problems)
    for name, text in texts.items():
        _compare(f"/{ARCHIVE}/{name}", listed.pop(name, None), _hex(text.encode()), problems)
    paths = list(view.all_paths())
    entries = nbytes = 0
    for done, (section, path) in enumerate(paths):
        if not report_progress(progress, done, len(paths)):
            return BundleCheck(tuple(problems), entries, nbytes, digest, title, texts, complete=False)
        place = f"/{section}/{path}"
        in_manifest = listed.pop(f"{section}/{path}", None)
        try:
            entry = _sound(view, section, path)
        except DamagedEntry as error:
            problems.append(Problem(place, str(error)))
            continue
        entries += 1
        nbytes += entry.nbytes
        _compare(place, in_manifest, _digest(entry), problems)
    report_progress(progress, len(paths), len(paths))
    problems += [Problem(f"/{name}", "the manifest lists it, the file does not hold it") for name in listed]
    return BundleCheck(tuple(problems), entries, nbytes, digest, title, texts)


def _parse_manifest(manifest: str, problems: list[Problem]) -> dict[str, str]:
    summary, *lines = manifest.splitlines() or [""]
    listed = {place: digest for digest, gap, place in (line.partition("  ") for line in lines) if gap}
    if summary != MANIFEST_TITLE or len(listed) != len(lines):
        problems.append(Problem(f"/{ARCHIVE}/{MANIFEST}", "it is not the list of an archive"))
    return listed


def _compare(place: str, stated: str | None, found: str, problems: list[Problem]) -> None:
    if stated is None:
        problems.append(Problem(place, "it is not in the manifest: added after the export"))
    elif stated != found:
        problems.append(Problem(place, "its digest is not the one in the manifest: changed after the export"))


# -- taking over -----------------------------------------------------------------------------------


def absorb_bundle(path: str | os.PathLike[str], target: EntryStore) -> MergeReport:
    """Write every entry of an archive unchanged; one transaction."""
    source = EntryStore(path, mode="r")
    try:
        return import_batches(target, read_batches(source), KEEP_ALL)
    finally:
        source.close()
