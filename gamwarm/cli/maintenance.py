"""``verify``, ``salvage``, ``compact``, ``evict``, ``pin``, ``merge``: keeping a file in shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gamwarm import maintenance
from gamwarm.archive import verify_archive
from gamwarm.cli.exit_codes import BadUsage, Exit, Interrupted
from gamwarm.cli.filters import parse_age, parse_bytes
from gamwarm.cli.keys import SHORT, changing, looking_into, refuse_no_file, resolve
from gamwarm.cli.options import File, Json, Key, Wait, command
from gamwarm.cli.output import Watch, columns, human_bytes, say, show, table, waiting, watched, write_json
from gamwarm.entries import Browser, EntryStore, Evicted, Problem
from gamwarm.errors import NoSuchKey, StoreDamaged
from gamwarm.maintenance import Verdict, VerifyReport, salvage_file
from gamwarm.storage import status_of

__all__ = ["compact", "evict", "merge", "pin", "salvage", "verify"]

_VERDICTS = {Verdict.SOUND: Exit.OK, Verdict.REPAIRED: Exit.REPAIRED, Verdict.DAMAGED: Exit.NO}
_STYLES = {Verdict.SOUND: "green", Verdict.REPAIRED: "yellow", Verdict.DAMAGED: "bold red"}
MOST_PROBLEMS = 20


def listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Return problems as JSON holds them."""
    return [vars(problem) for problem in problems]


def _print_problems(problems: Sequence[Problem]) -> None:
    show(*(f"  {problem}" for problem in problems[:MOST_PROBLEMS]))
    if len(problems) > MOST_PROBLEMS:
        say(f"and {len(problems) - MOST_PROBLEMS:,} more; --json lists all")


@command("verify", "check all digests: sound, repaired or damaged")
def verify(
    file: File,
    repair: Annotated[
        bool, typer.Option("--repair", help="open for writing: replay a journal, rebuild totals and index")
    ] = False,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> Exit:
    """Read every entry and check its digests; say sound, repaired or damaged.

    An archive is checked against its manifest too. Without --repair nothing is changed. Exit code
    0: sound; 3: repaired; 1: damaged, the entries are listed.
    """
    archive = None
    with watched("verifying") as watch:
        with looking_into(file) as (entries, browser):
            if browser.is_archive():
                archive = verify_archive(file, watch.step)
                report = VerifyReport(archive.problems, archive.entries, archive.nbytes, complete=archive.complete)
            elif not repair:
                report = maintenance.verify(entries, _step(watch, browser))
        if archive is None and repair:
            with changing(file, wait) as entries:
                report = maintenance.verify(entries, _step(watch, Browser(entries)))
        seconds = watch.seconds()
    if not report.complete:
        damage = f"{len(report.problems):,} damaged" if report.problems else "no damage"
        raise Interrupted(f"ended by Ctrl-C after {report.entries:,} entries; {damage} so far")
    if as_json:
        write_json(
            {
                "file": str(file),
                "verdict": str(report.verdict),
                "entries": report.entries,
                "nbytes": report.nbytes,
                "seconds": round(seconds, 3),
                "problems": listed(report.problems),
                "repaired": listed(report.repaired),
                "archive": None
                if archive is None
                else {name: getattr(archive, name) for name in ("title", "creators", "license", "digest")},
            }
        )
    else:
        rate = f"{report.nbytes / 1e6 / max(seconds, 1e-9):.1f} MB/s"
        verdict = Text(str(report.verdict), style=_STYLES[report.verdict])
        read = f": {report.entries:,} entries, {human_bytes(report.nbytes)} read in {seconds:.2f} s ({rate})"
        show(Text(f"{file} is ") + verdict + read)
        if archive is not None:
            show(f"archive {archive.title!r} by {', '.join(archive.creators)}, {archive.license}")
            show(f"digest {archive.digest}")
        for problems in (report.problems, report.repaired):
            if problems:
                show("")
                _print_problems(problems)
        if report.problems:
            say("intact entries stay usable; `gamwarm salvage FILE -o NEW` copies them to a new file")
    return _VERDICTS[report.verdict]


def _step(watch: Watch, browser: Browser) -> Callable[[int, int], bool]:
    """Return a progress callback that also shows MB/s, from the mean size of the file's entries."""
    totals = browser.totals()
    mean = totals.live_bytes / max(totals.entries, 1)
    return lambda done, total: watch.step(done, total, round(mean * done))


@command("salvage", "copy the intact entries of a damaged file to a new one")
def salvage(
    file: File,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NEW", help="the new file; must not exist", show_default=False)
    ],
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="without progress, after which an entry is skipped")
    ] = 60.0,
    as_json: Json = False,
) -> Exit:
    """Copy every entry that its digests confirm into a new file; FILE need not open any more, and
    is only read.

    Exit code 0: everything was reached; 1: some was not, and is listed; 7: nothing could be saved.
    """
    refuse_no_file(file)
    if os.path.lexists(output):
        raise BadUsage(f"{output}: exists already; salvage only creates new files. Give another path")
    report = None
    try:
        with waiting(f"reading {file} in a child process; Ctrl-C ends it"):
            report = salvage_file(file, output, time_limit)
    finally:
        if report is None or not report.copied:
            for path in (output, output.with_name(output.name + ".lock")):
                with suppress(FileNotFoundError):
                    path.unlink()
    if not report.copied:
        why = report.problems[0].reason if report.problems else "it holds no entries"
        raise StoreDamaged(f"{file}: nothing could be recovered ({why}); {output} was not created")
    if as_json:
        write_json({"copied": list(report.copied), "into": report.into, "problems": listed(report.problems)})
    else:
        show(f"{len(report.copied):,} entries recovered into {report.into}")
        if report.problems:
            show("")
            _print_problems(report.problems)
    return Exit.NO if report.problems else Exit.OK


@command("compact", "return the space of removed entries to the file system")
def compact(file: File, wait: Wait = 10.0, as_json: Json = False) -> Exit:
    """Rewrite the file without the space of removed entries. Needs room for both, for a while."""
    with changing(file, wait) as entries, waiting(f"compacting {file}; Ctrl-C leaves it unchanged"):
        report = maintenance.compact(entries)
    if as_json:
        write_json(
            {
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
                "entries": report.entries,
                "lost": listed(report.lost),
            }
        )
    else:
        back = report.bytes_freed
        change = f"{human_bytes(back)} returned" if back >= 0 else f"{human_bytes(-back)} more than before"
        show(
            f"{file}: {report.entries:,} entries, {human_bytes(report.bytes_before)} -> "
            f"{human_bytes(report.bytes_after)} ({change})"
        )
        if report.lost:
            _print_problems(report.lost)
    return Exit.NO if report.lost else Exit.OK


@command("evict", "remove the oldest entries")
def evict(
    file: File,
    size: Annotated[
        str | None, typer.Option("--size", metavar="BYTES", help="payload that may stay: 200MB, 2GB")
    ] = None,
    age: Annotated[str | None, typer.Option("--max-age", metavar="AGE", help="older entries go: 12h, 30d, 8w")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="only list what would be removed")] = False,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> Exit:
    """Remove the oldest entries. Pinned ones and parents of unfinished fits stay.

    The space is free for new entries at once; `gamwarm compact` gives it back to the disk.
    """
    if size is None and age is None:
        raise BadUsage("say what to keep: --size 2GB, --max-age 30d, or both")
    budget, seconds = None if size is None else parse_bytes(size), None if age is None else parse_age(age)
    if dry_run:
        with looking_into(file) as (entries, _):
            report = maintenance.evict(entries, budget, seconds, dry_run=True)
    else:
        with changing(file, wait) as entries:
            report = maintenance.evict(entries, budget, seconds)
    if as_json:
        write_json(
            {
                "dry_run": report.dry_run,
                "evicted": [vars(entry) for entry in report.evicted],
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
            }
        )
        return Exit.OK
    if dry_run and report.evicted:
        show(table(columns("KEY", "IN", "ENTRY ID", "SIZE>"), [_row(entry) for entry in report.evicted]))
    did = "would be removed" if dry_run else "removed"
    show(
        f"{len(report.evicted):,} entries {did}, oldest first; payload {human_bytes(report.bytes_before)} -> "
        f"{human_bytes(report.bytes_after)}"
    )
    return Exit.OK


def _row(entry: Evicted) -> list[str]:
    _, section, key = entry.place.split("/")[:3]
    return [key[:SHORT], section, entry.entry_id, human_bytes(entry.nbytes)]


@command("pin", "protect an entry from eviction")
def pin(
    file: File,
    key: Key,
    off: Annotated[bool, typer.Option("--off", help="unpin it")] = False,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> Exit:
    """Keep an entry from eviction, for example the parent of a campaign."""
    with looking_into(file) as (_, browser):
        target = resolve(browser, key)
        ids = [seen.entry_id for seen in target.entries(browser) if seen.entry_id]
        if len(ids) != 1:
            names = ", ".join(each[:SHORT] for each in ids) or "none that can be read"
            raise NoSuchKey(f"{key} has {len(ids)} entries ({names}); give the entry id of one")
    with changing(file, wait) as entries:
        there = entries.pin(ids[0], pinned=not off)
    if not there:
        raise NoSuchKey(f"{ids[0]}: the entry was removed before it could be pinned")
    if as_json:
        write_json({"entry_id": ids[0], "pinned": not off})
    else:
        show(f"{ids[0]} {'is no longer pinned' if off else 'is pinned and protected from eviction'}")
    return Exit.OK


@command("merge", "copy the entries of other files into a file")
def merge(
    file: File,
    others: Annotated[
        list[Path], typer.Argument(metavar="OTHER", help="files to copy from; not changed", show_default=False)
    ],
    create: Annotated[bool, typer.Option("--create", help="make FILE if it is not there")] = False,
    wait: Wait = 10.0,
    as_json: Json = False,
) -> Exit:
    """Take over the entries of other files, in any order and as often as you like. One transaction
    per file.

    All of them are opened before the first is merged: a missing or foreign one stops it with
    nothing changed.
    """
    for other in others:
        with looking_into(other):
            pass
    if create and status_of(file) is None:
        EntryStore(file, mode="a", lock_timeout=wait).close()
    with changing(file, wait) as entries, waiting(f"merging into {file}; Ctrl-C skips the current file"):
        reports = [(other, maintenance.merge(entries, other)) for other in others]
    if as_json:
        write_json(
            [
                {
                    "file": str(other),
                    "added": list(report.added),
                    "seen": report.seen,
                    "superseded": report.superseded,
                    "problems": listed(report.problems),
                    "reason": report.reason or None,
                }
                for other, report in reports
            ]
        )
    else:
        rows = [
            [str(o), f"{r.seen:,}", f"{len(r.added):,}", f"{r.superseded:,}", f"{len(r.problems):,}"]
            for o, r in reports
        ]
        show(table(columns("MERGED", "ENTRIES>", "NEW>", "SUPERSEDED>", "DAMAGED>"), rows))
        for other, report in reports:
            if report.reason:
                say(f"{other}: {report.reason}")
            if report.problems:
                _print_problems(report.problems)
    return Exit.NO if any(report.problems for _, report in reports) else Exit.OK
