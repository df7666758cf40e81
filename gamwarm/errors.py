"""The error tree, grouped by what a handler would do.

Every class has a stable ``code`` (safe to store and compare), is also the built-in exception that
fits, survives pickling (so it can cross ranks and processes), and its message names the culprit and
the next step.

==============================  =========================================================
handler                         class
==============================  =========================================================
correct the description         `InvalidInput`, `InvalidType`, `UnsupportedOption`
install what is missing         `MissingDependency`
fit without a cache             `UnkeyableFit`
start cold                      `TransferError` (`ParentUnusable`, `DescriptorMismatch`)
check the file or the disk    `StoreError` and its children
end the job on every rank       `CollectiveError`
check the model `FitFailed`
==============================  =========================================================
"""

from __future__ import annotations

from typing import Any, ClassVar

from gamwarm.display import visible

__all__ = [
    "CollectiveError",
    "DescriptorMismatch",
    "FitFailed",
    "GamwarmError",
    "InvalidInput",
    "InvalidKey",
    "InvalidType",
    "LockTimeout",
    "MissingDependency",
    "NewerFormat",
    "NoSuchKey",
    "NotAStore",
    "OlderFormat",
    "ParentUnusable",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreNotFound",
    "StoreReadOnly",
    "StoreUnavailable",
    "TransferError",
    "UnkeyableFit",
    "UnsupportedOption",
]


def _rebuild(cls: type[GamwarmError], message: str, details: dict[str, Any]) -> GamwarmError:
    return cls(message, **details)


class GamwarmError(Exception):
    """Root of every error that gamwarm raises on purpose.

    Keyword arguments become `details`, a plain dictionary for programs (the message is for people,
    and `visible`).
    """

    code: ClassVar[str] = "gamwarm"

    def __init__(self, message: str, **details: Any) -> None:
        message = visible(message)
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)


class InvalidInput(GamwarmError, ValueError):
    """A description (block, penalty, options, record …) contradicts itself or its type's rules."""

    code = "invalid-input"


class InvalidType(GamwarmError, TypeError):
    """A value of a type whose numbers cannot be taken exactly (complex, object, masked …)."""

    code = "invalid-type"


class InvalidKey(InvalidInput):
    """A string that is not an exact key, descriptor key or entry id."""

    code = "invalid-key"


class NoSuchKey(InvalidKey):
    """A key, or the beginning of one, that no entry of the file has, or that several have."""

    code = "no-such-key"


class UnsupportedOption(GamwarmError, NotImplementedError):
    """An engine was asked for an option that it does not implement; the message names it."""

    code = "unsupported-option"


class MissingDependency(GamwarmError, ImportError):
    """An optional part needs a package or program that is not there; the message installs it."""

    code = "missing-dependency"


class UnkeyableFit(GamwarmError, ValueError):
    """A fit that cannot be named: its family opted out, or something could not be read.

    ``details["why"]`` is ``"opt-out"``, ``"family"``, ``"family-kind"`` or ``"design"``.
    """

    code = "unkeyable-fit"


class TransferError(GamwarmError, ValueError):
    """A stored fit cannot start this one."""

    code = "transfer"


class ParentUnusable(TransferError):
    """The artifact is of another schema, holds non-finite numbers, or did not converge."""

    code = "parent-unusable"


class DescriptorMismatch(TransferError):
    """The artifact is of a model whose terms are not this model's terms."""

    code = "descriptor-mismatch"


class StoreError(GamwarmError, OSError):
    """Something about the file or the disk under it.

    Attributes
    ----------
    errno : int or None
        The operating system's, if a system call failed.
    filename : str or None
    """

    code = "store"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.errno = details.get("errno")
        self.filename = details.get("path")


class StoreNotFound(StoreError, FileNotFoundError):
    """No file at this path (mode ``"r"`` never creates one)."""

    code = "store-not-found"


class NotAStore(StoreError):
    """The file is not HDF5, or is HDF5 that gamwarm did not write. It was not changed."""

    code = "not-a-store"


class NewerFormat(StoreError):
    """The file was written by a newer gamwarm. It was not changed."""

    code = "newer-format"


class OlderFormat(StoreError):
    """The file is of a gamwarm too old for this one to read. It was not changed."""

    code = "older-format"


class StoreReadOnly(StoreError, PermissionError):
    """A write to a store opened for reading, or to a path without write permission."""

    code = "store-read-only"


class StoreClosed(StoreError, ValueError):
    """A call on a store that has been closed."""

    code = "store-closed"


class StoreDamaged(StoreError):
    """Bytes of the file fail their checks; nothing read from them is used."""

    code = "store-damaged"


class StoreUnavailable(StoreError):
    """The file could not be read or written (full disk, I/O error, permissions)."""

    code = "store-unavailable"


class LockTimeout(StoreError, TimeoutError):
    """Another process holds the writer lock; the message names the holder where it is known."""

    code = "lock-timeout"


class CollectiveError(GamwarmError, RuntimeError):
    """Another rank failed in, or before, a collective call; raised on every rank.

    Attributes
    ----------
    rank : int
        The lowest failing rank.
    cause : str
        Type and message of its exception.
    """

    code = "collective"

    def __init__(self, message: str, *, rank: int = -1, cause: str = "", **details: Any) -> None:
        super().__init__(message, rank=rank, cause=cause, **details)
        self.rank = rank
        self.cause = cause


class FitFailed(GamwarmError, ArithmeticError):
    """The reference engine could not evaluate the model (non-finite data, indefinite problem)."""

    code = "fit-failed"
