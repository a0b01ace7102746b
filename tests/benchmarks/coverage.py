"""Which networks can be pruned, how far, and whether what comes out is right.

    python -m tests.benchmarks.coverage [NAME …] [--parts DIR] [--out FILE.md] [--jobs N] [--seconds S] [--gigabytes N]
        [--short]

A name is a builder of torchvision (by default all of them), `timm:NAME` or `hf:CLASS`. Every network is examined in a
process of its own: groups are found, half of every group is cut, equation 1 is checked in double precision, the compact
network is rebuilt in another process, and exported. A row that fails says at what, and the next network follows.

With `--parts`, what is found about a network is kept in a file of that folder, and not looked for again: the table can
be made in pieces, and `--seconds 0` writes it from the parts that there are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PARITY, EQUAL = 1e-4, 1e-9
ENOUGH = 0.5
"""Share of the MACs that should be removable; below it the table gives the reasons."""
GIB = 2**30
COLUMNS = {
    "network": "network",
    "groups": "groups",
    "removable": "MACs removable",
    "half": "MACs after half",
    "verify": "verify",
    "reload": "reload",
    "parity": "parity",
    "finding": "finding, CPU s",
    "weights": "weights, GiB",
    "peak": "peak, GiB",
    "fault": "fault",
}


class Journal:
    """What is known about a network so far, on disk, so that it outlives the process that finds it out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"faults": []}

    def begin(self, stage: str) -> None:
        """Name what is being done, in case it is the last thing."""
        self.note(stage=stage)

    def note(self, **facts: Any) -> None:
        """Write facts down."""
        self.facts |= facts
        self.path.write_text(json.dumps(self.facts))

    def require(self, holds: bool, fault: str) -> None:
        """Write a fault down unless `holds`."""
        if not holds:
            self.note(faults=[*self.facts["faults"], fault])


def examine(name: str, directory: Path) -> None:
    """Find groups, cut half of each, prove it, save it, export it; write into `directory` what was found."""
    import torch

    import compressor
    from compressor.budget.costs.measure import measure_cost
    from tests.benchmarks.networks import build

    torch.set_num_threads(1)
    journal = Journal(directory / "facts.json")
    journal.begin("building")
    model, image = build(name)
    journal.begin("finding groups")
    started = time.process_time()
    groups = compressor.find_groups(model, image)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / GIB
    journal.note(groups=len(groups), finding=time.process_time() - started, peak=_peak(), weights=weights)
    journal.note(left=_shortened((len(s.layers), s.reason) for s in groups.skipped))
    journal.begin("cutting everything")
    macs = measure_cost(model, image).macs
    floor = compressor.Plan.of(groups, {g.name: g.balanced(range(g.size))[: g.fewest] for g in groups})
    removable = 1 - measure_cost(compressor.shrink(model, floor), image).macs / macs
    journal.note(removable=_percent(removable), enough=removable >= ENOUGH)
    journal.begin("cutting half")
    plan = compressor.Plan.uniform(groups, 0.5)
    small = compressor.shrink(model, plan)
    journal.note(half=_percent(measure_cost(small, image).macs / macs))
    journal.begin("verifying")
    difference = compressor.verify(model, plan, image)
    journal.note(verify=f"{difference:.0e}")
    journal.require(difference <= EQUAL, "mask is not shrink")
    journal.begin("saving")
    compressor.save_compact(small, plan, directory)
    torch.save(_outputs(small, image), directory / "outputs.pt")
    _export(model, small, directory, journal)


def _export(model: Any, small: Any, directory: Path, journal: Journal) -> None:
    import torch

    import exporters

    images = torch.randn(3, *_image(directory).shape[1:])
    files = {"dense": (model, directory / "dense.onnx"), "compact": (small, directory / "compact.onnx")}
    parity = {}
    for kind, (module, path) in files.items():
        journal.begin(f"exporting the {kind} network")
        exporters.export_onnx(module, images[:1], path, dynamic_batch=True)
        parity[kind] = exporters.check_parity(module, path, images, batch_sizes=(1, 3)).max_rel
        journal.require(parity[kind] <= PARITY, f"parity of the {kind} file is {parity[kind]:.0e}")
    dense, compact = (set(exporters.count_nodes(path)) for _, path in files.values())
    journal.require(compact <= dense, f"new operators: {', '.join(sorted(compact - dense))}")
    journal.note(parity=f"{parity['compact']:.0e}")


def reload(name: str, directory: Path) -> None:
    """Rebuild the compact network from its files and compare it bit by bit with what the first process computed."""
    import torch

    import compressor
    from tests.benchmarks.networks import build

    torch.set_num_threads(1)
    journal = Journal(directory / "facts.json")
    journal.begin("reloading")
    architecture, _ = build(name, seed=1)
    small = compressor.load_compact(directory, architecture)
    expected = torch.load(directory / "outputs.pt")
    same = all(map(torch.equal, expected["outputs"], _outputs(small, expected["image"])["outputs"]))
    journal.note(reload="bit-equal" if same else "different")
    journal.require(same, "reload is not bit-equal")


def _outputs(model: Any, image: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(image))
    return {"image": image, "outputs": leaves}


def _image(directory: Path) -> Any:
    import torch

    return torch.load(directory / "outputs.pt")["image"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _shortened(reasons: Iterable[tuple[int, str]]) -> str:
    """Reasons without names and numbers, with the number of layers that each one holds."""
    counts: dict[str, int] = {}
    for layers, reason in reasons:
        reason = re.sub(r" on the way to .*|: .*| by \S+(?= together| \(relative)", "", reason).partition(", so ")[0]
        counts[reason] = counts.get(reason, 0) + layers
    return "; ".join(f"{reason} ({layers})" for reason, layers in counts.items())


def row(name: str, seconds: float, gigabytes: float) -> dict[str, Any]:
    """Examine one network in processes of its own.

    Args:
        name: What to examine.
        seconds: Wall-clock limit of each process.
        gigabytes: Limit on the memory of each process.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        died = next(filter(None, (_spawn(s, name, directory, seconds, gigabytes) for s in ("examine", "reload"))), "")
        facts = Journal(Path(directory, "facts.json")).facts
    if died:
        facts["faults"].append(f"{facts.get('stage', 'starting')}: {died}")
    return facts | {"network": name, "wall": time.monotonic() - started, "fault": "; ".join(facts["faults"])}


def stored_row(name: str, parts: Path | None, seconds: float, gigabytes: float) -> dict[str, Any] | None:
    """As `row`, but from its file in `parts` where there is one; None where there is none and no time either."""
    path = parts / f"{re.sub('[^A-Za-z0-9_.-]', '-', name)}.json" if parts else None
    if path and path.exists():
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    if not seconds:
        return None
    found = row(name, seconds, gigabytes)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return found


def _spawn(step: str, name: str, directory: str, seconds: float, gigabytes: float) -> str:
    """Run one step on one network; return why it died, or nothing."""
    command = [sys.executable, "-m", "tests.benchmarks.coverage", name, "--step", step, "--directory", directory]
    command += ["--gigabytes", str(gigabytes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired:
        return f"not finished after {seconds:.0f} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, and under it why some are below half."""
    columns = [c for c in COLUMNS if c != "fault" or any(r["fault"] for r in rows)]
    lines = [[COLUMNS[c] for c in columns], ["---"] * len(columns), *([_cell(r.get(c)) for c in columns] for r in rows)]
    below = [f"\n- `{r['network']}`: {r['left']}" for r in rows if not r.get("enough", True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "".join(below)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    return "" if value is None else str(value).replace("|", "\\|")


def main() -> int:
    """Examine the networks, and write the table after each; 1 if any has a fault."""
    from tests.benchmarks import short

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--parts", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--gigabytes", type=float, default=16)
    parser.add_argument("--step", choices=("examine", "reload"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    args = short.parse(parser, names=["squeezenet1_1"])
    if args.step:
        limit = int(args.gigabytes * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        {"examine": examine, "reload": reload}[args.step](args.names[0], args.directory)
        return 0
    if not args.names:
        from tests.benchmarks.networks import torchvision_names

        args.names = torchvision_names()
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for found in pool.map(lambda name: stored_row(name, args.parts, args.seconds, args.gigabytes), args.names):
            if found is None:
                continue
            rows.append(found)
            print(" ".join(_cell(found.get(c)) for c in ["wall", *COLUMNS]), flush=True)
            if args.out:
                args.out.write_text(table(rows))
    return int(any(r["fault"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
