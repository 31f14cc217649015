"""Prefer short right rollouts without ever turning a long right one negative (DRPO, decoupled reward).

    w_i = exp((1 - len_i / L_max) / lam) over the right ones of a group, normalised to 1
    J_q = sum_{right} w_i s_i - tau log mean_{wrong} exp(s_j / tau),    s_i = mean_t logp_t
    loss = -sum_{mixed q} J_q / (all groups) + sg[max(beta (KL - delta), 0)] KL,    KL = mean_t (prox_t - logp_t)

Source: "DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization" and its code (Optimization-AI/DRPO). L_max
is the run's limit of sampled tokens, never the batch's longest.
Odd cases: one right rollout has weight 1; groups that are not mixed add nothing. The advantage is not used.
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
class Drpo:
    """Lengths 0.25 and 0.75 of L_max: w [0.993307, 0.006693] at lam 0.1; [0.622459, 0.377541] at lam 1."""

    lam: float = knob(0.1, "temperature of the length preference; smaller is shorter", gt=0)
    tau: float = knob(10.0, "temperature over wrong rollouts", gt=0)
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
        gain_G = self.gain(batch, scores(batch, forward, "logp"))
        return -gain_G.sum() / max(batch.denominators.groups, 1.0) + penalty(batch, forward)

    def gain(self, batch: Batch, score_N: Tensor) -> Tensor:
        """J of each group, [G]; 0 where it is not mixed."""
        right_N, wrong_N, mixed_G = halves(batch, self.threshold)
        weight_N = self.preference(batch.length_N / batch.max_tokens).to(score_N.dtype) * right_N
        gain_G = mean_of(batch, score_N, weight_N) - soft_max_of(batch, score_N, wrong_N, self.tau)
        return torch.where(mixed_G, gain_G, torch.zeros_like(gain_G))

    def preference(self, share_N: Tensor) -> Tensor:
        """Weight of a rollout that is this share of L_max long, at most 1, before it is normalised."""
        return (-share_N / self.lam).exp()
