"""Which entries a listing is about: by kind, family, block, producer, date, job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final

from gamwarm.cli.exit_codes import BadUsage
from gamwarm.entries import ARTIFACTS, Browser, Seen
from gamwarm.errors import InvalidInput
from gamwarm.identity import Fingerprinter, Label, component_labels
from gamwarm.records import BlockRecord, FitArtifact

__all__ = ["KINDS", "Families", "Selection", "parse_age", "parse_bytes", "parse_moment"]

KINDS: Final = ("final", "checkpoint", "artifact")
SAMPLED_ARTIFACTS: Final = 32
"""Artifacts that are looked at for the names of the families that a file holds."""
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS: Final = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


_LONGEST: Final = 1e12
"""Seconds; no entry is older."""
_LARGEST: Final = 1e18
"""Bytes; no file is larger."""


def parse_age(text: str) -> float:
    """Return the seconds of ``90s``, ``15min``, ``12h``, ``30d`` or ``8w``."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise BadUsage(f"{text!r} is no age; write 90s, 15min, 12h, 30d or 8w")
    return min(float(match[1]) * _SECONDS[match[2]], _LONGEST)


def parse_bytes(text: str) -> int:
    """Return the bytes of ``500000``, ``200MB`` or ``1.5GiB``."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise BadUsage(f"{text!r} is no size; write bytes, or 200MB, 2GB, 1.5GiB")
    return round(min(float(match[1]) * _UNITS[(match[2] or "B").lower()], _LARGEST))


def parse_moment(text: str) -> int:
    """Return UTC microseconds of a date, a date and time (UTC unless it says otherwise), or an age ago."""
    if _AGE.fullmatch(text.strip()):
        return max(0, round((datetime.now(UTC).timestamp() - parse_age(text)) * 1e6))
    try:
        then = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadUsage(f"{text!r} is no date; write 2026-11-25, 2026-11-25T14:30, or an age: 12h, 30d") from None
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return round(then.timestamp() * 1e6)


def family_digest(kind: str) -> int:
    """Return what records keep of their family kind."""
    fingerprint = Fingerprinter()
    fingerprint.write_str(kind)
    return int.from_bytes(bytes.fromhex(fingerprint.hexdigest())[:8], "little", signed=True)


class Families:
    """The family of an entry. Artifacts name theirs; records keep a digest, which the names met give a meaning."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {family_digest(name): name for name in names}

    @classmethod
    def of(cls, browser: Browser, *more: str) -> Families:
        """Take the names that the first artifacts of a file bear, and ``more``."""
        families = cls(more)
        for seen in islice(browser.walk(ARTIFACTS, decoded=False), SAMPLED_ARTIFACTS):
            families.name(seen)
        return families

    def name(self, seen: Seen) -> str:
        """Return the family kind of an entry; empty if nothing tells."""
        if seen.summary is not None and seen.summary.family is not None:
            self._names.setdefault(family_digest(seen.summary.family), seen.summary.family)
            return seen.summary.family
        record = seen.entry
        if not isinstance(record, BlockRecord) or record.components is None:
            return ""
        try:
            digest = component_labels(record.components, record.block_names)[Label("family kind")]
        except InvalidInput:
            return ""
        return self._names.get(digest, "")


@dataclass(frozen=True)
class Selection:
    """Conditions that an entry meets, all of them. Names may hold ``*`` and ``?``."""

    kinds: Sequence[str] = ()
    families: Sequence[str] = ()
    blocks: Sequence[str] = ()
    producers: Sequence[str] = ()
    jobs: Sequence[str] = ()
    attributes: Sequence[tuple[str, str]] = ()
    since: int | None = None
    until: int | None = None
    damaged: bool = False
    usable: bool = False
    named: Families = field(default_factory=Families)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise BadUsage(f"kind {kind!r}; use {', '.join(KINDS)}")

    @property
    def is_all(self) -> bool:
        """Whether every entry is meant."""
        return not (
            any((self.kinds, self.families, self.blocks, self.producers, self.jobs, self.attributes))
            or self.damaged
            or self.usable
            or self.since is not None
            or self.until is not None
        )

    def sections(self) -> tuple[bool, bool]:
        """Return whether records, and whether artifacts, can be meant."""
        return not self.kinds or set(self.kinds) != {"artifact"}, not self.kinds or "artifact" in self.kinds

    def takes(self, seen: Seen) -> bool:
        """Whether an entry is meant. Of one that cannot be read, nothing but its kind and its damage is known."""
        if self.damaged and not seen.problem:
            return False
        if self.usable and not is_valid(seen):
            return False
        if self.kinds and seen.kind not in self.kinds:
            return False
        if self.since is not None and seen.created < self.since:
            return False
        if self.until is not None and not 0 < seen.created < self.until:
            return False
        attributes = {} if seen.summary is None else seen.summary.attributes
        return (
            _any(self.families, [self.named.name(seen)] if self.families else [])
            and _any(self.blocks, seen.blocks)
            and _any(self.producers, producers_of(seen))
            and _any(self.jobs, [str(attributes.get("job", ""))])
            and all(name in attributes and fnmatchcase(str(attributes[name]), value) for name, value in self.attributes)
        )


def is_valid(seen: Seen) -> bool:
    """Whether a look-up would be served this entry: whole, and an artifact that may be a parent."""
    if seen.problem or seen.entry is None:
        return False
    return not isinstance(seen.entry, FitArtifact) or seen.entry.is_usable


def producers_of(seen: Seen) -> list[str]:
    """Return how an entry's build may be called: engine, ``engine version``, ``gamwarm version``."""
    if seen.summary is None:
        return []
    producer = seen.summary.producer
    return [producer.engine, producer.build, f"gamwarm {producer.gamwarm_version}".strip()]


def _any(patterns: Sequence[str], values: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for value in values for pattern in patterns)
