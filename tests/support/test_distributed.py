"""Two processes, over gloo, do what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.support import distributed

COMMON = """
import os, sys
import torch
from pathlib import Path
from torch.utils.data import DataLoader, TensorDataset
from compressor.support import distributed
from compressor.tasks import evaluate
from compressor.recipe import FinetuneSection
from compressor.selection.moments import collect_moments
from compressor.data.base import HeldOut
from compressor.training import checkpoint
from compressor.training.best import Best
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

distributed.start()
images = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(1))
labels = (images.mean((1, 2, 3)) * 8).round().clamp(-1, 1).long() + 1
data = TensorDataset(images, labels)
train = DataLoader(data, batch_size=16, shuffle=True, drop_last=True, generator=torch.Generator())
settings = FinetuneSection(epochs=8, lr=0.05)
held_out = HeldOut(DataLoader(data, batch_size=8))
"""

WORK = """
both = evaluate(Tiny().eval(), DataLoader(data, batch_size=8), together=True)
assert both == evaluate(Tiny().eval(), DataLoader(data, batch_size=8)), both
batches = [(part,) for part in images.split(8)]
assert evaluate(Tiny().eval(), list(zip(images.split(8), labels.split(8))), together=True) == both

found = collect_moments(Tiny().eval(), ["head.weight", "conv.weight"], batches)
torch.save({name: (m.gram, m.total, m.rows) for name, m in found.items()}, f"moments-{distributed.rank()}")

def stop(progress):
    if progress.epoch == 3:
        raise ZeroDivisionError

file = Path("state") if distributed.leads() else Path("nowhere/state")
try:
    model = Tiny()
    finetune(model, Tiny(seed=7), train, settings, best=Best(model, held_out), checkpoint=file, progress=stop)
except ZeroDivisionError:
    print("stopped")
"""

FINETUNE = """
model = Tiny()
best = Best(model, held_out)
file = Path("state") if distributed.leads() else Path("nowhere/state")
history = finetune(model, Tiny(seed=7), train, settings, best=best, checkpoint=file)
assert len(best.scores) == 9 and distributed.all_gather(best.found()) == [best.found()] * distributed.count()
torch.save((model.state_dict(), [e.loss for e in history]), f"weights-{distributed.rank()}")
assert not Path("nowhere").exists()
assert distributed.lead(lambda: distributed.rank()) == 0
"""

DIES = """
from compressor.cli import app as cli
def run():
    def stop(progress): pass
    if not distributed.leads():
        import threading
        threading.Timer(1.0, os._exit, [1]).start()
    settings = FinetuneSection(epochs=100000)
    finetune(Tiny(), None, train, settings)
cli.app = lambda **kwargs: run()
cli.main()
"""

REFUSES = """
from compressor.cli import app as cli
from compressor.errors import InputError
def refuse():
    raise InputError("this is wrong")
cli.app = lambda **kwargs: distributed.lead(refuse)
cli.main()
"""


def launch(code: str, directory: Path, processes: int = 2) -> list[tuple[int, str]]:
    """Run code in processes that know each other; returns exit code and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = str(Path(__file__).parents[2])
    common = os.environ | {"PYTHONPATH": root, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    numbers = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COMMON + code],
            env=common | numbers | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=directory,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, error) for process, error in zip(started, errors, strict=True)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories in which one process and two have worked; the two are interrupted and go on."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for code, directory, processes in ((WORK + FINETUNE.replace('"state"', '"new"'), one, 1), (FINETUNE, two, 2)):
        if processes == 2:
            interrupted = launch(WORK, two)
            assert interrupted[0][0] == 0, interrupted[0][1]
        for exit_code, error in launch(code, directory, processes):
            assert exit_code == 0, error
    return one, two


def test_moments_are_the_same_to_rounding(done: tuple[Path, Path]) -> None:
    import torch

    one, first, second = (torch.load(d / f"moments-{rank}") for d, rank in ((done[0], 0), (done[1], 0), (done[1], 1)))
    for name in one:
        assert one[name][2] == first[name][2] == second[name][2]
        for a, b, c in zip(one[name][:2], first[name][:2], second[name][:2], strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
            assert torch.equal(b, c)


def test_fine_tuning_is_shared_and_goes_on_together(done: tuple[Path, Path]) -> None:
    import torch

    (_, alone), (first, together), (second, _) = (
        torch.load(d / f"weights-{rank}") for d, rank in ((done[0], 0), (done[1], 0), (done[1], 1))
    )
    assert len(together) == 8
    assert together[-1] == pytest.approx(alone[-1], rel=0.25)
    assert all(torch.equal(first[name], second[name]) for name in first if "running" not in name)


def test_a_process_that_dies_ends_the_others_with_a_message(tmp_path: Path) -> None:
    (code, error), _ = launch(DIES, tmp_path)
    assert code == 3, error
    assert "another process of this run has ended" in error
    assert "Traceback" not in error


def test_an_error_of_the_leader_ends_all_and_is_told_once(tmp_path: Path) -> None:
    (code, error), (other_code, other_error) = launch(REFUSES, tmp_path)
    assert (code, other_code) == (2, 2)
    assert "this is wrong" in error
    assert "error" not in other_error


def test_what_splits_the_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="FSDP, DeepSpeed and Megatron are not supported"):
        distributed.start()


def test_alone_everything_is_done_here() -> None:
    assert (distributed.count(), distributed.leads(), distributed.lead(lambda: 5), distributed.all_gather(3)) == (
        1,
        True,
        5,
        [3],
    )
    assert list(distributed.share([1, 2, 3])) == [1, 2, 3]
