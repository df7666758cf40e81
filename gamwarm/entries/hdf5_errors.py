"""Errors of HDF5 about a file's own structure, as errors of gamwarm."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from gamwarm.encoding import DamagedEntry
from gamwarm.entries.stored_values import UNREADABLE
from gamwarm.errors import GamwarmError, StoreDamaged
from gamwarm.storage import explain, not_of_the_file

__all__ = ["Hdf5Errors"]


class Hdf5Errors(AbstractContextManager[None]):
    """Turns HDF5's complaints about its own metadata into `StoreDamaged`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.complaint = ""
        """What HDF5 said of its own structure; after that nothing is written."""

    def __enter__(self) -> None:
        pass

    def check_writable(self) -> None:
        """Refuse to write after a complaint."""
        if self.complaint:
            raise StoreDamaged(f"{self.complaint}. Nothing more is written; reopen the file once this is fixed")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or isinstance(error, GamwarmError):
            return
        origin = not_of_the_file(error)
        if isinstance(origin, OSError):
            raise explain(origin, self._path, "read it") from error
        if origin is not None or not isinstance(error, (DamagedEntry, *UNREADABLE)):
            return
        self.complaint = (
            f"{self._path}: HDF5 cannot read the file's own structure ({error}); "
            "recover the readable entries with gamwarm.salvage(path, into), or restore a backup"
        )
        raise StoreDamaged(self.complaint) from error
