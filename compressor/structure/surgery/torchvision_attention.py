"""Attention of torchvision's Swin and MaxViT with fewer heads, or with a narrower embedding.

Their code takes the width of a head, or of all heads, from that of the embedding. Here the heads keep their width, and
the projections say how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

HIGHEST = math.log(100.0)
"""Logarithm of the largest scale of the cosine of queries and keys (arXiv 2111.09883, section 3.2)."""


def convert(module: nn.Module, before: nn.Module) -> None:
    """Turn attention of torchvision whose projections are cut already into one of the classes below, in place.

    Args:
        module: Any module; others than attention are left as they are.
        before: The same module with its original widths.
    """
    if type(module) in _WINDOWS:
        assert isinstance(before, ShiftedWindowAttention)
        setattr(module, "head_dim", before.proj.in_features // before.num_heads)  # noqa: B010 - not a field of its class
        module.__class__ = _WINDOWS[type(module)]
    elif type(module) is RelativePositionalMultiHeadAttention:
        module.__class__ = FewerRelativeHeads


class FewerRelativeHeads(RelativePositionalMultiHeadAttention):
    """Attention within the windows, or along the grid, of a MaxViT."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, windows, tokens, channels) to the same shape."""
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(2, 3) for part in self.to_qkv(x).chunk(3, -1))
        scores = torch.einsum("bwhid,bwhjd->bwhij", q, k * self.scale_factor) + self.get_relative_positional_bias()
        mixed = torch.einsum("bwhij,bwhjd->bwhid", scores.softmax(-1), v)
        out: Tensor = self.merge(mixed.transpose(2, 3).flatten(-2))
        return out


class _FewerWindowHeads(ShiftedWindowAttention):
    """Attention within windows, every second time within shifted ones (arXiv 2103.14030, section 3.2)."""

    head_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width, channels) to the same shape."""
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        size = x.shape[1:3]
        shift = [s if length > w else 0 for s, w, length in zip(self.shift_size, self.window_size, size, strict=True)]
        if any(shift):
            x = x.roll([-s for s in shift], (1, 2))
        windows = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).transpose(2, 3)
        grid = windows.shape[1:3]
        mask = self._mask(size, shift, x) if any(shift) else None
        mixed = self._attend(windows.flatten(3, 4).flatten(0, 2), mask)
        x = mixed.unflatten(1, (rows, columns)).unflatten(0, (-1, *grid)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width].contiguous()

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attention within windows (batch * windows, tokens, channels)."""
        qkv = F.linear(x, self.qkv.weight, self._bias())
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind()
        scores = self._scores(q, k) + self.get_relative_position_bias()
        if mask is not None:
            scores = (scores.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        return F.dropout(self.proj((weights @ v).transpose(1, 2).flatten(2)), self.dropout, self.training)

    def _bias(self) -> Tensor | None:
        return self.qkv.bias

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * self.head_dim**-0.5) @ k.transpose(-1, -2)

    def _mask(self, size: Sequence[int], shift: Sequence[int], like: Tensor) -> Tensor:
        """Which tokens of a shifted window were neighbours before: (windows, tokens, tokens), 0 or -100."""
        sides = []
        for length, window, moved in zip(size, self.window_size, shift, strict=True):
            place = torch.arange(length, device=like.device)
            side = (place >= length - window).long() + (place >= length - moved).long() if moved else 0 * place
            sides.append(side.unflatten(0, (-1, window)))
        region = (3 * sides[0][:, None, :, None] + sides[1][None, :, None, :]).flatten(2).flatten(0, 1)
        return (region[:, None] != region[:, :, None]).to(like.dtype) * -100.0


class FewerWindowHeads(_FewerWindowHeads):
    """Of a Swin Transformer."""


class FewerWindowHeadsV2(_FewerWindowHeads, ShiftedWindowAttentionV2):
    """Of a Swin Transformer V2: cosine attention, and no bias on the keys."""

    def _bias(self) -> Tensor | None:
        bias, width = self.qkv.bias, self.num_heads * self.head_dim
        return None if bias is None else torch.cat([bias[:width], bias.new_zeros(width), bias[-width:]])

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        scale = self.logit_scale.clamp(max=HIGHEST).exp()
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * scale


_WINDOWS: dict[type[nn.Module], type[nn.Module]] = {
    ShiftedWindowAttention: FewerWindowHeads,
    ShiftedWindowAttentionV2: FewerWindowHeadsV2,
}
