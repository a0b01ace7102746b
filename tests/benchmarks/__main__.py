"""The short form of every benchmark, on one page.

    python -m tests.benchmarks [NAME …] [--out runs/benchmark.md]

The page begins with commit, machine, versions, date and command; each benchmark adds what it prints. 1 if one fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from exporters.runtime import environment

HERE, LONGEST = Path(__file__).parent, 900
PACKAGES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxruntime", "numpy")


def names() -> list[str]:
    """Return the benchmarks that have a short form."""
    return sorted(path.stem for path in HERE.glob("[a-z]*.py") if "short.parse(parser" in path.read_text())


def head() -> str:
    """Say what was measured, where, with what and when."""
    machine = environment()
    facts = {
        "commit": f"`{_git('rev-parse', '--short', 'HEAD')}`" + (" and changes" * bool(_git("diff", "HEAD"))),
        "machine": f"{machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "command": f"`python -m tests.benchmarks {shlex.join(sys.argv[1:])}`".replace(" `", "`"),
    }
    return "# Benchmarks, short\n\n" + "".join(f"- {name}: {fact}\n" for name, fact in facts.items())


def section(name: str) -> tuple[str, bool]:
    """Run the short form of a benchmark; return what it printed, and whether it went well."""
    command = ["-m", f"tests.benchmarks.{name}", "--short"]
    variables = {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command], env=os.environ | variables, capture_output=True, text=True, timeout=LONGEST
        )
        fault = f"{done.stderr}\nended with {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        done, fault = None, f"not finished after {LONGEST} s"
    printed = (done.stdout if done else "") + fault
    took = f"`python {shlex.join(command)}`, {time.monotonic() - started:.0f} s:"
    return f"\n## {name}\n\n{took}\n\n```\n{printed.rstrip()}\n```\n", not fault


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown" * (words[0] == "rev-parse")


def main() -> int:
    """Write the page, benchmark by benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *names()], help="all without it")
    parser.add_argument("--out", type=Path, default=Path("runs", "benchmark.md"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(head())
    wrong = []
    for name in args.names or names():
        print(f"{name} …", file=sys.stderr, flush=True)
        text, well = section(name)
        wrong += [] if well else [name]
        with args.out.open("a") as page:
            page.write(text)
    print(f"wrote {args.out}" + (f"; failed: {', '.join(wrong)}" if wrong else ""))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
