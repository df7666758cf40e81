"""Every version mark that gamwarm writes, and the only comparison with those that it reads.

A mark that names a *layout* is a `Format`. To read an older layout, raise ``current``, leave
``oldest``, and branch on the version that `Format.check` returns; each is called in one place:
`storage.header.parse` (file), `storage.redo_journal` (journal), `entries.layout.check_file`
(entries), `archive.format.check_bundle` (archive).

A mark that goes into a *digest* has no readers: a new one gives new names, and what has the old
ones is not found.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from gamwarm.errors import NewerFormat, OlderFormat

__all__ = ["ARCHIVE", "ENTRY", "FILE", "JOURNAL", "Format"]


@dataclass(frozen=True)
class Format:
    """A layout with a version.

    Attributes
    ----------
    name : str
        As messages call it.
    current : int
        The version that is written.
    oldest : int
        The oldest version that is read.
    """

    name: str
    current: int
    oldest: int

    def check(self, version: int, path: str | os.PathLike[str]) -> int:
        """Return a version that is read.

        Raises
        ------
        NewerFormat, OlderFormat
            It is not one; ``details`` hold ``path`` and ``format_version``.
        """
        if version > self.current:
            raise NewerFormat(
                f"{path}: {self.name} {version}, this version of gamwarm supports up to {self.current}. It was not "
                "changed; "
                "upgrade gamwarm to open it.",
                path=str(path),
                format_version=version,
            )
        if version < self.oldest:
            raise OlderFormat(
                f"{path}: {self.name} {version}, this version of gamwarm supports {self.oldest} or later. It was "
                "not changed; open it with an older gamwarm, or restore a backup.",
                path=str(path),
                format_version=version,
            )
        return version


FILE: Final = Format("file format", current=1, oldest=1)
FILE_MAGIC: Final = b"GAMWARM\n"
"""The same in every version; the header's next field is the version."""

JOURNAL: Final = Format("journal format", current=1, oldest=1)
JOURNAL_MAGIC: Final = b"GWJRNL%d\n" % JOURNAL.current

ENTRY: Final = Format("entry format", current=2, oldest=2)

ARCHIVE: Final = Format("archive format", current=1, oldest=1)
ARCHIVE_MARK: Final = b"GWARCHV%d" % ARCHIVE.current
MANIFEST_TITLE: Final = f"gamwarm-archive {ARCHIVE.current}"

ARTIFACT_SCHEMA: Final = "gamwarm-artifact-1"
"""What an artifact's numbers mean. One of another schema is kept, and no fit starts from it."""

ENTRY_ID: Final = b"gamwarm-entry-1"
EXACT_KEY: Final = "gamwarm-schema-1"
NAMED_VALUES: Final = "gamwarm-named-values-1"
ENGINE_FAMILY: Final = "gamwarm-engine-family-2"
SCIPY_MINIMIZE: Final = "gamwarm-scipy-minimize-2"
REMEMBERED: Final = "gamwarm-remember-1"
SCIPY_LEAST_SQUARES: Final = "gamwarm-scipy-least-squares-1"
