"""The cold results of a run: kept beside its file, so that a run can go on where it was ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from gamwarm.display import json_text
from gamwarm.errors import GamwarmError
from gamwarm.records import Cost
from gamwarm.storage import replace_text
from gamwarm.version import __version__

__all__ = ["ColdResults"]

Array = np.ndarray[Any, np.dtype[np.float64]]
Told = tuple[Cost, float, bool, Array]
_COST: Final = ("evaluations", "outer_iterations", "inner_iterations", "hessian_formations", "seconds")


class ColdResults:
    """Cold fits by group and start, in a JSON file.

    Attributes
    ----------
    fits : dict
        From group and start to what the fit took and gave.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Name the file; ``key`` names the job: results of another one are not read."""
        self.path = path
        self.fits: dict[tuple[str | None, str], Told] = {}
        self._job = [key, __version__]

    def read(self) -> None:
        """Read what an earlier run wrote. What is not of this job, or not whole, counts as none."""
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            if told["job"] == self._job:
                self.fits = dict(map(_from_json, told["fits"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, GamwarmError):
            self.fits = {}

    def add(self, group: str | None, start: str, cost: Cost, objective: float, converged: bool, theta: Array) -> None:
        """Add one result; `write` puts it on the disk."""
        self.fits[group, start] = (cost, objective, converged, theta)

    def write(self) -> None:
        """Replace the file, atomically."""
        fits = [_to_json(group, start, told) for (group, start), told in self.fits.items()]
        replace_text(self.path, json_text({"job": self._job, "fits": fits}) + "\n")


def _to_json(group: str | None, start: str, told: Told) -> dict[str, Any]:
    cost, objective, converged, theta = told
    return {
        "group": group,
        "start": start,
        "cost": {name: getattr(cost, name) for name in _COST},
        "objective": objective if np.isfinite(objective) else None,
        "converged": converged,
        "theta": theta.tolist(),
    }


def _from_json(told: dict[str, Any]) -> tuple[tuple[str | None, str], Told]:
    objective = float("nan") if told["objective"] is None else float(told["objective"])
    theta = np.asarray(told["theta"], dtype=np.float64)
    return (told["group"], told["start"]), (Cost(**told["cost"]), objective, bool(told["converged"]), theta)
