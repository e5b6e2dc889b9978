"""The nearest neighbours of all points and their exact core distances, in one pass over half of all blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selshare import _native

from .points import Points
from .screen import TILE, Doubles, Indices, Screen, rounded_down

SPARE = 8  # neighbours kept beyond the k-th: the farthest of them bounds the distance of all that were not kept
STEP = 16  # lists are so long or a multiple of it
RESCANNED = 256  # rows scanned again at a time


@dataclass(frozen=True, slots=True)
class Nearest:
    """What one pass finds, in the screen's units.

    Attributes
    ----------
    screen
        The bounds it was found with.
    indices
        (n, kept) int32: points near each point, among them its k nearest unless its row was scanned again.
    squares
        (n, kept) their exact squared distances.
    cores
        (n,) exact squared core distances.
    """

    screen: Screen
    indices: Indices
    squares: Doubles
    cores: Doubles

    @classmethod
    def of(cls, points: Points, k: int) -> Nearest:
        """In float32 where its bounds are sharp enough for most rows, in float64 otherwise. Time O(n²·d).

        There must be more points than a list holds, see :func:`list_length`.

        torch may be told to multiply float32 matrices with less than float32 precision, which the bounds do not
        cover: float64 then.
        """
        n = len(points.values)
        if torch.get_float32_matmul_precision() == "highest":
            nearest, open_rows = _pass(points, k, torch.float32)
            if len(open_rows) <= n // 8:
                return nearest._decided(open_rows, k)
        nearest, open_rows = _pass(points, k, torch.float64)
        return nearest._decided(open_rows, k)

    def _decided(self, open_rows: Indices, k: int) -> Nearest:
        """With the cores of rows whose k nearest may not all have been kept."""
        for start in range(0, len(open_rows), RESCANNED):
            rows = open_rows[start : start + RESCANNED]
            self.cores[rows] = _rescanned(self.screen, rows, self.cores[rows], k)
        return self


def list_length(k: int) -> int:
    """How many neighbours of each point are kept."""
    return STEP * -(-(k + SPARE) // STEP)


def _pass(points: Points, k: int, dtype: torch.dtype) -> tuple[Nearest, Indices]:
    """Lists, cores, and the rows for which a point that was not kept may be among the k nearest."""
    screen = Screen.of(points, dtype)
    n = len(screen.rows)
    kept = list_length(k)
    values = torch.full((n + 1, kept), -torch.inf, dtype=dtype)[1:]  # what is before the first list may be read
    indices = torch.empty((n + 1, kept), dtype=torch.int32)[1:]
    last = torch.full((n,), -torch.inf, dtype=dtype)
    lists = (values.data_ptr(), indices.data_ptr(), last.data_ptr(), kept)
    keep = _native.keep_nearest_f32 if dtype == torch.float32 else _native.keep_nearest_f64
    workspace, half, threads = torch.empty(TILE * TILE, dtype=dtype), screen.half.data_ptr(), torch.get_num_threads()
    for row in range(0, n, TILE):
        for column in range(row, n, TILE):
            block = screen.products(screen.rows[row : row + TILE], screen.rows[column : column + TILE], workspace)
            rows, columns = block.shape
            keep(block.data_ptr(), rows, columns, row, column, half, *lists, threads)
    others = indices.numpy()
    squares = screen.squared(np.repeat(np.arange(n, dtype=np.int32), kept), others.ravel()).reshape(n, kept)
    cores = np.ascontiguousarray(np.partition(squares, k - 1, axis=1)[:, k - 1])
    beyond = (screen.norms.double() - 2.0 * last.double()).numpy()  # no point that was not kept is nearer
    open_rows = np.flatnonzero((cores > beyond) & (cores > 0.0))
    return Nearest(screen, others, squares, cores), open_rows.astype(np.int32)


def _rescanned(screen: Screen, rows: Indices, limits: Doubles, k: int) -> Doubles:
    """The squared core distances of rows, each of which is at most its limit."""
    chosen = torch.from_numpy(rows).long()
    cuts = rounded_down((screen.norms[chosen].double() - torch.from_numpy(limits)) / 2, screen.rows.dtype)
    a, b = pairs_above(screen, chosen, cuts)
    other = a != b
    a, b = a[other], b[other]
    squares = screen.squared(a, b)
    order = np.lexsort((squares, a))
    starts = np.searchsorted(a[order], np.sort(rows))
    cores: Doubles = np.empty(len(rows))
    cores[np.argsort(rows)] = squares[order][starts + k - 1]
    return cores


def pairs_above(screen: Screen, rows: Tensor, cuts: Tensor) -> tuple[Indices, Indices]:
    """All pairs (i, j) of the given rows with all points whose ``g - half[j]`` reaches the row's cut, i itself too."""
    scan = _native.pairs_above_f32 if screen.rows.dtype == torch.float32 else _native.pairs_above_f64
    workspace = torch.empty(len(rows) * TILE, dtype=screen.rows.dtype)
    found = np.empty((2, len(rows) * TILE), dtype=np.int32)
    names = rows.to(torch.int32)
    parts = []
    for column in range(0, len(screen.rows), TILE):
        columns = screen.rows[column : column + TILE]
        block = screen.products(screen.rows[rows], columns, workspace)
        count = scan(
            block.data_ptr(),
            len(rows),
            len(columns),
            column,
            screen.half.data_ptr(),
            names.data_ptr(),
            cuts.data_ptr(),
            found[0].ctypes.data,
            found[1].ctypes.data,
            found.shape[1],
            torch.get_num_threads(),
        )
        parts.append(found[:, :count].copy())
    pairs = np.concatenate(parts, axis=1)
    return np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1])
