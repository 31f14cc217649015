"""How far the rollouts of a group disagree on the next token, place by place, before the step.

    x_gtv = log p of token v at place t of rollout g (uniform, -log V, where it has ended);   m = mean_g x
    D_t = mean_g sum_v (e^d - d - 1),   d = m - x_g clamped to +-11

Each group is read in a pass of its own, so that the logits of one group are held at a time.

Source: TW-GRPO's released code (longmalongma/TW-GRPO). No divergence: the sum is not weighed by p.
Odd cases: `ended: uniform` is the released rule and lets a place stand out where lengths differ; `absent` averages over
the rollouts that are still there, so that a place that one alone has gets 0. A group of one gets 0 throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class Disagreement:
    """p_A [[.7, .1, .1, .1], [.25 x 4], [.97, .01 x 3]], p_B [[.1, .7, .1, .1], [.25 x 4]]: [1.023716, 0, 5.038722]."""

    ended: str = knob("uniform", "what a rollout that has ended counts as", choices=("uniform", "absent"))
    limit: float = knob(11.0, "bound on |d|", unit="nats", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        found_NT = torch.zeros_like(batch.behaviour_NT)
        for rows in _groups(batch):
            group = batch.rows(rows)
            if len(group):
                logits_MTV = score("policy", group, {"logits"}).signals["logits"]
                logp_MTV = (logits_MTV / group.temperature_NT[..., None]).log_softmax(-1)
                found_NT[rows, : logp_MTV.shape[1]] = self.of(logp_MTV, group.valid_NT).to(found_NT.dtype)
        return found_NT * batch.valid_NT

    def of(self, logp_MTV: Tensor, valid_MT: Tensor) -> Tensor:
        """D of each place of one group, [T]."""
        there_MT1 = valid_MT[..., None]
        if self.ended == "uniform":
            logp_MTV = torch.where(there_MT1, logp_MTV, logp_MTV.new_full((), -math.log(logp_MTV.shape[2])))
            there_MT1 = torch.ones_like(there_MT1)
        count_T1 = there_MT1.sum(0).clamp(min=1)
        kept_MTV = torch.where(there_MT1, logp_MTV, torch.zeros_like(logp_MTV))
        d_MTV = (kept_MTV.sum(0) / count_T1 - kept_MTV).clamp(-self.limit, self.limit)
        apart_MT = torch.where(there_MT1, d_MTV.exp() - d_MTV - 1, torch.zeros_like(d_MTV)).sum(2)
        return apart_MT.sum(0) / count_T1[:, 0]


def _groups(batch: Batch) -> list[Tensor]:
    """Rows of each group."""
    order_N = batch.group_N.argsort(stable=True)
    return list(order_N.split(torch.bincount(batch.group_N, minlength=batch.groups).tolist()))
