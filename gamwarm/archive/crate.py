"""RO-Crate 1.1 metadata of an archive: JSON-LD that repositories and catalogues read.

Written here and not by a library, because the same content must give the same bytes whatever is
installed; the tests read it with the ``rocrate`` package.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gamwarm.checks import as_str
from gamwarm.display import json_text
from gamwarm.entries import EntrySummary
from gamwarm.errors import InvalidInput

__all__ = ["CRATE_NAME", "About", "Creator", "about_archive", "crate_text", "reference_to"]

CRATE_NAME = "ro-crate-metadata.json"
_ORCID = re.compile(r"(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])")
_OF_ADDRESSES = "!#$%&'()*+,/:;=?@[]"
_NAMED = re.compile(r"(?P<name>[^<>]+?)\s*<(?P<orcid>[^<>]+)>")

Entity = dict[str, Any]


@dataclass(frozen=True)
class Creator:
    """Who made what an archive holds.

    Parameters
    ----------
    name : str
    orcid : str, optional
        ``0000-0002-1825-0097``, or the same as an address of orcid.org.
    """

    name: str
    orcid: str | None = None

    def __post_init__(self) -> None:
        as_str(self.name, "creator name")
        if self.orcid is not None:
            match = _ORCID.fullmatch(as_str(self.orcid, "creator orcid"))
            if match is None:
                raise InvalidInput(
                    f"creator {self.name!r}: {self.orcid!r} is not an ORCID iD; write 0000-0002-1825-0097"
                )
            object.__setattr__(self, "orcid", match[1])

    @classmethod
    def of(cls, who: str | Creator) -> Creator:
        """Return a creator from ``"Name"`` or ``"Name <ORCID iD>"``."""
        if isinstance(who, Creator):
            return who
        match = _NAMED.fullmatch(as_str(who, "creator").strip())
        return cls(match["name"], match["orcid"]) if match else cls(who.strip())


@dataclass(frozen=True)
class About:
    """What the user says of an archive, checked."""

    title: str
    creators: tuple[Creator, ...]
    license: str
    description: str


def about_archive(
    title: str, creators: str | Creator | Iterable[str | Creator], licence: str, description: str
) -> About:
    """Check the description of an archive.

    Raises
    ------
    InvalidInput
        No title, no creator or no licence: an archive that outlives its author's account must say
        all three.
    """
    people = [creators] if isinstance(creators, (str, Creator)) else list(creators)
    checked = tuple(Creator.of(who) for who in people)
    if not checked:
        raise InvalidInput("an archive names at least one creator; pass creators=['Name <ORCID iD>']")
    words = {"title": title, "license": licence}
    for name, value in words.items():
        if not as_str(value, f"archive {name}", empty=True).strip():
            raise InvalidInput(f"an archive has a {name}; pass {name}=…")
    return About(title.strip(), checked, licence.strip(), as_str(description, "archive description", empty=True))


def crate_text(about: About, entries: Sequence[EntrySummary], file: Entity | None = None) -> str:
    """Return the metadata as JSON text.

    Parameters
    ----------
    about : About
    entries : sequence of EntrySummary
        What the archive holds.
    file : dict, optional
        The archive itself as a file of the crate; None inside the archive, which does not know its
        own name.
    """
    licence = _licence(about.license)
    known = {who.orcid or who.name: who for who in reversed(about.creators)}  # one entity a person
    people = [_person(n, known[each]) for n, each in enumerate(reversed(known), 1)]
    software = _software(entries)
    counts = Counter(entry.kind for entry in entries)
    held = f"{counts.pop('final', 0)} final records, {counts.pop('checkpoint', 0)} checkpoints"
    held += f" and {counts.pop('artifact', 0)} artifacts" + "".join(
        f", {n} of kind {kind}" for kind, n in counts.items()
    )
    latest = max((entry.created for entry in entries), default=0)
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": about.title,
        "description": about.description or f"Results of penalized-likelihood fits stored by gamwarm: {held}.",
        "datePublished": datetime.fromtimestamp(latest // 1_000_000, UTC).isoformat(),
        "license": _id(licence),
        "creator": [_id(person) for person in people],
        "hasPart": [] if file is None else [_id(file)],
        "mentions": [_id(each) for each in software],
        "keywords": ["gamwarm", "GAM", "penalized likelihood", "warm start"],
    }
    descriptor = {
        "@id": CRATE_NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    graph = [descriptor, root, *([] if file is None else [file]), *people, licence, *software]
    crate = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
    return json_text(crate, indent=2, sort_keys=True) + "\n"


def reference_to(file_name: str) -> str:
    """Return the URI reference of a file that lies beside the metadata (RFC 3986).

    A colon is escaped too: before the first slash it would end the name of a scheme.
    """
    return quote(os.fsencode(file_name), safe="!$&'()*+,;=@")


def _id(entity: Entity) -> Entity:
    return {"@id": entity["@id"]}


def _person(number: int, who: Creator) -> Entity:
    where = f"#creator-{number}" if who.orcid is None else f"https://orcid.org/{who.orcid}"
    return {"@id": where, "@type": "Person", "name": who.name}


def _licence(name: str) -> Entity:
    """Return a licence given as an address or by its SPDX name."""
    if re.match(r"https?://", name):
        return {"@id": quote(name, safe=_OF_ADDRESSES), "@type": "CreativeWork", "name": name}
    if re.fullmatch(r"[A-Za-z0-9.+-]+", name):
        return {"@id": f"https://spdx.org/licenses/{name}", "@type": "CreativeWork", "name": name}
    return {"@id": "#license", "@type": "CreativeWork", "name": name}


def _software(entries: Sequence[EntrySummary]) -> list[Entity]:
    makers = {entry.producer for entry in entries}
    builds = {(maker.engine, maker.engine_version) for maker in makers if maker.engine}
    builds |= {("gamwarm", maker.gamwarm_version) for maker in makers if maker.gamwarm_version}
    return [
        {"@id": f"#software-{n}", "@type": "SoftwareApplication", "name": name, "softwareVersion": version}
        for n, (name, version) in enumerate(sorted(builds), 1)
    ]
