"""``make bench``: every asv suite once, then every comparison with peers. Results go to ``runs/bench/``.

Timings on a busy machine mean little; the comparisons interleave ours and the peers' and print ratios.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parent / "runs" / "bench"
SHORT = {"clusterings": ["--small"], "saliency": ["--rounds", "2"]}  # what makes a comparison's run a short one


def run(title: str, command: list[str]) -> bool:
    """Run one command, say how long it took; whether it succeeded."""
    print(f"\n── {title}", flush=True)
    started = time.perf_counter()
    status = subprocess.run(command, cwd=HERE, check=False).returncode
    print(f"── {title}: {time.perf_counter() - started:.0f} s, exit status {status}", flush=True)
    return status == 0


def main() -> int:
    """All suites and all peers; 1 if any failed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    asv = [sys.executable, "-m", "asv"]
    done = [
        run("asv machine", [*asv, "machine", "--yes"]),
        # Forks of a server that has imported torch: a process of its own for each case would import for 6 s.
        run("asv suites", [*asv, "run", "--quick", "--show-stderr", "--launch-method", "forkserver"]),
    ]
    for script in sorted((HERE / "peers").glob("*.py")):
        if not script.name.startswith("_"):
            results = RESULTS / f"{script.stem}.json"
            options = ["--json", str(results), *SHORT.get(script.stem, ())]
            done.append(run(f"peers: {script.stem}", [sys.executable, str(script), *options]))
    return 0 if all(done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
