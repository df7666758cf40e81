"""One self-contained HTML page of what a gamwarm file holds."""

from gamwarm.report.page import write_report

__all__ = ["write_report"]
