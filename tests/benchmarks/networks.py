"""Networks that are not ours, by name, with random weights that hide nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SEGMENTATION = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
LAYERS = 4
"""Layers of transformers from Hugging Face: all are alike, so a few are as good as many."""


class OneOutput(nn.Module):
    """A network from Hugging Face that returns its logits, or its last hidden state, as a plain tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.network(images)
        return outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state


def torchvision_names() -> list[str]:
    """Every classification builder of torchvision, and a few for segmentation."""
    import torchvision

    return [*torchvision.models.list_models(module=torchvision.models), *SEGMENTATION]


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Build a network in evaluation mode, and one image for it.

    Args:
        name: A builder of torchvision, `timm:` and a model of timm, or `hf:` and a class of transformers.
        seed: Seed of weights and image.

    Returns:
        The network, and a tensor of shape (1, 3, height, width).
    """
    torch.manual_seed(seed)
    library, _, rest = name.rpartition(":")
    model, size = _BUILDERS[library](rest)
    return _randomised(model).eval(), torch.randn(1, 3, size, size)


def _torchvision(name: str) -> tuple[nn.Module, int]:
    import torchvision

    settings: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name in SEGMENTATION:
        settings = {"weights_backbone": None}
    return torchvision.models.get_model(name, weights=None, **settings), 299 if name == "inception_v3" else 224


def _timm(name: str) -> tuple[nn.Module, int]:
    import timm

    model = timm.create_model(name, pretrained=False)
    return model, model.pretrained_cfg["input_size"][-1]


def _huggingface(name: str) -> tuple[nn.Module, int]:
    import transformers

    kind = getattr(transformers, name)
    config = kind.config_class()
    if isinstance(getattr(config, "num_hidden_layers", None), int) and not hasattr(config, "depths"):
        config.num_hidden_layers = LAYERS
    size = getattr(config, "image_size", 224)
    return OneOutput(kind(config)), size if isinstance(size, int) else size[0]


_BUILDERS = {"": _torchvision, "timm": _timm, "hf": _huggingface}


def _randomised(model: nn.Module) -> nn.Module:
    """Statistics, and weights that start out constant, drawn at random: zeros and ones hide mistakes."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif isinstance(tensor, nn.Parameter) and tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
                _draw(tensor)
    return model


def _draw(tensor: Tensor) -> None:
    if tensor.flatten()[0] == 0:
        tensor.normal_(0, 0.1 if tensor.dim() <= 1 else 0.02)
    else:
        tensor.uniform_(0.5, 1.5)
