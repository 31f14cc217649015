"""The baseline of least variance: rewards of the group, weighed by the squared norm of their scores.

    w_t = 1 - 2 p_t + sum_v p_v^2  (the score's squared norm in the logits),    W_t = w_1 + ... + w_t
    level rollout   b = sum_i W_i r_i / sum_i W_i,    W_i = W at the last token     (OBLR-PO: E |g|^2 r / E |g|^2)
    level token     B_t = sum_i r_i W_{i,t} / sum_i W_{i,t}  over the rollouts that have a token t
    A = r - b, or r - B_t

Source: OBLR-PO, arXiv:2511.23310, has the norm of the gradient in the parameters; that of the logits stands in for it
here, as in verl's optimal token baseline, which is level token.
Odd cases: a group of one has no baseline: A = r. `zero_tail`: nor has what a rollout says after all others of its
group have ended; else that is 0 there. Equal rewards get 0. Released code multiplies w by squared importance weights
where it has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage.opo import weighted
from services.learning.batch import Batch
from services.learning.reduce import group_range, group_size


@dataclass(frozen=True)
class OptimalBaseline:
    """r [1, 0], w [[.5, .2], [.3, .9]]: B = [.625, .368421], A = [[.375, .631579], [-.625, -.368421]]."""

    level: str = knob("token", "one baseline per rollout or per place", choices=("token", "rollout"))
    zero_tail: bool = knob(False, "no baseline where one rollout alone is left (verl's handle_zero_tail)")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"collision", "step_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        share_NT = torch.where(batch.mask_NT, batch.signals["step_logp"], torch.zeros_like(batch.behaviour_NT)).exp()
        norm_NT = (1 - 2 * share_NT + batch.signals["collision"]).clamp(min=0) * batch.mask_NT
        return self.of(batch, norm_NT)

    def of(self, batch: Batch, norm_NT: Tensor) -> Tensor:
        """The advantage where the scores have these squared norms, 0 off trained tokens."""
        if self.level == "rollout":
            return weighted(batch, norm_NT.sum(1))
        weight_NT = norm_NT.cumsum(1).mul_(batch.mask_NT)
        top_GT, below_GT = (_by_group(batch, x_NT) for x_NT in (weight_NT * batch.reward_N[:, None], weight_NT))
        base_NT = (top_GT / below_GT.clamp_(min=1e-8))[batch.group_N]
        base_NT.mul_((group_size(batch) > 1)[:, None])
        if self.zero_tail:
            base_NT.mul_((_by_group(batch, batch.mask_NT.to(weight_NT.dtype)) > 1)[batch.group_N])
        flat_N = (group_range(batch, batch.reward_N) == 0) & (group_size(batch) > 1)
        return (batch.reward_N[:, None] - base_NT).mul_(batch.mask_NT).mul_(~flat_N[:, None])


def _by_group(batch: Batch, x_NT: Tensor) -> Tensor:
    return x_NT.new_zeros((batch.groups, x_NT.shape[1])).index_add_(0, batch.group_N, x_NT)
