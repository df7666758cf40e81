"""A file in which every criterion of a selection tells entries apart, and what a selection means,
said once more.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import gamwarm
from gamwarm import BlockRecord
from gamwarm.entries import ARTIFACTS, RECORDS, Browser, Selection
from tests.support.stores import artifact_of, carrier_fit, plain_fit, record_of, result_of

__all__ = ["expected", "facts_of", "varied_file"]


def varied_file(path: Path) -> None:
    """Make a file of fits of two families, of entries put by hand, and of a record whose artifact
    is missing.
    """
    for engine_version, job in (("1", "4711"), ("2", "4712")):
        with gamwarm.open(path, engine="by hand", engine_version=engine_version, on_error="raise") as store:
            for problem in (plain_fit(int(engine_version)), carrier_fit(engine_version=engine_version)):
                with store.fit(problem, attributes={"job": job, "host": f"node{engine_version}"}) as fit:
                    fit.keep(result_of(problem))
            unfinished = plain_fit(6 + int(engine_version), engine_version=engine_version)
            assert store.keep(unfinished, result_of(unfinished, converged=False)).artifact.entry_id is None
            store.put_record(record_of(int(engine_version), attributes={"job": job}))
            store.put_artifact(artifact_of(f"s(x{engine_version})"))


def facts_of(path: Path) -> list[dict[str, Any]]:
    """Return what the entries themselves say, decoded one by one."""
    families = {problem.key: "tests.plain" for problem in (plain_fit(1), plain_fit(2), plain_fit(7), plain_fit(8))}
    families |= {carrier_fit().key: "tests.carrier"}
    facts = []
    with gamwarm.open(path, "r") as store:
        browser = Browser(store._file)
        for seen in [*browser.walk(RECORDS), *browser.walk(ARTIFACTS)]:
            entry: Any = seen.entry
            assert entry is not None
            is_record = isinstance(entry, BlockRecord)
            producer = entry.producer
            facts.append(
                {
                    "id": seen.entry_id,
                    "names": [seen.entry_id, entry.key if is_record else entry.descriptor.key],
                    "kinds": [str(entry.kind) if is_record else "artifact"],
                    "families": [families.get(entry.key) if is_record else entry.descriptor.family_kind],
                    "blocks": list(entry.block_names) if is_record else [term.name for term in entry.terms],
                    "producers": [
                        producer.engine,
                        f"{producer.engine} {producer.engine_version}",
                        f"gamwarm {producer.gamwarm_version}",
                    ],
                    "jobs": [entry.attributes.get("job")],
                    "attributes": dict(entry.attributes),
                    "created": entry.created,
                }
            )
    return facts


def expected(facts: list[dict[str, Any]], selection: Selection) -> set[str]:
    """Return the ids of the entries that meet every criterion in one of its values."""

    def meets(each: dict[str, Any]) -> bool:
        for criterion in ("kinds", "families", "blocks", "producers", "jobs"):
            patterns, values = getattr(selection, criterion), [value for value in each[criterion] if value]
            if patterns and not any(fnmatchcase(value, pattern) for value in values for pattern in patterns):
                return False
        for name, pattern in selection.attributes:
            if name not in each["attributes"] or not fnmatchcase(str(each["attributes"][name]), pattern):
                return False
        for key in selection.keys:
            if any(name.startswith((key, f"cf-{key}")) for name in each["names"]):
                break
        else:
            if selection.keys:
                return False
        after = selection.since is None or each["created"] >= selection.since
        return after and (selection.until is None or each["created"] < selection.until)

    return {each["id"] for each in facts if meets(each)}
