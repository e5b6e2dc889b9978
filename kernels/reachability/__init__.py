"""Core distances and mutual reachability distances of a set of points."""

from .operation import core_distances, mutual_reachability

__all__ = ["core_distances", "mutual_reachability"]
