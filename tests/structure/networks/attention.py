"""Small networks: attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MaxVit, SwinTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from tests.structure.networks.case import case, image

TOKENS = image(2, 5, 8)


class MultiHead(nn.Module):
    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.stem, self.attend = nn.Linear(8, 12), nn.MultiheadAttention(12, 3, batch_first=batch_first, **options)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = x if self.batch_first else x.transpose(0, 1)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1 if self.batch_first else 0))


@case(TOKENS, sizes={"stem": 12, "attend": 3})
def multihead() -> nn.Module:
    return MultiHead(batch_first=True)


@case(TOKENS, sizes={"stem": 12, "attend": 3})
def multihead_sequence_first() -> nn.Module:
    return MultiHead(batch_first=False)


@case(TOKENS)
def multihead_extra_key() -> nn.Module:
    return MultiHead(batch_first=True, add_bias_kv=True, add_zero_attn=True)


@case(TOKENS)
def multihead_unbiased() -> nn.Module:
    return MultiHead(batch_first=True, bias=False)


@case(lambda: (torch.randn(2, 5, 8), torch.randn(2, 7, 10)))
class CrossAttention(nn.Module):
    """Queries from one stream, keys and values of another width from the other, with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, kdim=12, vdim=12, batch_first=True)
        self.left, self.right, self.head = nn.Linear(8, 8), nn.Linear(10, 12), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.left(x), torch.tanh(self.right(y))
        mask = torch.arange(7).expand(len(y), -1) > 4
        return self.head(x + self.attend(x, y, y, key_padding_mask=mask)[0])


@case(TOKENS, sizes={"0.self_attn": 2, "0.linear1": 12})
def encoder_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Linear(8, 3))


class FusedAttention(nn.Module):
    def __init__(self, width: int = 8, heads: int = 4, head: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, head
        self.qkv, self.proj = nn.Linear(width, 3 * heads * head), nn.Linear(heads * head, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, -1))


@case(TOKENS, sizes={"fc1": 12, "attend.qkv": 4})
class Transformer(nn.Module):
    """Norm, fused attention, norm, perceptron, on a stream with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 6, 8))
        self.embed, self.norm1, self.attend = nn.Linear(8, 8), nn.LayerNorm(8), FusedAttention()
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm3, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.place
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


def layers(sizes: dict[str, int], *blocks: str) -> dict[str, int]:
    """The same groups in every block."""
    return {f"{block}.{name}": size for block in blocks for name, size in sizes.items()}


@case(image(2, 3, 10, 10), sizes=layers({"attn.qkv": 2, "mlp.0": 32}, "features.1.0", "features.1.1"))
def swin() -> nn.Module:
    return SwinTransformer([2, 2], 8, [2], [2], [2, 2], stochastic_depth_prob=0.0, num_classes=3)


@case(
    image(2, 3, 10, 6),
    sizes=layers({"attn.cpb_mlp.0": 512, "attn.cpb_mlp.2": 2, "mlp.0": 32}, "features.1.0", "features.1.1"),
)
def swin_v2() -> nn.Module:
    kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([2, 2], 8, [2], [2], [2, 4], stochastic_depth_prob=0.0, num_classes=3, **kinds)


@case(
    image(2, 3, 16, 16),
    sizes={"stem.0.0": 6, "stem.1.0": 6, "classifier.3": 8}
    | layers({"layers.conv_a.0": 32, "layers.squeeze_excitation.fc1": 2}, "blocks.0.layers.0.layers.MBconv")
    | layers(
        {"attn_layer.1.to_qkv": 2, "mlp_layer.1": 32},
        "blocks.0.layers.0.layers.window_attention",
        "blocks.0.layers.0.layers.grid_attention",
    ),
)
def maxvit() -> nn.Module:
    return MaxVit((16, 16), 6, 2, [8], [1], 4, stochastic_depth_prob=0.0, num_classes=3)


@case(sizes={"last": 6}, left={"stem": "computed weights by normed", "normed": "computed from other tensors"})
class Standardised(nn.Module):
    """A convolution that normalises its weight whenever it runs: cutting an input would change all of it."""

    class Normed(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, F.layer_norm(self.weight, self.weight.shape[1:]), self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.normed, self.last = nn.Conv2d(3, 8, 1), self.Normed(8, 5, 1), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.last(F.relu(self.normed(F.relu(self.stem(x)))))).mean((2, 3)))


@case(TOKENS, sizes={"fc1": 6})
class PackedGate(nn.Module):
    """Values and their gates come out of one layer, as in SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.fc1(x).chunk(2, -1)
        return self.fc2(values * F.silu(gates)).mean(1)


@case(TOKENS, sizes={"attend.qkv": 4})
class Rotary(nn.Module):
    """Attention with positions that turn queries and keys, the same in every head."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = FusedAttention(head=2), nn.Linear(8, 4)
        self.register_buffer("turn", torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.attend.qkv(x).reshape(batch, tokens, 3, -1, 2).permute(2, 0, 3, 1, 4)
        q, k = (t * self.turn + t.flip(-1) * self.turn.roll(1, 0) for t in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.attend.proj(mixed).softmax(-1).mean(1))


class Separate(nn.Module):
    """Separate q, k, v; `pairs` of query heads share one key and value head; optionally normed queries and keys."""

    def __init__(self, heads: int = 4, shared: int = 1, normed: bool = False) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = heads, heads // shared, 3
        self.q, self.k = nn.Linear(8, heads * 3), nn.Linear(8, heads // shared * 3)
        self.v, self.out = nn.Linear(8, heads // shared * 3), nn.Linear(heads * 3, 8)
        self.q_norm, self.k_norm = (nn.LayerNorm(3), nn.LayerNorm(3)) if normed else (nn.Identity(), nn.Identity())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_norm(self.q(x).view(batch, tokens, self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(batch, tokens, self.num_kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.num_kv_heads, self.head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, 1) for t in (k, v))
        weights = (q @ k.transpose(2, 3) / math.sqrt(self.head_dim)).softmax(-1)
        return self.head(x + self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, -1)))


@case(TOKENS, sizes={"q": 4})
def separate() -> nn.Module:
    return Separate()


@case(TOKENS, sizes={"q": 4})
def query_key_norm() -> nn.Module:
    return Separate(normed=True)


@case(TOKENS, sizes={"q": 4})
class ShortNames(nn.Module):
    """The names of a textbook: as many heads as each is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.h, self.d_k = 4, 4
        self.q, self.k, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], self.h, self.d_k)
        q, k, v = (layer(x).view(split).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(2, 3) / self.d_k**0.5).softmax(-1) @ v
        return self.head(x + self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], self.h * self.d_k)))


@case(TOKENS)
def grouped_query() -> nn.Module:
    return Separate(shared=2)


@case(TOKENS, sizes={"tokens.0": 7, "channels.0": 12})
class TokenMixer(nn.Module):
    """MLP-Mixer: a perceptron over the tokens, then one over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(8, 8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.head(x.mean(1))
