"""Exit codes, and which error ends with which. docs/command.md prints this table."""

from __future__ import annotations

from enum import IntEnum

from gamwarm.errors import (
    GamwarmError,
    InvalidInput,
    InvalidType,
    LockTimeout,
    MissingDependency,
    NewerFormat,
    NoSuchKey,
    NotAStore,
    OlderFormat,
    StoreDamaged,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
)

__all__ = ["BadUsage", "Exit", "Interrupted", "exit_of"]


class Exit(IntEnum):
    """What the command ends with."""

    OK = 0
    NO = 1
    USAGE = 2
    REPAIRED = 3
    NO_SUCH_KEY = 4
    NO_FILE = 5
    NOT_A_STORE = 6
    DAMAGED = 7
    LOCKED = 8
    NOT_WRITABLE = 9
    DISK = 10
    INTERNAL = 70
    INTERRUPTED = 130


class BadUsage(InvalidInput):
    """Arguments that do not go together."""

    code = "usage"


class Interrupted(GamwarmError):
    """Somebody pressed Ctrl-C."""

    code = "interrupted"


# The first class that fits; children stand before their parents.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (Interrupted, Exit.INTERRUPTED),
    (KeyboardInterrupt, Exit.INTERRUPTED),
    (NoSuchKey, Exit.NO_SUCH_KEY),
    (StoreNotFound, Exit.NO_FILE),
    (NotAStore, Exit.NOT_A_STORE),
    (OlderFormat, Exit.NOT_A_STORE),
    (NewerFormat, Exit.NOT_A_STORE),
    (StoreDamaged, Exit.DAMAGED),
    (LockTimeout, Exit.LOCKED),
    (StoreReadOnly, Exit.NOT_WRITABLE),
    (StoreError, Exit.DISK),
    (InvalidInput, Exit.USAGE),
    (InvalidType, Exit.USAGE),
    (MissingDependency, Exit.USAGE),
    (PermissionError, Exit.NOT_WRITABLE),
    (FileNotFoundError, Exit.NO_FILE),
    (NotADirectoryError, Exit.NO_FILE),
    (OSError, Exit.DISK),
)


def exit_of(error: BaseException) -> Exit:
    """Return the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.INTERNAL)
