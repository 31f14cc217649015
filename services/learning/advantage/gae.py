"""Generalised advantage estimation: how much better each token turned out than the value head thought.

    delta_t = r_t + gamma V_{t+1} - V_t,   A_t = sum_k (gamma lam)^k delta_{t+k},   then over the step's tokens
    (A - mean) / sqrt(var + eps)           with the reward at the last trained token and V of the step's start

Source: GAE, arXiv:1506.02438; PPO, arXiv:1707.06347; whitening as verl's `masked_whiten` (ddof 1, eps 1e-8). `edge` is
EGAE of Truncated PPO, arXiv:2506.15050: a rollout that was cut is worth, beyond its end, what its last token is worth.
Odd cases: tokens that are not trained on are stepped over; a rollout without any gets 0. A step whose
advantages are all equal, or of one token, gets 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import step_moments
from services.learning.returns import generalised


@dataclass(frozen=True)
class Gae:
    """V [.2, .3, .5, .6], reward 0, lam .95: [-0.134175, -0.2465, -0.47, -0.6]; edge: [0.380250, 0.295, 0.1, 0]."""

    gamma: float = knob(1.0, "discount per token", ge=0, le=1)
    lam: float = knob(0.95, "how far errors of the value are trusted to cancel; 1 is the return", ge=0, le=1)
    truncated: str = knob("zero", "what follows a rollout that was cut", choices=("zero", "edge"))
    whiten: bool = knob(True, "mean 0 and variance 1 over the trained tokens of the step")
    eps: float = knob(1e-8, "added to the variance", unit="reward^2", gt=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    def __call__(self, batch: Batch) -> Tensor:
        edge_N = batch.truncated_N if self.truncated == "edge" else None
        value_NT = batch.signals["value"]
        found_NT = generalised(batch.reward_N, value_NT, batch.mask_NT, self.gamma, self.lam, edge_N)
        if not self.whiten:
            return found_NT
        mean, std = step_moments(batch, found_NT, batch.mask_NT, ddof=1)
        white_NT = (found_NT - mean) / (std**2 + self.eps).sqrt()
        return torch.where(batch.mask_NT, white_NT, torch.zeros_like(white_NT))
