"""``python -m benchmarks.triton_mutations``: does every kernel's test notice a broken index, mask or stride?

One mutation at a time is made to a copy of a kernel's source; the interpreter runs the kernel's tests on it, until one
fails (killed) or all pass (survived). ``--only NAME`` keeps the modules with that name. Exits with 1 if any survived.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = "tests/kernels/"
TESTS_FAILED, NOT_RUN = 1, 70  # exit statuses: pytest's, and one that it does not use


@dataclass(frozen=True)
class Suite:
    """A module with kernels, the tests that guard it (all, or those that ``-k`` chooses), and what to break in it."""

    module: str
    tests: tuple[str, ...]
    choice: str
    mutations: Sequence[tuple[str, str]]


SUITES = [
    Suite(
        "gradient_tile",
        ("test_triton_gradient.py", "test_triton_heads.py", "test_capture_gradients.py", "test_fused_step.py"),
        "triton and not shape2 or test_triton_gradient",
        [
            ("r < rows - row", "r <= rows - row"),
            ("h < width - column", "h <= width - column"),
            ("b < samples - start", "b <= samples - start"),
            ("row // outputs\n", "row // samples\n"),
            ("within // outputs * delta_branch", "r // outputs * delta_branch"),
            ("within % outputs * delta_output", "r % outputs * delta_output"),
            ("product.to(tl.int64) * delta_branch", "product * delta_branch"),
            ("row.to(tl.int64) * delta_output", "row * delta_branch"),
            ("source + product", "source"),
            ("product.to(tl.int64) * shared_branch", "product * shared_branch"),
            ("column.to(tl.int64) * shared_input", "column * shared_sample"),
            ("far * delta_sample", "start * delta_sample"),
            ("far * shared_sample", "start * shared_sample"),
            ("(b * shared_sample)[:, None]", "(b * shared_input)[:, None]"),
            ("(product.to(tl.int64) * rows + row) * width + column", "(product.to(tl.int64) * rows + row) * width"),
            ("(r * width)[:, None]", "(r * rows)[:, None]"),
            ("tile % across * BLOCK_H", "tile % down * BLOCK_H"),
        ],
    ),
    Suite(
        "stacked_linear.triton",
        ("test_triton_heads.py", "test_stacked_linear.py"),
        "triton",
        [
            ("has_sample, has_output = b < samples - sample", "has_sample, has_output = b <= samples - sample"),
            ("o < width - output", "o <= width - output"),
            ("i < features - start", "i <= features - start"),
            ("tl.load(source + layer) * input_source", "layer * input_source"),
            ("far * input_feature", "start * input_feature"),
            ("far * weight_feature", "far * weight_output"),
            ("output.to(tl.int64) * bias_output", "output.to(tl.int64) * bias_layer"),
            ("output.to(tl.int64) * result_output", "output.to(tl.int64) * result_sample"),
            ("has_sample, has_feature = b < samples - sample", "has_sample, has_feature = b <= samples - sample"),
            ("i < features - feature", "i <= features - feature"),
            ("p < pairs - start", "p <= pairs - start"),
            ("(start + p) // width, has_pair", "(start + p) // BLOCK_P, has_pair"),
            ("((start + p) % width)", "(p % width)"),
            ("order + first", "order"),
            ("feature.to(tl.int64) * result_feature", "feature.to(tl.int64) * result_sample"),
            ("sample.to(tl.int64) * delta_sample", "sample.to(tl.int64) * delta_output"),
        ],
    ),
    Suite(
        "sketch.triton",
        ("test_triton_sketch.py", "test_sketch.py"),
        "triton and not shape2 and not shape3 and not many_branches or test_triton_sketch",
        [
            ("g < branches - branch", "g <= branches - branch"),
            ("o < outputs - output", "o <= outputs - output"),
            ("j < directions - direction", "j <= directions - direction"),
            ("branch.to(tl.int64) * delta_branch", "branch.to(tl.int64) * delta_sample"),
            ("output.to(tl.int64) * delta_output", "output.to(tl.int64) * delta_sample"),
            ("(g * delta_branch)[:, None]", "(g * delta_sample)[:, None]"),
            ("start + step, tl.int64)", "start + step, tl.int32)"),
            ("has_delta & (sample < samples)", "has_delta & (sample <= samples)"),
            ("(direction + j) * outputs + output", "(direction + j) * outputs"),
            ("tile % deep * BLOCK_J", "tile % across * BLOCK_J"),
            ("branch.to(tl.int64) * outputs * directions", "branch.to(tl.int64) * directions"),
        ],
    ),
    Suite(
        "gram.triton",
        ("test_triton_gram.py", "test_gram.py"),
        "triton",
        [
            ("m < rows - row, m < rows - other", "m <= rows - row, m < rows - other"),
            ("m < rows - row, m < rows - other", "m < rows - row, m <= rows - other"),
            ("n < columns - start", "n <= columns - start"),
            ("min(part * share + share, columns)", "columns"),
            ("part * share,", "0,"),
            ("i - (down & 1)", "i"),
            ("j - long)", "j - long + 1)"),
            ("(matrix % count)", "matrix"),
            ("row.to(tl.int64) * stride_row", "row.to(tl.int64) * stride_column"),
            ("other.to(tl.int64) * stride_row", "row.to(tl.int64) * stride_row"),
            ("tl.cast(start, tl.int64) * stride_column", "start * stride_column"),
            ("(m * stride_row)[None, :] + (n", "(m * stride_column)[None, :] + (n"),
            ("matrix.to(tl.int64) * rows * rows", "matrix.to(tl.int64) * rows"),
            ("here = other.to(tl.int64) * rows + row", "here = other.to(tl.int64) * rows + other"),
            ("if row != other:", "if row == other:"),
            ("r < rank - direction", "r <= rank - direction"),
            ("n < columns - column", "n <= columns - column"),
            ("m < rows - start", "m <= rows - start"),
            ("direction.to(tl.int64) * basis_direction", "direction.to(tl.int64) * basis_row"),
            ("column.to(tl.int64) * stride_column", "column.to(tl.int64) * stride_row"),
            ("far * basis_row", "start * basis_row"),
            ("far * stride_row", "start * stride_row"),
            ("(matrix * rank + direction) * columns", "(matrix * rank) * columns"),
            ("place = (r * columns)", "place = (r * rank)"),
        ],
    ),
    Suite(
        "reachability.triton",
        ("test_triton_distances.py",),
        "test",
        [
            ("i.to(tl.int64)[:, None] * stride", "i[:, None] * stride"),
            ("range(lane, features, 8)", "range(lane, features - 1, 8)"),
            ("range(8)", "range(7)"),
            ("tl.cast(feature, tl.int64) * stride", "feature * stride"),
            ("column + i, exists_i", "column + i, i >= 0"),
            ("column + j, exists_j", "column + i, exists_j"),
            ("a + b if SUM else a - b", "a - b if SUM else a + b"),
            ("exists_i = i < n\n", "exists_i = i <= n\n"),
            ("exists_j = j < n\n", "exists_j = j <= n\n"),
            ("& (i[:, None] != j[None, :])", ""),
            ("squared > before[:, None]", "squared >= before[:, None]"),
            ("squared <= before[:, None]", "squared < before[:, None]"),
            ("nearer & (slots == slot[:, None])", "nearer & (slots == 0)"),
            ("nearer & (columns == column[:, None])", "nearer & (columns >= column[:, None])"),
            ("slots < kept", "slots <= kept"),
            ("kept - wanted", "kept - wanted - 1"),
            ("tile % across * BLOCK_J", "tile // across * BLOCK_J"),
            ("i < n, j < n", "i <= n, j < n"),
            ("i < n, j < n", "i < n, j <= n"),
            ("i.to(tl.int64)[:, None] * n", "i.to(tl.int64)[:, None] * features"),
            ("tl.where(i[:, None] == j[None, :], 0.0, squared)", "squared"),
        ],
    ),
    Suite(
        "spanning_tree.triton",
        ("test_triton_distances.py",),
        "argmin or trees or given",
        [
            ("exists_i = r < count", "exists_i = r <= count"),
            ("exists_j = j < n", "exists_j = j <= n"),
            ("tl.load(rows + r, exists_i, other=0)", "r"),
            ("component + i, exists_i", "component + r, exists_i"),
            ("cores + i, exists_i", "cores + r, exists_i"),
            ("cores + j, exists_j", "cores + j - j, exists_j"),
            ("& (own[:, None] != theirs[None, :])", ""),
            ("here < least", "here <= least"),
            ("(start + at)", "at"),
            ("weight + i, least", "weight + r, least"),
            ("other + i, place", "other + r, place"),
        ],
    ),
]


def outcome(suite: Suite, old: str, new: str) -> str:
    """Run a suite on a mutated copy of its module, in a child that has everything else loaded already."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status > TESTS_FAILED:
            raise RuntimeError(f"the tests of {suite.module} were not run: status {status}")
        return "survived" if status == 0 else "killed"  # by a failing test, or, below 0, by a signal
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    status = NOT_RUN
    try:
        with tempfile.TemporaryDirectory() as folder:
            status = _tested(suite, old, new, Path(folder))
    finally:
        os._exit(status)


def _tested(suite: Suite, old: str, new: str, folder: Path) -> int:
    """The exit status of the tests."""
    import pytest

    _replace(f"selshare.kernels.{suite.module}", old, new, folder)
    tests = [TESTS + test for test in suite.tests]
    # Asserts are left as they are: pytest refuses to rewrite those of what is loaded already.
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-k", suite.choice]
    return int(pytest.main([*options, *tests]))


def _replace(name: str, old: str, new: str, folder: Path) -> None:
    """Load a mutated copy of a module in its place."""
    copy = folder / "mutated.py"
    copy.write_text(mutated(name, old, new))
    spec = importlib.util.spec_from_file_location(name, copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    package, _, last = name.rpartition(".")
    sys.modules[name] = module
    spec.loader.exec_module(module)
    setattr(importlib.import_module(package), last, module)


def mutated(name: str, old: str, new: str) -> str:
    """The source of a module with one change, which must be possible in one place only of what kernels there are."""
    source = (ROOT / "kernels" / Path(*name.split(".")[2:])).with_suffix(".py").read_text()
    head, mark, kernels = source.partition("@triton.jit")
    assert kernels.count(old) == 1, f"{name} has {kernels.count(old)} times {old!r}"
    return head + mark + kernels.replace(old, new)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    os.chdir(ROOT)
    for loaded in ("triton", "hypothesis", "scipy.spatial.distance", "sklearn.datasets", "selshare.kernels"):
        importlib.import_module(loaded)
    print("| module | in place of | stands | outcome |\n| --- | --- | --- | --- |", flush=True)
    chosen = [suite for suite in SUITES if options.only in suite.module]
    for suite in chosen:  # what cannot be made, or a suite that fails of itself, would count as killed
        for old, new in suite.mutations:
            mutated(f"selshare.kernels.{suite.module}", old, new)
        unchanged = suite.mutations[0][0]
        if outcome(suite, unchanged, unchanged) == "killed":
            raise RuntimeError(f"the tests of {suite.module} fail without a mutation")
    survivors = 0
    for suite in chosen:
        for old, new in suite.mutations:
            found = outcome(suite, old, new)
            survivors += found == "survived"
            print(f"| {suite.module} | `{old.strip()}` | `{new.strip()}` | {found} |", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
