"""Tokens at places where the group disagrees weigh more (TW-GRPO).

    n_t = (D_t - min D) / (max D - min D + eps)  over the places of the group,    W_t = 1 + (alpha - 1) n_t

with D of the signal `disagreement`.

Source: TW-GRPO's released code: alpha 1.7 in the script, 1.4 as the argument's default. There the gradient flows
through the weights as well; here they are detached.
Odd cases: a group that agrees, or disagrees everywhere alike, has weight 1. Acts beside a ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_extreme
from services.learning.batch import Batch
from services.learning.weight import Weighed, everywhere


@dataclass(frozen=True)
class TwGrpo:
    """D = [1.023716, 0, 5.038722]: n = [.203170, 0, 1], W = [1.142219, 1, 1.7]."""

    alpha: float = knob(1.7, "weight of the place with most disagreement", ge=1)
    eps: float = knob(1e-8, "added to the range", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"disagreement"})
    shapes: ClassVar[str] = "places where the group disagrees weigh up to alpha"

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """W of each token."""
        apart_NT, valid_NT = batch.signals["disagreement"], batch.valid_NT
        most_N1, least_N1 = _extreme(batch, apart_NT, valid_NT, "amax"), _extreme(batch, apart_NT, valid_NT, "amin")
        normal_NT = (apart_NT - least_N1) / (most_N1 - least_N1 + self.eps).clamp(min=1e-12)
        return {"tw_weight": 1 + (self.alpha - 1) * torch.where(valid_NT, normal_NT, torch.zeros_like(apart_NT))}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        return Weighed(batch.signals["tw_weight"].to(logp_NT.dtype), everywhere(logp_NT))


def _extreme(batch: Batch, x_NT: Tensor, valid_NT: Tensor, how: str) -> Tensor:
    """Largest or smallest value among the tokens of each rollout's group, [N, 1]; 0 for a group without any."""
    empty = float("-inf") if how == "amax" else float("inf")
    kept_NT = torch.nn.functional.pad(torch.where(valid_NT, x_NT, x_NT.new_full((), empty)), (0, 1), value=empty)
    own_N = getattr(kept_NT, how)(1)
    return masked_extreme(batch, own_N, own_N.isfinite(), how)[:, None].nan_to_num(0.0, 0.0, 0.0)
