"""Questions that `scripts/_bootstrap` asks about an environment. Standard library and pip only: it
runs before set-up.

``fingerprint ROOT``
    print a digest of what decides the installed set: build and metadata tables, setup.cfg, version,
    Python, folder
``damage``
    print the first file that an installed package lacks, or nothing
``missing ROOT EXTRA``
    print the first requirement of ``gamwarm[EXTRA]`` that is not installed, or nothing
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any


def fingerprint(root: Path) -> str:
    """Return the digest of everything that decides what has to be installed (not of the tools'
    settings).
    """
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    parts = {
        "build": settings["build-system"],
        "project": settings["project"],
        "setuptools": settings["tool"]["setuptools"],
        "setup.cfg": (root / "setup.cfg").read_text(),
        "version": (root / "gamwarm" / "version.py").read_text(),
        "python": [sys.version, sys.base_prefix, sysconfig.get_platform()],
        "root": str(root),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def damage() -> str:
    """Return the first installed file that is not there or not whole, by its package's own list; ""
    if all are.
    """
    site = Path(sysconfig.get_path("purelib"))
    for info in sorted(site.glob("*.dist-info")):
        record = info / "RECORD"
        if not record.is_file():
            return str(record)
        with record.open(newline="") as rows:
            for name, _, size in csv.reader(rows):
                if name.endswith(".pyc"):
                    continue
                try:
                    length = (site / name).stat().st_size
                except OSError:
                    return str(site / name)
                if size and length != int(size):
                    return str(site / name)
    return ""


def missing(root: Path, extra: str) -> str:
    """Return the first requirement of ``gamwarm[extra]``, direct or not, that is not met; "" if
    none.
    """
    from pip._vendor.packaging.requirements import Requirement  # noqa: PLC0415 - pip is in every environment made here

    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    todo = [f"gamwarm[{extra}]"]
    seen: set[str] = set()
    while todo:
        text = todo.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        try:
            found = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            return text
        if not requirement.specifier.contains(found.version, prereleases=True):
            return text
        if requirement.name == "gamwarm":  # the installed metadata may be older than pyproject.toml
            todo += project["dependencies"]
            todo += [line for name in requirement.extras for line in project["optional-dependencies"][name]]
            continue
        for line in found.requires or ():
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate({"extra": name}) for name in ("", *requirement.extras)):
                todo.append(line)
    return ""


def main(arguments: list[str]) -> None:
    match arguments:
        case ["fingerprint", root]:
            print(fingerprint(Path(root)))
        case ["damage"]:
            print(damage())
        case ["missing", root, extra]:
            print(missing(Path(root), extra))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
