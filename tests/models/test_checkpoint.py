import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.checkpoint import load_checkpoint

State = dict[str, Tensor]


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


@pytest.fixture
def state() -> State:
    torch.manual_seed(7)
    return {key: value.clone() for key, value in network().state_dict().items()}


def load(path: Path, content: Any, **options: bool) -> tuple[nn.Module, Any]:
    torch.save(content, path)
    model = network()
    return model, load_checkpoint(model, path, **options)


def same(model: nn.Module, state: State) -> bool:
    return all(model.state_dict()[key].equal(value) for key, value in state.items())


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".ckpt"])
def test_torch_files_of_every_suffix_load(tmp_path: Path, state: State, suffix: str) -> None:
    model, report = load(tmp_path / f"weights{suffix}", state)
    assert same(model, state)
    assert (report.entry, report.tensors, report.ignored) == ("", len(state), ())


def test_safetensors_load(tmp_path: Path, state: State) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    model = network()
    load_checkpoint(model, path)
    assert same(model, state)


def test_the_report_has_the_hash_of_the_file(tmp_path: Path, state: State) -> None:
    path = tmp_path / "weights.pth"
    assert load(path, state)[1].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "entry", ["state_dict", "model", "model_state_dict", "net", "ema", "model.state_dict", "other.ema.module"]
)
def test_nested_state_dicts_are_found(tmp_path: Path, state: State, entry: str) -> None:
    content: Any = state
    for name in reversed(entry.split(".")):
        content = {name: content, "epoch": 3, "best": torch.tensor(0.9)}
    model, report = load(tmp_path / "weights.pth", content)
    assert same(model, state)
    assert report.entry == entry


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.", "_orig_mod.module.model."]
)
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, state: State, prefix: str) -> None:
    assert same(load(tmp_path / "weights.pth", {"state_dict": prefixed(prefix)(state)})[0], state)


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": nn.Linear(2, 2)})
    wanted = {"model.weight": torch.ones(2, 2), "model.bias": torch.ones(2)}
    torch.save(wanted, tmp_path / "weights.pth")
    load_checkpoint(model, tmp_path / "weights.pth")
    assert same(model, wanted)


def test_the_state_dict_that_fits_is_taken_and_not_the_optimizers(tmp_path: Path, state: State) -> None:
    content = {"optimizer": {"state_dict": {"0.weight": torch.zeros(1)}}, "net": prefixed("module.")(state)}
    assert load(tmp_path / "weights.pth", content)[1].entry == "net"


def test_batch_counters_may_be_missing(tmp_path: Path, state: State) -> None:
    del state["1.num_batches_tracked"]
    model, report = load(tmp_path / "weights.pth", state)
    assert same(model, state)
    assert report.tensors == len(state)


def test_harmless_counters_that_are_left_over_are_ignored_and_named(tmp_path: Path, state: State) -> None:
    extra = {"total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    assert load(tmp_path / "weights.pth", state | extra)[1].ignored == ("total_ops", "0.total_params")


def test_half_precision_weights_are_widened(tmp_path: Path, state: State) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    model, _ = load(tmp_path / "weights.pth", half)
    assert model.state_dict()["0.weight"].equal(half["0.weight"].float())


def test_plain_companions_of_a_state_dict_need_no_pickle_flag(tmp_path: Path, state: State) -> None:
    content = {"model": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)}
    assert same(load(tmp_path / "weights.pth", content)[0], state)


def test_a_pickled_module_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Sequential(.|\n)*model.allow_pickle: true"):
        load(tmp_path / "weights.pth", network())


def test_a_pickled_module_is_taken_with_the_flag(tmp_path: Path) -> None:
    saved = network()
    assert same(load(tmp_path / "weights.pth", {"model": saved}, allow_pickle=True)[0], dict(saved.state_dict()))


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        load(tmp_path / "weights.pth", {"model": Evil()})
    assert not (tmp_path / "executed").exists()


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key not in names}


def replaced(name: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("0.weight", "3.bias"), ["2 missing (0.weight, 3.bias)"]),
        (replaced("head.weight", torch.zeros(1)), ["1 left over (head.weight)"]),
        (replaced("3.weight", torch.zeros(3, 4)), ["1 of another shape (3.weight [3, 4] instead of [2, 4])"]),
        (prefixed("backbone."), ["missing (0.weight, 0.bias, 1.weight, …)", "left over"]),
        (replaced("0.weight", torch.full((4, 1, 3, 3), torch.nan)), ["0.weight holds NaN"]),
        (replaced("0.bias", torch.empty(4, device="meta")), ["0.bias holds no dense numbers"]),
        (replaced("0.bias", torch.ones(4).to_sparse()), ["0.bias holds no dense numbers"]),
        (replaced("0.bias", torch.full((4,), 1e300, dtype=torch.float64)), ["0.bias holds NaN or infinite"]),
        (replaced("0.bias", torch.ones(4, dtype=torch.int8)), ["0.bias is torch.int8 instead of torch.float32"]),
        (lambda state: {"epoch": 3}, ["no state dict"]),
        (lambda state: "weights", ["no state dict"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path, state: State, change: Callable[[State], Any], words: list[str]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(state), path)
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_checkpoint(model, path)
    assert caught.value.where == str(path) and caught.value.cure
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert same(model, before)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all\n" * 9, b"\x80\x02", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        load_checkpoint(network(), path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, state: State, share: float, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="copy it again"):
        load_checkpoint(network(), path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.pth: there is no such file"):
        load_checkpoint(network(), tmp_path / "nowhere.pth")


@pytest.mark.filterwarnings("ignore")
def test_an_archive_of_torchscript_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(InputError, match="TorchScript"):
        load_checkpoint(network(), path)
