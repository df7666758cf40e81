"""Which entries of a store an archive takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from gamwarm.checks import items, plain_string, truth
from gamwarm.display import told
from gamwarm.entries import EntrySummary
from gamwarm.errors import InvalidInput, InvalidKey

__all__ = ["Selection", "choose", "families_of"]

KINDS = ("final", "checkpoint", "artifact")


@dataclass(frozen=True)
class Selection:
    """Which entries to take: those that meet every criterion that is given, in any one of its values.

    Parameters
    ----------
    keys : sequence of str
        Exact keys, descriptor keys or entry ids; a beginning that means one of them is enough.
    families : sequence of str
        Family kinds. A record is of the family of the artifact of the same fit.
    blocks : sequence of str
        Names of blocks or terms.
    kinds : sequence of {"final", "checkpoint", "artifact"}
    producers : sequence of str
        An engine, or an engine and its version: ``"gamwarm-reference 1"``.
    lineage : bool
        Take also what the chosen entries started from, and what that started from.
    """

    keys: Sequence[str] = ()
    families: Sequence[str] = ()
    blocks: Sequence[str] = ()
    kinds: Sequence[str] = ()
    producers: Sequence[str] = ()
    lineage: bool = True

    def __post_init__(self) -> None:
        for each in fields(self)[:-1]:
            value = getattr(self, each.name)
            if isinstance(value, str):
                raise InvalidInput(f"selection {each.name} is the string {told(value)}; give a list of strings")
            words = tuple(plain_string(v, f"selection {each.name}") for v in items(value, f"selection {each.name}"))
            object.__setattr__(self, each.name, words)
        object.__setattr__(self, "lineage", truth(self.lineage, "selection lineage"))
        for kind in self.kinds:
            if kind not in KINDS:
                raise InvalidInput(f"selection kind {told(kind)}; use one of {', '.join(KINDS)}")


def choose(summaries: Sequence[EntrySummary], selection: Selection) -> tuple[list[EntrySummary], tuple[str, ...]]:
    """Return the chosen entries in the order of the file, and the parents that the file does not hold.

    Raises
    ------
    InvalidKey
        A key that is not there, or a beginning of several.
    """
    meant = {key for short in selection.keys for key in _resolve(summaries, short)}
    family = families_of(summaries)
    chosen = [entry for entry in summaries if _meets(entry, selection, meant, family)]
    if not selection.lineage:
        return chosen, ()
    by_id: dict[str, list[EntrySummary]] = {}
    for entry in summaries:
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
    return [entry for entry in summaries if entry.entry_id in taken], tuple(sorted(absent))


def families_of(summaries: Iterable[EntrySummary]) -> dict[str, str]:
    """Return the family kind of every exact key whose fit has an artifact."""
    return {each.fit_key: each.family for each in summaries if each.family is not None and each.fit_key is not None}


def _meets(entry: EntrySummary, selection: Selection, meant: set[str], family: dict[str, str]) -> bool:
    names = {entry.producer.engine, entry.producer.build}
    own_family = entry.family if entry.family is not None else family.get(entry.fit_key or "")
    return (
        (not selection.keys or entry.key in meant or entry.entry_id in meant)
        and (not selection.families or own_family in selection.families)
        and (not selection.blocks or not set(selection.blocks).isdisjoint(entry.blocks))
        and (not selection.kinds or entry.kind in selection.kinds)
        and (not selection.producers or not names.isdisjoint(selection.producers))
    )


def _resolve(summaries: Sequence[EntrySummary], short: str) -> set[str]:
    """Return what a key or the beginning of one means: exactly one key or entry id."""
    names = {name for entry in summaries for name in (entry.key, entry.entry_id)}
    found = {short} & names or {n for n in names if n.startswith((short, f"cf-{short}"))}
    if len(found) == 1:
        return found
    if not found:
        raise InvalidKey(f"{told(short)} is no key or entry id of the file, nor the beginning of one; list its keys")
    some = ", ".join(sorted(found)[:4])
    raise InvalidKey(f"{told(short)} is the beginning of {len(found)} keys and entry ids ({some} …); give more digits")
