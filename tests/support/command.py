"""Running the command in this process, and a small file of related fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gamwarm
from gamwarm.cli import main
from tests.support.stores import carrier_fit, record_of, result_of

__all__ = ["Ended", "Runner", "Stored", "campaign"]


@dataclass(frozen=True)
class Ended:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Runner:
    """Calls the command as a shell would: ``gamwarm("ls", path)``."""

    def __init__(self, captured: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> None:
        self._captured = captured
        self._environment = environment

    def __call__(self, *arguments: object, **environment: str) -> Ended:
        with self._environment.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, value)
            self._captured.readouterr()
            code = main([str(argument) for argument in arguments])
        said = self._captured.readouterr()
        return Ended(code, said.out, said.err)


@dataclass(frozen=True)
class Stored:
    """A file of one full fit, three folds that started from it, and a record put by hand.

    ``full`` and ``folds`` are exact keys, ``parent`` is the entry id of the full fit's artifact.
    """

    path: Path
    full: str
    parent: str
    folds: tuple[str, ...]
    by_hand: str
    created: Mapping[str, int]


def campaign(path: Path) -> Stored:
    """Make such a file."""
    by_hand = record_of(7, attributes={"job": "4711", "host kind": "login"}, kind="checkpoint", converged=False)
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        full = carrier_fit()
        kept = store.keep(full, result_of(full, 1.0), store.start_for(full))
        parent = kept.artifact.entry_id
        assert parent is not None
        folds = [carrier_fit(range(36 - i), n=50 + i, seed=9) for i in range(3)]
        for i, fold in enumerate(folds):
            store.keep(fold, result_of(fold, 2.0 + i), store.start_for(fold, parent=parent))
        store.put_record(by_hand)
        keys = [full.key, *(fold.key for fold in folds), by_hand.key]
        created = {key: store.get_record(key).created or 0 for key in keys}  # type: ignore[union-attr]
    return Stored(path, full.key, parent, tuple(fold.key for fold in folds), by_hand.key, created)
