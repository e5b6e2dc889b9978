"""Exact HDBSCAN for dense, high-dimensional points."""

from .estimator import HDBSCAN

__all__ = ["HDBSCAN"]
