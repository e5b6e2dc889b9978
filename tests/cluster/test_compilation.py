"""What Numba compiles: once for each dtype, whatever the shape, and not again in the next process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from selshare.cluster import HDBSCAN, dendrogram, variance, variance_cut

COMPILED: list[Any] = [dendrogram._hash_rows, dendrogram._merge, variance._gains]

FRESH = """
import json, time
import numpy as np
from selshare.cluster import HDBSCAN, dendrogram, variance, variance_cut
points = np.random.default_rng(0).standard_normal((300, 20))
started, used = time.perf_counter(), time.process_time()
linkage = HDBSCAN().fit(points).single_linkage_tree_.to_numpy()
variance_cut(linkage, points)
compiled = [dendrogram._hash_rows, dendrogram._merge, variance._gains]
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "processor": time.process_time() - used,
    "misses": sum(sum(function.stats.cache_misses.values()) for function in compiled),
    "hits": sum(sum(function.stats.cache_hits.values()) for function in compiled),
}))
"""


def first_call(cache: Path) -> dict[str, float]:
    """A first call in a fresh process whose compiled functions are kept in ``cache``."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    run = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, env=environment, check=True)
    taken: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return taken


def test_a_fresh_process_does_not_compile_again(tmp_path: Path) -> None:
    cold, warm = first_call(tmp_path), first_call(tmp_path)
    assert cold["misses"] == 3, "the cache was empty, so that the count can tell"
    assert warm["misses"] == 0
    assert warm["hits"] == 3
    assert warm["processor"] < 1.0, "seconds of processor time, which a busy machine does not stretch"


def test_no_shape_is_compiled_for() -> None:
    random = np.random.default_rng(0)

    def run(n: int, d: int, dtype: type[np.floating[Any]]) -> None:
        for order in ("C", "F"):
            points = np.array(random.standard_normal((n, d)), dtype=dtype, order=order)
            variance_cut(HDBSCAN(2, 1).fit(points).single_linkage_tree_.to_numpy(), points)

    for dtype in (np.float32, np.float64):
        run(20, 3, dtype)
    before = [list(function.signatures) for function in COMPILED]
    assert all(before)
    for dtype in (np.float32, np.float64):
        for n, d in ((2, 1), (3, 40), (57, 9), (400, 130)):
            run(n, d, dtype)
    assert [list(function.signatures) for function in COMPILED] == before
