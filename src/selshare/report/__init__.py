"""Reports: the comparison table, the groups by name, one self-contained HTML page about a run, and where tasks look."""

from .activation_regions import activation_regions, group_overlap, write_regions
from .html import write_report
from .tables import comparison_table, groups_summary

__all__ = [
    "activation_regions",
    "comparison_table",
    "group_overlap",
    "groups_summary",
    "write_regions",
    "write_report",
]
