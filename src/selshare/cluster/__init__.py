"""Exact HDBSCAN for dense, high-dimensional points, and the variance criterion's cut of its dendrogram."""

from .dendrogram import single_linkage
from .estimator import HDBSCAN
from .variance import variance_cut

__all__ = ["HDBSCAN", "single_linkage", "variance_cut"]
