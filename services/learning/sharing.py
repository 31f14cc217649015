"""How sequences lie in what the model reads: one after another, or with a group's common beginning read once.

    padded    context answer1          shared    context answer1 answer2 answer3
              context answer2                    an answer attends to the context and to itself;
              context answer3                    its positions go on where the context ends

A hidden state depends on what stands before it only, so both give the same log-probs and, summed, the same gradient
(the idea of Prefix Grouper, arXiv:2506.05433). Shared is what pays when contexts are long beside answers; for long
answers the wide attention costs more than it saves, and padded is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from services.learning.batch import Batch

WORTH = 0.85
"""Shared must cost at most this share of padded."""
PROBED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """What the model reads. B packs of L positions; padding on the right."""

    input_BL: Tensor
    place_NT: Tensor
    """Where in the flattened [B, L] the state lies that predicts each token; 0 on padding."""
    position_BL: Tensor | None = None
    """Position ids; None: 0, 1, 2 ..."""
    mask_B1LL: Tensor | None = None
    """True where a position may attend; None: causal."""


def padded(batch: Batch) -> Layout:
    """One sequence after another. The last token of a sequence predicts nothing and is not read."""
    input_SL = batch.input_SL[:, : max(1, batch.input_SL.shape[1] - 1)]
    place_NT = batch.sequence_NT * input_SL.shape[1] + batch.position_NT - 1
    return Layout(input_SL, place_NT.clamp(min=0))


def shared(batch: Batch) -> Layout:
    """One pack per group: its common beginning, then each sequence's own tokens."""
    packs = _packs(batch)
    length, count = int(packs.width_B.max()), len(packs.width_B)
    device, width = batch.input_SL.device, batch.input_SL.shape[1]
    at_SL = torch.arange(width, device=device).expand(len(packs.pack_S), width)
    own_SL = (at_SL >= packs.common_S[:, None]) & (at_SL < batch.length_S[:, None] - 1)
    read_SL = own_SL | ((at_SL < packs.common_S[:, None]) & packs.first_S[:, None])
    goal_SL = packs.pack_S[:, None] * length + at_SL + (packs.start_S - packs.common_S)[:, None] * own_SL
    owner_SL = torch.where(own_SL, torch.arange(1, len(at_SL) + 1, device=device)[:, None], 0)
    input_BL = torch.zeros(count * length, dtype=torch.long, device=device)
    position_BL, owner_BL = torch.zeros_like(input_BL), torch.full_like(input_BL, -1)
    for target, source in ((input_BL, batch.input_SL), (position_BL, at_SL), (owner_BL, owner_SL)):
        target[goal_SL[read_SL]] = source[read_SL]
    owner_BL = owner_BL.view(count, length)
    sees_BLL = (owner_BL[:, None, :] == 0) | (owner_BL[:, None, :] == owner_BL[:, :, None])
    before_NT, s_NT = batch.position_NT - 1, batch.sequence_NT
    moved_NT = torch.where(before_NT >= packs.common_S[s_NT], (packs.start_S - packs.common_S)[s_NT], 0)
    place_NT = (packs.pack_S[s_NT] * length + before_NT + moved_NT).clamp(min=0)
    return Layout(input_BL.view(count, length), place_NT, position_BL.view(count, length), sees_BLL.tril()[:, None])


def pays(batch: Batch, hidden: int) -> bool:
    """Whether sharing costs clearly less: positions times (1 + their attention), for a model of this width."""
    if len(batch.length_S) < 2:
        return False
    packs = _packs(batch)
    one = _cost(len(batch.length_S), int(batch.length_S.max()) - 1, hidden)
    return _cost(len(packs.width_B), int(packs.width_B.max()), hidden) < WORTH * one


def supported(model: nn.Module) -> bool:
    """Whether a model gives the same states in both layouts: tried once on made-up tokens, and remembered.

    Asked only of models with torch's own attention in every layer; sliding windows, recurrent layers and attention
    kernels without free masks are left alone.
    """
    if model not in PROBED:
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        plain = getattr(config, "_attn_implementation", "") == "sdpa" and kinds == {"full_attention"}
        PROBED[model] = plain and _same(model)
    return PROBED[model]


@dataclass(frozen=True)
class _Packs:
    """Per sequence: its pack, the tokens it has in common with it, where its own begin, whether it is the first."""

    pack_S: Tensor
    common_S: Tensor
    start_S: Tensor
    first_S: Tensor
    width_B: Tensor


def _packs(batch: Batch) -> _Packs:
    group_S = batch.group_N[batch.row_S]
    _, pack_S, size_B = group_S.unique(return_inverse=True, return_counts=True)
    order = pack_S.argsort(stable=True)
    begin_B = size_B.cumsum(0) - size_B
    head_S = order[begin_B][pack_S]  # the first sequence of each one's pack
    short_S = torch.minimum(batch.length_S, batch.length_S[head_S]) - 1
    at_L = torch.arange(batch.input_SL.shape[1], device=group_S.device)
    same_SL = (batch.input_SL == batch.input_SL[head_S]) & (at_L < short_S[:, None])
    alike_S = same_SL.long().cumprod(1).sum(1)
    common_B = alike_S.new_zeros(len(size_B)).scatter_reduce(0, pack_S, alike_S, "amin", include_self=False)
    common_S = common_B[pack_S]
    own_S = batch.length_S - 1 - common_S
    before_S = torch.empty_like(own_S)
    running = own_S[order].cumsum(0) - own_S[order]
    before_S[order] = running - running[begin_B][pack_S[order]]
    width_B = common_B + torch.zeros_like(common_B).index_add_(0, pack_S, own_S)
    first_S = head_S == torch.arange(len(head_S), device=head_S.device)
    return _Packs(pack_S, common_S, common_S + before_S, first_S, width_B.clamp(min=1))


def _cost(count: int, length: int, hidden: int) -> float:
    return count * length * (1 + length / (6 * hidden))


@torch.no_grad()
def _same(model: nn.Module) -> bool:
    weight = model.get_input_embeddings().weight
    vocabulary = weight.shape[0]
    texts = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 6, 7]], device=weight.device) % vocabulary
    packed = torch.cat((texts[0], texts[1, 3:]))[None]
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4]], device=weight.device)
    mask = torch.ones((7, 7), dtype=torch.bool, device=weight.device).tril()
    mask[5:, 3:5] = False
    try:
        one = model.base_model(input_ids=texts, use_cache=False).last_hidden_state
        other = model.base_model(
            input_ids=packed, position_ids=positions, attention_mask=mask[None, None], use_cache=False
        ).last_hidden_state
    except (ValueError, RuntimeError, TypeError):
        return False  # a model that does not take such a mask
    wanted = torch.cat((one[0], one[1, 3:]))
    return bool(torch.allclose(wanted.float(), other[0].float(), atol=1e-3 * float(wanted.abs().max())))
