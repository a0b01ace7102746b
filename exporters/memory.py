"""Peak memory of an ONNX file, in a process of its own. Needs ONNX Runtime and NumPy, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from exporters.errors import CURE, ExportError
from exporters.runtime import create_session, random_inputs

SECONDS = 300


def peak_bytes(path: str | Path, *, provider: str = "cpu", threads: int = 1, batch: int = 1) -> int | None:
    """By how much opening the file and running it raises a process's peak of resident memory.

    Returns:
        Bytes of main memory; None where the system does not tell.

    Raises:
        ExportError: the file does not run.
    """
    command = [sys.executable, "-m", "exporters.memory", str(path), provider, str(threads), str(batch)]
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ExportError(f"its memory cannot be measured ({last[0]})", where=str(path), cure=CURE)
    found = json.loads(done.stdout.splitlines()[-1])
    return int(found) if found is not None else None


def main() -> None:
    """Print the rise in bytes."""
    _, path, provider, threads, batch = sys.argv
    before = _resident_peak()
    session = create_session(path, provider=provider, threads=int(threads))
    feed = random_inputs(session, int(batch))
    for _ in range(3):
        session.run(None, feed)
    after = _resident_peak()
    print(json.dumps(None if before is None or after is None else after - before))


def _resident_peak() -> int | None:
    """In bytes. `getrusage` would do on other systems, but on Linux it counts what the parent process had."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main()
