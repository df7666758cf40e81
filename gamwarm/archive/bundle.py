"""Export, verify and import archives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from blake3 import blake3

from gamwarm.archive.crate import CRATE_NAME, About, Creator, about_archive, crate_text, reference_to
from gamwarm.archive.format import BundleContents, BundleWritten, absorb_bundle, check_bundle, write_bundle
from gamwarm.checks import file_path
from gamwarm.entries import Browser, EntryStore, EntrySummary, Problem, Selection, Selector
from gamwarm.errors import InvalidInput, InvalidType, StoreDamaged, StoreError
from gamwarm.interrupts import critical
from gamwarm.maintenance import MergeReport
from gamwarm.storage import replace_text

__all__ = ["ArchiveReport", "ExportReport", "export_archive", "import_archive", "verify_archive"]

FORMAT_PAGE = "file-format.md"
_NAMED_PROBLEMS = 3

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes
    ----------
    path : pathlib.Path
    entries : int
    digest : str
        64 hex digits that name the contents: BLAKE3 of the manifest.
    nbytes : int
        Size of the file.
    absent_parents : tuple of str
        Entry ids that an exported fit started from and that the store does not hold (any more).
    problems : tuple of Problem
        Entries left out: damaged, or replaced by a writer while the export ran.
    """

    path: Path
    entries: int
    digest: str
    nbytes: int
    absent_parents: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class ArchiveReport:
    """What the check of an archive found.

    Attributes
    ----------
    problems : tuple of Problem
        Each with ``place`` (an entry, a text inside, or ``file``) and ``reason``.
    entries, nbytes : int
        Whole entries, and their payload bytes.
    digest : str
        Of the manifest, 64 hex digits; compare it with the one that the export reported.
    title, license : str
    creators : tuple of str
    complete : bool
        False if the progress callback ended the walk.
    """

    problems: tuple[Problem, ...]
    entries: int
    nbytes: int
    digest: str
    title: str
    license: str
    creators: tuple[str, ...]
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether everything was verified and is unchanged since the export."""
        return self.complete and not self.problems


@critical
def export_archive(
    store_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    select: Selection | None = None,
    *,
    title: str,
    creators: str | Creator | Iterable[str | Creator],
    license: str,  # noqa: A002 - the word of every catalogue
    description: str = "",
    crate_beside: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write chosen entries of a store to an archive: one file that stands alone.

    Parameters
    ----------
    store_path : path
        A gamwarm file; it is only read. Another archive will do.
    out : path
        A file that is not there yet, unless ``overwrite``.
    select : Selection, optional
        Which entries; default all.
    title, license : str
        The licence by its SPDX name (``CC-BY-4.0``), as a URL, or as text.
    creators : str, Creator, or several
        ``"Name"`` or ``"Name <ORCID iD>"``.
    description : str
    crate_beside : bool
        Write ``ro-crate-metadata.json`` also beside ``out``, which makes the folder an RO-Crate.
    overwrite : bool
    progress : callable, optional
        Called with entries done and in all; returning False ends the export, and nothing is
        written.

    Raises
    ------
    InvalidInput
        Title, creators or licence are missing, a key means none or several, or nothing is selected.
    StoreError
        The store cannot be read, or ``out`` cannot be written; an existing file is unchanged.

    Notes
    -----
    The same entries with the same words and version of gamwarm give the same bytes, on any machine
    with the same HDF5. Pins are not exported.
    """
    about = about_archive(title, creators, license, description)
    wanted = _selection(select)
    target, beside = file_path(out, "out"), None
    if crate_beside:
        beside = target.parent / CRATE_NAME
        if os.path.lexists(beside) and not overwrite:
            raise StoreError(f"{beside}: exists already; export into another folder, or pass overwrite=True")
    absent: tuple[str, ...] = ()

    def contents(summaries: list[EntrySummary]) -> BundleContents:
        nonlocal absent
        selector = Selector(Browser(store), wanted)
        chosen = [entry for entry in summaries if selector.takes(entry)]
        if wanted.lineage:
            chosen, absent = _with_parents(summaries, chosen)
        if not chosen:
            raise InvalidInput(f"{store_path}: no entry matches the selection ({len(summaries)} in the file); relax it")

        def describe(kept: Sequence[EntrySummary]) -> dict[str, str]:
            return {CRATE_NAME: crate_text(about, kept), FORMAT_PAGE: _format_page()}

        return BundleContents(chosen, describe, about.title)

    store = EntryStore(store_path, mode="r")
    try:
        written = write_bundle(store, target, contents, overwrite=overwrite, progress=progress)
    finally:
        store.close()
    if beside is not None:
        replace_text(beside, _write_crate(about, written, target))
    return ExportReport(target, len(written.kept), written.digest, written.nbytes, absent, written.problems)


@critical
def verify_archive(path: str | os.PathLike[str], progress: Progress | None = None) -> ArchiveReport:
    """Check an archive: its bytes by the file's digest, its entries by seal, content and manifest.

    Needs nothing but the file. Only reads; no lock, no network.

    Parameters
    ----------
    path : path
    progress : callable, optional
        Called with entries done and in all; returning False ends the walk.

    Raises
    ------
    StoreNotFound, NotAStore, NewerFormat, OlderFormat, StoreDamaged
        There is no such file; it is not an archive, or of another format; HDF5 cannot list its
        contents.
    """
    found = check_bundle(path, progress)
    creators, licence = _said_by(found.texts.get(CRATE_NAME, ""))
    return ArchiveReport(
        found.problems, found.entries, found.nbytes, found.digest, found.title, licence, creators, found.complete
    )


@critical
def import_archive(
    archive: str | os.PathLike[str],
    store_path: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    lock_timeout: float = 60.0,
) -> MergeReport:
    """Take an archive's entries, times kept, into a store, which is made if it is missing.

    The archive is verified first. Unlike `WarmStartStore.merge` this keeps every final of a key;
    the next put under that key trims it to the store's ``keep_last``.

    Parameters
    ----------
    archive, store_path : path
    progress : callable, optional
        Of the check: called with entries done and in all; returning False ends it, and nothing is
        imported.
    lock_timeout : float
        Seconds to wait for another writer of the store.

    Returns
    -------
    MergeReport
        With ``added`` (entry ids), ``seen``, ``superseded``, ``problems``.

    Raises
    ------
    StoreDamaged
        The archive changed after the export; the message names entries, ``details["problems"]`` all
        of them. The store is as before.
    StoreError
        As `verify_archive`, or the store cannot be written.
    """
    report = verify_archive(archive, progress)
    if not report.ok:
        if not report.complete:
            raise StoreError(f"{archive}: the import was stopped by its progress callback; nothing was imported")
        some = "; ".join(map(str, report.problems[:_NAMED_PROBLEMS]))
        more = len(report.problems) - _NAMED_PROBLEMS
        raise StoreDamaged(
            f"{archive}: changed after the export ({some}{f'; and {more} more' if more > 0 else ''}); get another "
            "copy, "
            "or recover the intact entries with gamwarm.salvage",
            problems=[str(problem) for problem in report.problems],
        )
    target = EntryStore(store_path, mode="a", lock_timeout=lock_timeout)
    try:
        return absorb_bundle(archive, target)
    finally:
        target.close()


def _selection(select: object) -> Selection:
    if select is None:
        return Selection()
    if not isinstance(select, Selection):
        raise InvalidType(f"select is {type(select).__name__}; expected gamwarm.archive.Selection or None")
    return select


def _with_parents(
    entries: Sequence[EntrySummary], chosen: Sequence[EntrySummary]
) -> tuple[list[EntrySummary], tuple[str, ...]]:
    """Add the parents of the chosen entries; return all in file order, and the absent parents."""
    by_id: dict[str, list[EntrySummary]] = {}
    for entry in entries:
        by_id.setdefault(entry.entry_id, []).append(entry)
    taken = {entry.entry_id for entry in chosen}
    absent: set[str] = set()
    wanted = [entry.parent for entry in chosen if entry.parent is not None]
    while wanted:
        parent = wanted.pop()
        if parent not in by_id:
            absent.add(parent)
        elif parent not in taken:
            taken.add(parent)
            wanted += [entry.parent for entry in by_id[parent] if entry.parent is not None]
    return [entry for entry in entries if entry.entry_id in taken], tuple(sorted(absent))


def _format_page() -> str:
    return files("gamwarm.archive").joinpath(FORMAT_PAGE).read_text(encoding="utf-8")


def _write_crate(about: About, written: BundleWritten, target: Path) -> str:
    hasher = blake3()
    hasher.update_mmap(target)
    file = {
        "@id": reference_to(target.name),
        "@type": "File",
        "name": about.title,
        "encodingFormat": "application/x-hdf5",
        "contentSize": str(written.nbytes),
        "identifier": f"blake3:{hasher.hexdigest()}",
    }
    return crate_text(about, written.kept, file)


def _said_by(crate: str) -> tuple[tuple[str, ...], str]:
    """Return creators and licence as a crate names them; nothing if it is damaged."""
    try:
        graph = {entity["@id"]: entity for entity in json.loads(crate)["@graph"]}
        root = graph["./"]
        creators = tuple(str(graph[each["@id"]]["name"]) for each in root["creator"])
        return creators, str(graph[root["license"]["@id"]]["name"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return (), ""
