"""Overconfident errors weigh more: wrong answers that are already likelier than under the reference (ACE).

    c_i = mean_t (logp_t - ref_t), detached (or the sum),    W_i = 1 + alpha softplus(c_i) where A < 0,   else 1

Source: ACE, arXiv:2602.21420, rebuilt from its abstract and summaries: Softplus is second-hand; alpha = 1, the mean
over tokens and the stopped gradient are guesses.
Odd cases: at the start c = 0 and every wrong answer weighs 1 + alpha ln 2. The sum over a long answer reaches tens. A
token whose reference log-prob is not finite counts as 20 nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Ace:
    """alpha 1, c = [-2, 0, 1, 3], A = [-1, -1, -1, 1]: coef [-1.126928, -1.693147, -2.313262, 1]."""

    alpha: float = knob(1.0, "strength", ge=0)
    over: str = knob("mean", "how c gathers a rollout's tokens", choices=("mean", "sum"))

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    shapes: ClassVar[str] = "every wrong answer weighs at least 1 + alpha ln 2 where it is as likely as at the start"

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, _ = log_ratio(logp_NT, batch.signals["ref_logp"].to(logp_NT.dtype))
        factor_N1 = 1 + self.alpha * functional.softplus(row_log_ratio(batch, log_NT, self.over))
        weight_NT = torch.where(advantage_NT < 0, factor_N1, torch.ones_like(logp_NT))
        return Weighed(weight_NT, everywhere(weight_NT))
