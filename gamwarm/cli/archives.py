"""``export``, ``import``, ``report``: self-contained archives, and an HTML report."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from gamwarm.archive import Selection, export_archive, import_archive
from gamwarm.cli.exit_codes import Exit, Interrupted
from gamwarm.cli.filters import selecting
from gamwarm.cli.keys import SHORT, looking_into, refuse_no_file
from gamwarm.cli.maintenance import listed
from gamwarm.cli.options import File, Json, Wait, command
from gamwarm.cli.output import human_bytes, say, show, waiting, watched, write_json
from gamwarm.report import write_report
from gamwarm.storage import status_of

__all__ = ["export", "import_", "report"]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace NEW if it is there")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="NEW", help="the file to write", show_default=False)]


NO_LICENCE: Final = "none stated"


@command("export", "write selected entries to a self-contained archive")
@selecting
def export(
    file: File,
    output: Output,
    selection: Selection,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="of the archive; without: 'Fits of FILE'")
    ] = None,
    creator: Annotated[
        list[str] | None,
        typer.Option("--creator", metavar="NAME", help="'Name' or 'Name <ORCID iD>'; without: your account's name"),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="SPDX", help="CC-BY-4.0, an address, or words; without: 'none stated'"),
    ] = None,
    lineage: Annotated[
        bool, typer.Option("--lineage/--no-lineage", help="also the parents of the selected entries")
    ] = True,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="for the catalogue")] = "",
    crate_beside: Annotated[
        bool, typer.Option("--crate-beside", help="also write ro-crate-metadata.json next to NEW")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> Exit:
    """Write chosen entries to an archive: one self-contained file with a manifest.

    Options that select may be repeated, their names may hold * and ?, and all options given are
    met. The same entries and words give the same bytes. State title, creator and licence of what is
    published or archived for good; to take fits elsewhere the defaults do.
    """
    refuse_no_file(file)
    defaults = [name for name, given in (("title", title), ("creator", creator), ("license", licence)) if not given]
    with watched("exporting") as watch:
        try:
            done = export_archive(
                file,
                output,
                replace(selection, lineage=lineage),
                title=title if title is not None else f"Fits of {file.name}",
                creators=creator or [_account()],
                license=licence if licence is not None else NO_LICENCE,
                description=description,
                crate_beside=crate_beside,
                overwrite=overwrite,
                progress=watch.step,
            )
        except Exception as error:
            if watch.interrupted:
                raise Interrupted(f"ended by Ctrl-C; {output} was not written") from error
            raise
    if as_json:
        write_json(
            {
                "path": str(done.path),
                "entries": done.entries,
                "nbytes": done.nbytes,
                "digest": done.digest,
                "absent_parents": list(done.absent_parents),
                "problems": listed(done.problems),
            }
        )
    else:
        show(f"{done.path}: {done.entries:,} entries, {human_bytes(done.nbytes)}", f"digest {done.digest}")
        if defaults:
            say(f"not stated: {', '.join(defaults)}; give --{' --'.join(defaults)} to what is published")
        if done.absent_parents:
            some = ", ".join(entry[:SHORT] for entry in done.absent_parents[:3])
            say(f"{len(done.absent_parents):,} parents are no longer in {file} and not in the archive: {some} …")
        for problem in done.problems:
            say(f"left out, damaged: {problem}", style="yellow")
    return Exit.NO if done.problems else Exit.OK


def _account() -> str:
    """Return the name of this account's owner, else of the account."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # an account that the container does not know
        return f"user {os.getuid()}"
    return entry.pw_gecos.split(",")[0].strip() or entry.pw_name


@command("import", "copy the entries of an archive into a file")
def import_(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="written by gamwarm export", show_default=False)],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="gets the entries; created if missing", show_default=False)
    ],
    wait: Wait = 10.0,
    as_json: Json = False,
) -> Exit:
    """Take an archive's entries over into a file. The archive is verified first, and only read."""
    refuse_no_file(archive)
    if status_of(file) is not None:
        with looking_into(file):  # a foreign one is refused before anything is read
            pass
    with watched("importing") as watch:
        try:
            done = import_archive(archive, file, watch.step, lock_timeout=wait)
        except Exception as error:
            if watch.interrupted:
                raise Interrupted(f"ended by Ctrl-C; nothing was imported into {file}") from error
            raise
    if as_json:
        write_json({"file": str(file), "added": list(done.added), "seen": done.seen, "problems": listed(done.problems)})
    else:
        show(f"{file}: {len(done.added):,} new entries of the {done.seen:,} in {archive}")
        for problem in done.problems:
            say(f"not copied: {problem}", style="yellow")
    return Exit.NO if done.problems else Exit.OK


@command("report", "write one HTML page about a file")
def report(
    file: File,
    output: Output,
    title: Annotated[
        str | None, typer.Option("--title", help="default: the name of the file", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> Exit:
    """Write one HTML page about a file: what it saved, fit by fit, and where starts came from."""
    refuse_no_file(file)
    with waiting(f"reading {file}; Ctrl-C ends it"):
        page = write_report(file, output, title=title, overwrite=overwrite)
    if as_json:
        write_json({"path": str(page), "nbytes": page.stat().st_size})
    else:
        show(f"{page}: {human_bytes(page.stat().st_size)}; open it in a browser")
    return Exit.OK
