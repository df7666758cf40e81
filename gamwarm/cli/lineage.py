"""``lineage`` and ``explain``: what a fit started from, and how two fits differ."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from rich.tree import Tree

from gamwarm.cli.exit_codes import Exit
from gamwarm.cli.keys import SHORT, looking_into, resolve
from gamwarm.cli.options import File, Json, Key, command
from gamwarm.cli.output import followed, human_number, moment, page_width, show, write_json
from gamwarm.display import counted, few, visible, wrapped
from gamwarm.entries import ARTIFACTS, KINDS, RECORDS, Browser, EntrySummary, Target
from gamwarm.errors import NoSuchKey
from gamwarm.records import GROUP, BlockRecord, RecordKind
from gamwarm.store import Difference, compare_records

__all__ = ["explain", "lineage"]

EXACT_KEY_LENGTH: Final = 67
DEEPEST: Final = 1000


@dataclass
class _Fit:
    """One fit as its lineage shows it: its record or, if that was removed, its artifact."""

    key: str
    summary: EntrySummary
    ids: set[str] = field(default_factory=set)

    @property
    def parent(self) -> str | None:
        return self.summary.parent


class _Family:
    """Who started from whom, by one walk over the file."""

    def __init__(self, browser: Browser) -> None:
        self.fits: dict[str, _Fit] = {}
        self._fit_of: dict[str, str] = {}
        self._children: dict[str, set[str]] = defaultdict(set)
        total = browser.totals().entries
        walk = (seen for section in KINDS for seen in browser.walk(section, decoded=False))
        for seen in followed(walk, "reading lineage", total):
            if seen.problem or seen.summary is None:
                continue
            key = seen.summary.fit_key or seen.key
            fit = self.fits.setdefault(key, _Fit(key, seen.summary))
            fit.ids.add(seen.entry_id)
            self._fit_of[seen.entry_id] = key
        for fit in self.fits.values():
            # A search that continued from its own checkpoint has the checkpoint's start.
            if fit.parent is not None and self._fit_of.get(fit.parent) != fit.key:
                self._children[fit.parent].add(fit.key)

    def parent(self, fit: _Fit) -> _Fit | None:
        """Return the fit that this one started from; None: cold, unknown, or no longer there."""
        key = None if fit.parent is None else self._fit_of.get(fit.parent)
        return None if key is None or key == fit.key else self.fits[key]

    def children(self, fit: _Fit) -> list[_Fit]:
        """Return the fits that started from this one, oldest first."""
        keys = {key for entry_id in fit.ids for key in self._children.get(entry_id, ())}
        return sorted((self.fits[key] for key in keys), key=lambda child: (child.summary.created, child.key))

    def ancestors(self, fit: _Fit) -> list[_Fit]:
        """Return the fits above, the first of all first."""
        found: list[_Fit] = []
        at: _Fit | None = self.parent(fit)
        while at is not None and len(found) < DEEPEST and all(at.key != known.key for known in [fit, *found]):
            found.insert(0, at)
            at = self.parent(at)
        return found


@command("lineage", "show the tree of starts")
def lineage(
    file: File,
    key: Key,
    most: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="fits to show below one fit")] = 50,
    as_json: Json = False,
) -> Exit:
    """Draw the ancestors and descendants of a fit."""
    with looking_into(file) as (_, browser):
        target = resolve(browser, key)
        entries = target.entries(browser)
        family = _Family(browser)
    keys = {seen.summary.fit_key or seen.key for seen in entries if seen.summary and not seen.problem}
    fits = sorted((family.fits[each] for each in keys if each in family.fits), key=lambda fit: fit.summary.created)
    if not fits:
        raise NoSuchKey(f"{key}: the entry is damaged, so its lineage is unknown; `gamwarm show` says what is wrong")
    if as_json:
        write_json([_lineage_json(family, fit, set()) for fit in fits])
        return Exit.OK
    for fit in fits:
        if any(above.key in keys for above in family.ancestors(fit)):
            continue  # the tree of that one shows it
        show(_drawn(family, fit, most))
    return Exit.OK


def _drawn(family: _Family, fit: _Fit, most: int) -> Tree:
    above = family.ancestors(fit)
    top = (above or [fit])[0]
    tree = at = Tree(_label(family, top, marked=not above))
    for ancestor, below in pairwise([*above, fit]):
        others = len(family.children(ancestor)) - 1
        parent, at = at, at.add(_label(family, below, marked=below is fit))
        if others:
            parent.add(Text(f"and {others:,} other{'s' if others > 1 else ''}", style="dim"))
    _add_below(family, fit, at, most, {each.key for each in [*above, fit]})
    return tree


def _add_below(family: _Family, fit: _Fit, at: Tree, most: int, known: set[str]) -> None:
    children = [child for child in family.children(fit) if child.key not in known]
    for child in children[:most]:
        _add_below(family, child, at.add(_label(family, child)), most, known | {child.key})
    if len(children) > most:
        at.add(Text(f"and {len(children) - most:,} more", style="dim"))


def _label(family: _Family, fit: _Fit, *, marked: bool = False) -> Text:
    """Return one line; what matters least is at its end, where a narrow terminal cuts it."""
    said = fit.summary
    facts = [
        *([said.label] if said.label else []),
        _how(family, fit) + ("" if said.kind == "final" else f" ({said.kind})"),
        *([] if said.cost is None else [said.cost.work.replace("Hessian formation", "Hessian")]),
        f"{said.n_rows:,} rows",
        f"objective {human_number(said.objective)}",
        moment(said.created),
    ]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(fit.key[:SHORT], style="bold cyan" if marked else "cyan")
    return text.append("  " + ", ".join(facts), style="bold" if marked else "")


def _how(family: _Family, fit: _Fit) -> str:
    if fit.parent is None:
        return fit.summary.source or "unknown start"
    if family._fit_of.get(fit.parent) == fit.key:
        return "resumed its own checkpoint"
    gone = "" if family.parent(fit) is not None else f" from {fit.parent[:SHORT]}, which is not in this file"
    return f"{fit.summary.source}{gone}"


def _lineage_json(family: _Family, fit: _Fit, known: set[str]) -> dict[str, Any]:
    known = known | {fit.key}
    return {
        "key": fit.key,
        "entry_ids": sorted(fit.ids),
        "label": fit.summary.label,
        "attributes": dict(fit.summary.attributes),
        "kind": fit.summary.kind,
        "created": fit.summary.created,
        "n_rows": fit.summary.n_rows,
        "objective": fit.summary.objective,
        "source": fit.summary.source,
        "parent": fit.parent,
        "ancestors": [ancestor.key for ancestor in family.ancestors(fit)],
        "children": [_lineage_json(family, child, known) for child in family.children(fit) if child.key not in known],
    }


# -- explain ---------------------------------------------------------------------------------------


@command("explain", "what distinguishes a fit from others, or why it missed")
def explain(
    file: File,
    key: Key,
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="compare with this fit", show_default=False)
    ] = None,
    nearest: Annotated[int, typer.Option("--nearest", metavar="N", min=1, help="fits to compare with")] = 3,
    as_json: Json = False,
) -> Exit:
    """Say what distinguishes a stored fit from another, or from the most similar fits.

    A fit that missed and was then kept is in the file: give its key, and the nearest other fits say
    which design, penalty or option made it another one. A key that is not in the file says nothing
    about its fit, since it is a digest; in Python, store.explain(problem) compares a fit that was
    never kept.
    """
    with looking_into(file) as (_, browser):
        one = _record(browser, key)
        if other is not None:
            compared = [(two, compare_records(one, two)) for two in [_record(browser, other)]]
        else:
            compared = _nearest(browser, one, nearest)
    if as_json:
        write_json(
            {
                "key": one.key,
                "compared": [
                    {
                        "key": two.key,
                        "same_model": None if found is None else not found or _is_same_model(one, two, found),
                        "differences": None if found is None else [_difference_json(d) for d in found],
                    }
                    for two, found in compared
                ],
            }
        )
        return Exit.OK
    if not compared:
        show(f"{one.key[:SHORT]}: the file holds no other fit with stored components")
    for two, found in compared:
        if found is None:
            which = one if one.components is None else two
            show(f"{which.key[:SHORT]} has no stored components: it was put directly, not by keep")
            continue
        pair = Text.assemble((one.key[:SHORT], "cyan"), " and ", (two.key[:SHORT], "cyan"), ": ")
        if _is_same_model(one, two, found):
            show(wrapped([pair.plain + _same_model(one, two)], page_width()))
            continue
        show(pair + (counted(len(found), "difference") if found else "the same components"))
        for difference in found:
            show(f"  {difference}")
    return Exit.OK


_OF_ROWS: Final = frozenset({"design", "offset", "family fingerprint"})
_OF_COLUMNS: Final = _OF_ROWS | {"penalty", "null-space dims"}


def _is_same_model(one: BlockRecord, two: BlockRecord, found: Sequence[Difference]) -> bool:
    """Whether only rows and response differ: designs, and what the family has of each row.

    A factor may have lost levels with the rows: then its penalty is another one, too.
    """
    widths = dict(zip(one.block_names, one.block_dims, strict=True)).items()
    same = {name for name, _ in widths & dict(zip(two.block_names, two.block_dims, strict=True)).items()}
    what = {each.what for each in found}
    other_rows = one.n_rows != two.n_rows or "family fingerprint" in what
    return (
        other_rows
        and "design" in what
        and all(each.what in (_OF_ROWS if each.block in same else _OF_COLUMNS) for each in found)
    )


def _same_model(one: BlockRecord, two: BlockRecord) -> str:
    """Say in one line how two fits of one model differ."""
    text = f"the same model on other rows, {_rows_of(one)} and {_rows_of(two)}"
    there = dict(zip(two.block_names, two.block_dims, strict=True))
    widths = [
        f"{visible(name)} with {width:,} and {there[name]:,} columns"
        for name, width in zip(one.block_names, one.block_dims, strict=True)
        if there[name] != width
    ]
    return text + (f"; {few(widths, 2)}" if widths else "")


def _rows_of(record: BlockRecord) -> str:
    group = record.attributes.get(GROUP)
    return f"{record.n_rows:,}" + ("" if group is None else f" (without {visible(str(group))})")


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {"text": str(difference)} | {name: getattr(difference, name) for name in ("what", "block", "name", "number")}


def _record(browser: Browser, key: str) -> BlockRecord:
    """Return the record of a key: its newest final, else its checkpoint."""
    try:
        target = resolve(browser, key)
    except NoSuchKey as error:
        if len(key) == EXACT_KEY_LENGTH and key.startswith("cf-"):
            raise NoSuchKey(_about_missing(browser, key)) from error
        raise
    if target.section == ARTIFACTS:
        fits = {seen.summary.fit_key for seen in target.entries(browser) if seen.summary and seen.summary.fit_key}
        if len(fits) != 1:
            names = sorted(fits)
            listed = few(names) or "none that can be read"
            raise NoSuchKey(
                f"{key} names artifacts of {len(names)} fits: {listed}; give the exact key of one", candidates=names
            )
        target = Target(RECORDS, fits.pop())
    records = [seen.entry for seen in target.entries(browser) if isinstance(seen.entry, BlockRecord)]
    if not records:
        raise NoSuchKey(_about_missing(browser, target.key))
    return min(records, key=lambda record: (record.kind != RecordKind.FINAL, -(record.created or 0)))


def _about_missing(browser: Browser, key: str) -> str:
    """Say all that can be said of a fit whose record is not there."""
    walk = browser.walk(ARTIFACTS, decoded=False)
    for seen in followed(walk, "seeking an artifact of that fit", browser.totals().entries):
        if seen.summary is not None and seen.summary.fit_key == key:
            return (
                f"{key[:SHORT]}: its record is not in the file (evicted, damaged, or refused by a gate), but its "
                f"artifact {seen.entry_id[:SHORT]} is: related fits would start from it, and so would this one"
            )
    return (
        f"{key[:SHORT]}: no record of this fit is in the file, and a key, being a digest, does not say how the fit "
        "was described. In Python store.explain(problem) compares it with the stored fits; once it is stored, so "
        "does `gamwarm explain`"
    )


def _nearest(browser: Browser, one: BlockRecord, count: int) -> list[tuple[BlockRecord, list[Difference] | None]]:
    if one.components is None:
        return [(one, None)]

    def others() -> Iterator[tuple[int, int, str, BlockRecord, list[Difference]]]:
        for seen in followed(browser.walk(RECORDS), "comparing", browser.totals().exact_keys):
            record = seen.entry
            if not isinstance(record, BlockRecord) or record.key == one.key:
                continue
            found = compare_records(one, record)
            if found is not None:
                yield len(found), -seen.created, seen.path, record, found

    best: Sequence[tuple[int, int, str, BlockRecord, list[Difference]]]
    best = heapq.nsmallest(count, others(), key=lambda each: each[:3])
    return [(record, found) for _, _, _, record, found in best]
