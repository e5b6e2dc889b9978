"""Reports: the comparison table, the groups by name, and one self-contained HTML page about a run."""

from .html import write_report
from .tables import comparison_table, groups_summary

__all__ = ["comparison_table", "groups_summary", "write_report"]
