"""Good answers are imitated whoever gave them, bad ones pushed only as far as they are still likely (TOPR).

    W = 1 for a positive rollout,    W = min(r, 1) for any other,    r = p(answer) / p_prox(answer), detached

Source: TOPR, arXiv:2503.14286, where r is of the whole trajectory (`level: sequence`); ROLL and Trinity take it per
token (`level: token`). Positive is a raw reward above the threshold in ROLL (`positive: reward`), an advantage above
it in Trinity.
Odd cases: r is clamped at 20 nats; a product over a long answer is soon 0, and the answer is then not pushed at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import CLAMP, Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Topr:
    """r = .3, 1, 2.5: W = .3, 1, 1 for a negative rollout, 1, 1, 1 for a positive one."""

    positive: str = knob("advantage", "what makes a rollout positive", choices=("advantage", "reward"))
    threshold: float = knob(0.0, "it must be above this", unit="reward")
    level: str = knob("sequence", "ratio of the whole answer or of each token", choices=("sequence", "token"))

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, _ = log_ratio(logp_NT, batch.prox_NT)
        if self.level == "sequence":
            log_NT = row_log_ratio(batch, log_NT, "sum").clamp(-CLAMP, CLAMP)
        judged_NT = advantage_NT if self.positive == "advantage" else batch.reward_N[:, None]
        weight_NT = torch.where(judged_NT > self.threshold, torch.ones_like(logp_NT), log_NT.clamp(max=0).exp())
        return Weighed(weight_NT, everywhere(weight_NT))
