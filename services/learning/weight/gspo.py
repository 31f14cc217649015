"""The likelihood ratio of the whole answer, length-normalised, clipped at once for all its tokens (GSPO).

    s_i = exp( mean_t (logp_t - prox_t) ),    W_t = s_i,    M_t = 1 unless
        A_t > 0 and s_i > 1 + high,   A_t < 0 and s_i < 1 - low,   log s_i > 10

which is -d/dlogp_t of  max(-A s_t, -A clip(s_t, 1 - low, 1 + high))  with the carrier s_t = sg(s_i) exp(logp_t -
sg(logp_t)); with the mean over tokens of each rollout the coefficient of a token is s_i A / len_i.

Source: Group Sequence Policy Optimization, arXiv:2507.18071; bounds and the clamp at 10 as in verl.
Odd cases: a rollout is open or closed as a whole unless its advantage changes sign from token to token (AReaL
averages such an advantage over the rollout first; verl, and this part, keep it). Token log-ratios are clamped to 20
nats first.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio, row_log_ratio, unclipped


@dataclass(frozen=True)
class Gspo:
    """
    logp - prox = [.3, 0, -.1, .2]: s = e^.1 = 1.105171, above 1.0004: at A = 1 closed, at A = -1 coef -1.105171.

    >>> Gspo().low, Gspo().high
    (0.0003, 0.0004)
    """

    low: float = knob(3e-4, "how far the ratio may fall below 1", unit="ratio", ge=0, le=1)
    high: float = knob(4e-4, "how far the ratio may rise above 1", unit="ratio", ge=0)
    limit: float = knob(10.0, "log-ratio of a rollout above which its loss is flat", unit="nats", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_N1 = row_log_ratio(batch, log_ratio(logp_NT, batch.prox_NT)[0])
        ratio_NT = log_N1.clamp(max=self.limit).exp().expand_as(logp_NT)
        return Weighed(ratio_NT, unclipped(ratio_NT, advantage_NT, self.low, self.high) & (log_N1 <= self.limit))
