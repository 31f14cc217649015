"""A soft gate in place of the clip: a token fades as it leaves the on-policy point, sooner where A < 0 (SAPO).

    f(r) = (4 / tau) sigmoid(tau (r - 1)),    tau = tau_up where A > 0, else tau_down
    W = r,    M = f'(r) = 4 p (1 - p),    p = sigmoid(tau (r - 1))        (minus d/dlogp of -A f)

Source: Soft Adaptive Policy Optimization, arXiv:2511.20347; verl, TRL, AReaL (1.0 and 1.05), mean over tokens of each
rollout.
Odd cases: W M is 1 at r = 1 and peaks slightly above it. Beyond the clamp at 20 nats the loss is flat, so M = 0.
AReaL refuses it in the decoupled loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio


@dataclass(frozen=True)
class Sapo:
    """A > 0: r = .5, .9, 1, 1.5, 3: W M = 0.470007, 0.897754, 1, 1.410022, 1.259923; A < 0 at 3: 1.166336."""

    tau_up: float = knob(1.0, "steepness where A > 0", gt=0)
    tau_down: float = knob(1.05, "steepness elsewhere", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT = log_NT.exp()
        tau_NT = torch.where(advantage_NT > 0, self.tau_up, self.tau_down).to(ratio_NT.dtype)
        p_NT = torch.sigmoid(tau_NT * (ratio_NT - 1))
        return Weighed(ratio_NT, 4 * p_NT * (1 - p_NT) * inside_NT)
