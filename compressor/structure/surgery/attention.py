"""Multi-head attention with fewer heads than its embedding has room for.

`nn.MultiheadAttention` derives the width of a head from the embedding, so it cannot lose a head. Here the heads keep
their width and the projections say how many there are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FewerHeads(nn.MultiheadAttention):
    """What an `nn.MultiheadAttention` becomes when heads are removed: same arguments, same weights' names.

    Its `embed_dim` stays the width of inputs and outputs; `num_heads * head_dim` is the width inside.
    """

    @staticmethod
    def convert(module: nn.Module) -> None:
        """Turn an `nn.MultiheadAttention`, whose projections are cut already, into this class, in place."""
        assert isinstance(module, nn.MultiheadAttention)
        module.__class__ = FewerHeads
        module.embed_dim = module.out_proj.weight.shape[0]
        first = module.in_proj_weight if module.in_proj_weight is not None else module.k_proj_weight
        module.kdim = first.shape[1]
        module.vdim = first.shape[1] if module.in_proj_weight is not None else module.v_proj_weight.shape[1]
        module.num_heads = module.out_proj.weight.shape[1] // module.head_dim
        module._qkv_same_embed_dim = False  # by which the layers around it know that their fused kernels do not fit

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`."""
        if not self.batch_first and query.dim() == 3:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = (self._heads(x, i) for i, x in enumerate((query, key, value)))
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = F.dropout(weights, dropout, self.training) @ v
            weights = weights.mean(-3) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.out_proj(mixed.transpose(-3, -2).flatten(-2))
        return (out.transpose(0, 1) if not self.batch_first and query.dim() == 3 else out), weights

    def _heads(self, x: Tensor, which: int) -> Tensor:
        width = self.num_heads * self.head_dim
        rows = slice(which * width, (which + 1) * width)
        if self.in_proj_weight is not None:
            weight = self.in_proj_weight[rows]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[which]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return F.linear(x, weight, bias).unflatten(-1, (self.num_heads, self.head_dim)).transpose(-3, -2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        masks = []
        if attn_mask is not None:
            mask = F._canonical_mask(attn_mask, "attn_mask", None, "", q.dtype, check_other=False)
            assert mask is not None
            masks.append(mask.unflatten(0, (-1, mask.shape[0] // q.shape[0])) if mask.dim() == 3 else mask)
        if padding is not None:
            mask = F._canonical_mask(padding, "key_padding_mask", None, "", q.dtype, check_other=False)
            assert mask is not None
            masks.append(mask[..., None, None, :])
        return torch.stack(torch.broadcast_tensors(*masks)).sum(0) if masks else None
