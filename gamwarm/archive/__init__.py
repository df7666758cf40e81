"""Archives: selected entries in one self-contained file, verified years later, imported again."""

from gamwarm.archive.bundle import (
    ArchiveReport,
    ExportReport,
    export_archive,
    import_archive,
    verify_archive,
)
from gamwarm.archive.crate import Creator
from gamwarm.entries import Selection

__all__ = [
    "ArchiveReport",
    "Creator",
    "ExportReport",
    "Selection",
    "export_archive",
    "import_archive",
    "verify_archive",
]
