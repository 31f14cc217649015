"""Attention for one new token per row over padded slots, without copying keys and values.

Where several query heads share a key-value head, the usual kernels first repeat keys and values for every query head.
For a single query token the sharing heads can stand in the place of the query positions instead, and one small matrix
product per key-value head does it: 1.5 to 5 times faster on a CPU at the widths of the tiny model. A prefill goes the
usual way.

Registered with transformers as an attention function of its own; used for architectures whose attention has nothing
beyond scale, mask and softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sluice_slots"
PLAIN = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose attention is nothing but softmax(scale * q k + mask) v."""


def slots_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' contract: `query` [N, H, Q, D], `key` and `value` [N, G, T, D], an additive mask [N, 1, 1, T]."""
    rows, heads, queries, size = query.shape
    if queries > 1 or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    shared_NGHD = (query * scaling).reshape(rows, key.shape[1], heads // key.shape[1], size)
    score_NGHT = torch.matmul(shared_NGHD, key.transpose(2, 3)) + attention_mask
    share_NGHT = torch.softmax(score_NGHT, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(share_NGHT, value).reshape(rows, 1, heads, size), None


def choose(model: torch.nn.Module) -> None:
    """Give the model this attention where its architecture allows it."""
    if model.config.model_type in PLAIN:
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, slots_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
