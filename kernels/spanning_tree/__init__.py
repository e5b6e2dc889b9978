"""The minimum spanning tree of the mutual reachability distances."""

from .operation import mutual_reachability_mst

__all__ = ["mutual_reachability_mst"]
