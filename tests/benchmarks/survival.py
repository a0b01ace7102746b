"""Runs killed at random moments, again and again, must end as an undisturbed run does.

    python -m tests.benchmarks.survival RECIPE [--kills 30] [--set KEY=VALUE]… [--saves 0.2] [--seed 0] [--dir DIR]
    python -m tests.benchmarks.survival --short

A run is started, killed with SIGKILL after a random time of at most that of the fastest run, and started again in the
same directory, until it ends by itself. Then `plan.json` and `compact.safetensors` must be equal byte for byte to
those of the undisturbed run. This is repeated with new directories until all kills are used up. States are saved every
`--saves` seconds, so that short runs go on in the middle of an epoch as well.
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import short

RESULTS = ("plan.json", "compact.safetensors")
COMMAND = """
from compressor.training import checkpoint
checkpoint.SECONDS_BETWEEN_SAVES, checkpoint.SHARE_OF_TIME = {saves}, float("inf")
from compressor.cli import main
main()
"""


def start(args: argparse.Namespace, out: Path) -> subprocess.Popen[bytes]:
    """Start a run; what it prints goes to a file beside its directory."""
    sets = [part for override in args.overrides for part in ("--set", override)]
    with out.with_suffix(".txt").open("ab") as log:
        command = [sys.executable, "-c", COMMAND.format(saves=args.saves), "run", args.recipe, "--out", str(out), *sets]
        return subprocess.Popen(command, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait for a run; one that ends with anything but a verdict is a failure of this test."""
    if process.wait() not in (0, 1):
        sys.exit(f"the run in {out} ended with {process.returncode}:\n{out.with_suffix('.txt').read_text()[-3000:]}")


def running_stage(out: Path) -> str:
    """The stage that a killed run was in, by its log."""
    log = out / "log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    stages = [found[1] for line in lines if (found := re.search(r" ([\w-]+): (begins|done)", line))]
    return stages[-1] if stages else "before the first stage"


def survive(args: argparse.Namespace, out: Path, kills: int, killed: collections.Counter[str]) -> int:
    """One run with as many kills as it gets before it is through; returns how many that were."""
    for done in range(kills):
        process, started = start(args, out), time.perf_counter()
        try:
            process.wait(args.random.uniform(0, args.seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed[running_stage(out)] += 1
            continue
        finish(process, out)
        args.seconds = min(args.seconds, time.perf_counter() - started)
        return done
    finish(start(args, out), out)
    return kills


def main() -> None:
    """Run, kill, compare; the exit code says whether all runs ended alike."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", nargs="?" if short.asked else None)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--saves", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path)
    args = short.parse(parser, kills=1)
    if args.short:
        args.recipe, args.overrides = str(short.digits()), [*short.FEW, "finetune.epochs=1"]
    args.random = random.Random(args.seed)
    base = args.dir or Path(tempfile.mkdtemp(prefix="survival-"))
    base.mkdir(parents=True, exist_ok=True)
    started, undisturbed = time.perf_counter(), base / "undisturbed"
    finish(start(args, undisturbed), undisturbed)
    args.seconds = time.perf_counter() - started
    print(f"undisturbed: {args.seconds:.0f} s", flush=True)
    expected = [(undisturbed / name).read_bytes() for name in RESULTS]
    left, runs, wrong, killed = args.kills, 0, 0, collections.Counter[str]()
    while left:
        out = base / f"run-{runs}"
        used = survive(args, out, left, killed)
        same = [(out / name).read_bytes() for name in RESULTS] == expected
        print(f"{out.name}: {used} kills, {'the same' if same else 'OTHER'} results", flush=True)
        left, runs, wrong = left - used, runs + 1, wrong + (not same)
    stages = ", ".join(f"{stage} {count}" for stage, count in killed.most_common())
    print(f"{args.kills} kills ({stages}) over {runs} runs: {wrong} ended otherwise; logs in {base}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
