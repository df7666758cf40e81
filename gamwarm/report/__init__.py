"""One self-contained HTML page about a gamwarm file."""

from gamwarm.report.page import write_report

__all__ = ["write_report"]
