"""A machine that is kept busy: processes that calculate and move memory for as long as a command runs.

python -m tests.benchmarks.busy [--processes 3] -- COMMAND …
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOAD = """
import os, sys
import numpy as np
parent, small, large = int(sys.argv[1]), np.random.rand(300, 300).astype("f"), np.random.rand(1500, 1500)
while os.getppid() == parent:
    for _ in range(50):
        small @ small
    large.sum()
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep that many processes working while the body runs; they end with this process whatever happens to it."""
    command = [sys.executable, "-c", LOAD, str(os.getpid())]
    others = [subprocess.Popen(command, env=os.environ | ONE_THREAD) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> int:
    """Run a command on a busy machine, and end as it ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    with busy(args.processes):
        return subprocess.run(args.command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
