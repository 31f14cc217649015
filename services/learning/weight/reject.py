"""Rejection by a divergence between trainer and sampler: what disagrees too much is not trained on (Geo-RS, K3-RS).

    d_t = prox_t - behaviour_t;    k1 = -d,  k2 = d^2 / 2,  k3 = e^d - 1 - d
    level  token: the token's own;  seq_sum, seq_mean, seq_max: of its rollout
    M = 1 where  log low <= d at level <= log high  (k1),  or  the statistic <= high  (k2, k3);    W = 1

Source: verl's rollout correction (`rollout_rs`), which names geometric rejection (seq_mean, k1, 0.999 to 1.001) and
K3 rejection (seq_mean, k3, 0.001 to 0.01). verl applies the bounds of k1 to -d, that is to 1/rho, so that asymmetric
bounds act mirrored: `inverse: true` does the same.
Odd cases: several criteria are several parts, and-ed. A rollout without a trained token has statistic 0 and stays.
Whether rejected tokens leave the denominator is the denominator's `shrink` (verl: yes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Reject:
    """d = [.1, -.1, .8, 0]: seq_mean k1 -.2 (rho 1.2214), outside 0.9 to 1.2; seq_mean k3 0.108887."""

    statistic: str = knob("k1", "which estimate of the divergence", choices=("k1", "k2", "k3"))
    level: str = knob("seq_mean", "over what", choices=("token", "seq_sum", "seq_mean", "seq_max"))
    low: float = knob(0.999, "smallest ratio (k1 only)", unit="ratio", gt=0)
    high: float = knob(1.001, "largest ratio (k1), or largest statistic (k2, k3)", unit="ratio or nats", gt=0)
    inverse: bool = knob(False, "hold 1/rho to the bounds of k1, as verl does")

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, _ = log_ratio(batch.prox_NT, batch.behaviour_NT)
        found_NT = self.measure(batch, log_NT)
        if self.statistic == "k1":
            found_NT = found_NT if self.inverse else -found_NT
            keep_NT = (found_NT >= math.log(self.low)) & (found_NT <= math.log(self.high))
        else:
            keep_NT = found_NT <= self.high
        return Weighed(torch.ones_like(log_NT), keep_NT & everywhere(log_NT))

    def measure(self, batch: Batch, d_NT: Tensor) -> Tensor:
        """The statistic at each token [N, T] or rollout [N, 1], from log-ratios d = prox - behaviour."""
        kinds = {"k1": -d_NT, "k2": d_NT**2 / 2, "k3": d_NT.exp() - 1 - d_NT}
        found_NT = kinds[self.statistic]
        if self.level == "token":
            return found_NT
        if self.level == "seq_max":
            empty_N1 = ~batch.mask_NT.any(1, keepdim=True)
            most_N1 = torch.where(batch.mask_NT, found_NT, torch.full_like(found_NT, -torch.inf)).amax(1, keepdim=True)
            return torch.where(empty_N1, torch.zeros_like(most_N1), most_N1)
        return row_log_ratio(batch, found_NT, self.level.removeprefix("seq_"))
