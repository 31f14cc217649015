"""Good answers must not lose likelihood: a penalty on the fall of their log-probs since they were sampled (LLDS).

    d_t = prox_t - logp_t;    loss += coef * sum_t max(0, d_t) gate_t / (trained tokens),  on rollouts with A >= 0
    gate  run:      a run of trained tokens without a gap is active where its sum of d is above 0
          response: the whole rollout is active where its sum of d is above 0

Source: lazy likelihood displacement in GRPO for search agents, arXiv:2512.04220; released "chunk" mode is `run`, 0.2.
Odd cases: A = 0 counts as good. The denominator is every trained token, of bad answers too. With `prox: recompute`
and one update per batch d is 0: the penalty needs stale rollouts or `prox: behaviour`. The weaker pull inside an
answer's span of the released adaptive mode is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.reduce import per_token
from services.learning.regularizer import safe, token_mean, usable


@dataclass(frozen=True)
class Llds:
    """d = [.3, -.1, ., -.2, .1] with a tool's token between: runs sum to .2 and -.1; .2 (.3) / 8 tokens = 0.0075."""

    coef: float = knob(0.2, "strength", unit="per nat", ge=0)
    gate: str = knob("run", "what is active as a whole", choices=("run", "response"))

    __post_init__ = check

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        good_NT = per_token(batch.signals["advantage"], forward.logp_NT) >= 0
        mask_NT = usable(batch, forward.logp_NT, batch.prox_NT) & good_NT
        fall_NT = safe(mask_NT, batch.prox_NT) - safe(mask_NT, forward.logp_NT)
        open_NT = mask_NT & (self._sum(batch.mask_NT & good_NT, fall_NT.detach()) > 0)
        return self.coef * token_mean(batch, fall_NT.clamp(min=0), open_NT)

    def _sum(self, mask_NT: Tensor, fall_NT: Tensor) -> Tensor:
        """Sum of the fall over the run, or the rollout, that each token is in."""
        if self.gate == "response":
            return fall_NT.sum(1, keepdim=True)
        before_NT = torch.cat([torch.zeros_like(mask_NT[:, :1]), mask_NT[:, :-1]], 1)
        run_NT = (mask_NT & ~before_NT).long().cumsum(1)
        total_NR = fall_NT.new_zeros((len(fall_NT), fall_NT.shape[1] + 1)).scatter_add(1, run_NT, fall_NT * mask_NT)
        return total_NR.gather(1, run_NT)
