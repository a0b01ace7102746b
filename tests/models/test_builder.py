from pathlib import Path

import pytest
import torch

from compressor.errors import InputError
from compressor.models.builder import build_model, check_forward, example_inputs
from compressor.models.digits import digits_resnet
from compressor.recipe import ModelSection

DIGITS = "compressor.models.digits:digits_resnet"


def section(builder: str = DIGITS, shape: tuple[int, ...] = (1, 32, 32), **args: object) -> ModelSection:
    return ModelSection(builder=builder, input=shape, args=args)


def test_the_model_is_built_with_its_arguments_in_evaluation_mode() -> None:
    model = build_model(section(width=16, classes=3), Path())
    assert not model.training
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_a_builder_that_returns_no_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.builder: .* returned dict"):
        build_model(section("builtins:dict"), Path())


def test_example_inputs_depend_on_the_seed_only() -> None:
    first, again, other = (example_inputs(section(), batch=3, seed=s)[0] for s in (1, 1, 2))
    assert first.shape == (3, 1, 32, 32)
    assert first.equal(again) and not first.equal(other)


def test_an_input_that_the_model_does_not_take_is_named_with_its_shape() -> None:
    wrong = section(shape=(3, 32, 32))
    with pytest.raises(InputError, match=r"model.input: .*\[2, 3, 32, 32\].*RuntimeError"):
        check_forward(digits_resnet(16).eval(), wrong)


def test_a_model_whose_output_is_no_tensor_is_refused() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(InputError, match="returns a tuple"):
        check_forward(Pair(), section())


def test_the_network_for_digits_takes_its_input() -> None:
    check_forward(digits_resnet().eval(), section())
