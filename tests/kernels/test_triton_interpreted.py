"""Every Triton kernel through Triton's interpreter, on the cases that all implementations of its operation run.

The interpreter must be switched on before Triton is imported, hence a process of its own. It takes milliseconds for
each step of a kernel, whatever the block size: large cases are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SUITES = {  # file: what to leave out because it takes long
    "test_capture_gradients.py": "shape2 and float64",
    "test_fused_step.py": "shape2",
    "test_gram.py": "",
    "test_joint_tt_svd.py": "not (zeros or strided or largest_entry)",
    "test_reachability.py": "(128 or 64 or 65 or any_order or agree)",
    "test_sketch.py": "(shape2 or shape3 or many_branches)",
    "test_spanning_tree.py": "not (ties or points or equal or precomputed)",
    "test_stacked_linear.py": "",
    "test_triton_distances.py": "",
    "test_triton_gradient.py": "",
    "test_triton_gram.py": "",
    "test_triton_heads.py": "",
    "test_triton_sketch.py": "",
    "test_tt_svd.py": "(any_shape or inner or by_rank or graded or errors or scale)",
}


def test_the_suites_of_all_operations_pass_under_the_interpreter() -> None:
    chosen = "triton" + "".join(f" and not ({Path(suite).stem} and {out})" for suite, out in SUITES.items() if out)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *SUITES]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    summary = done.stdout.splitlines()[-1]
    assert re.match(r"\d+ passed", summary), summary
    assert "skipped" not in summary, done.stdout
