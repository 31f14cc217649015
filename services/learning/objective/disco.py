"""Raise the score of right rollouts against the hardest wrong ones, inside a trust region (DisCO).

    s_i = mean_t logp_t  (score: logp)   or   mean_t exp(logp_t - prox_t)  (score: ratio)
    J_q = mean_{right} s_i - tau log mean_{wrong} exp(s_j / tau)       tau null: - mean_{wrong} s_j   (DisCO-b)
    loss = -sum_{mixed q} J_q / (all groups) + sg[max(beta (KL - delta), 0)] KL,    KL = mean_t (prox_t - logp_t)

Source: "DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization", arXiv:2505.12366,
and its code (Optimization-AI/DisCO). tau is 10 for the log-prob score, 1 for the ratio.
Odd cases: a group all right or all wrong adds nothing, but counts in the denominator. KL below delta, or negative,
costs nothing; the price is a constant of the step. The released ratio score calls its function with an argument too
many and fails. Rewards must be binary: above `threshold` is right. The advantage is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.discriminative import halves, mean_of, penalty, price, scores, soft_max_of
from services.learning.likelihood import Forward


@dataclass(frozen=True)
class Disco:
    """Right s [-0.3, -0.5], wrong [-0.4, -0.9]: J = 0.219070 at tau 1, 0.246875 at tau 10, 0.25 without tau."""

    score: str = knob("logp", "score of a rollout", choices=("logp", "ratio"))
    tau: float | None = knob(10.0, "temperature over wrong rollouts; null: their plain mean (DisCO-b)", gt=0)
    beta: float = knob(1e3, "price of KL above delta", unit="per nat", ge=0)
    delta: float = knob(1e-4, "KL that costs nothing", unit="nats", ge=0)
    threshold: float = knob(0.5, "reward above which a rollout is right", unit="reward")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})
    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "a discriminative objective compares scores and never reads the advantage",
        "modifiers": "a discriminative objective never reads the advantage that a modifier changes",
        "weight": "a discriminative objective holds the policy by its KL and never reads a weight",
    }

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The price of the KL."""
        return price(batch, self.beta, self.delta)

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        gain_G = self.gain(batch, scores(batch, forward, self.score))
        return -gain_G.sum() / max(batch.denominators.groups, 1.0) + penalty(batch, forward)

    def gain(self, batch: Batch, score_N: Tensor) -> Tensor:
        """J of each group, [G]; 0 where it is not mixed."""
        right_N, wrong_N, mixed_G = halves(batch, self.threshold)
        against_G = (
            mean_of(batch, score_N, wrong_N) if self.tau is None else soft_max_of(batch, score_N, wrong_N, self.tau)
        )
        gain_G = mean_of(batch, score_N, right_N) - against_G
        return torch.where(mixed_G, gain_G, torch.zeros_like(gain_G))
