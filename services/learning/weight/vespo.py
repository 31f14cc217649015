"""A smooth kernel of the whole answer's ratio in place of a clip (VESPO).

    w = exp( clamp( sum_t clamp(logp_t - prox_t, -20, 20), -20, 20 ) ),    W = phi(w) = exp(c + k log w - c w),    M = 1

with (k, c) = (2, 3) where A >= 0 and (3, 2) where A < 0: phi(1) = 1, its peak at w = k / c.

Source: VESPO, arXiv:2602.10693, and its released code, whose defaults (also TRL's) are these; its docstring lists (2,
1.5) and (4, 2.5).
Odd cases: the sum, not the mean, of log-ratios: long answers move fast. A phi that is not finite is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import CLAMP, Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Vespo:
    """w = .5, 1, 3 at A >= 0: phi = 1.120422, 1, 0.022309; w = .5, 1, 3 at A < 0: 0.339785, 1, 0.494522."""

    power_up: float = knob(2.0, "k where A >= 0", ge=0)
    decay_up: float = knob(3.0, "c where A >= 0", ge=0)
    power_down: float = knob(3.0, "k where A < 0", ge=0)
    decay_down: float = knob(2.0, "c where A < 0", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_N1 = row_log_ratio(batch, log_ratio(logp_NT, batch.prox_NT)[0], "sum").clamp(-CLAMP, CLAMP)
        up = self.decay_up + self.power_up * log_N1 - self.decay_up * log_N1.exp()
        down = self.decay_down + self.power_down * log_N1 - self.decay_down * log_N1.exp()
        phi_NT = torch.where(advantage_NT >= 0, up, down).exp().nan_to_num(0.0, 0.0, 0.0)
        return Weighed(phi_NT, everywhere(phi_NT))
