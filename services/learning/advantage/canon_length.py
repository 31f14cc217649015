"""Each rollout is compared with the other half of its group, split by its number of sampled tokens (CANON).

    low half: the n // 2 rollouts of smallest length,   high half: the rest
    inter = r - mean of the other half,   intra = r - mean of the own half,   A = (mix inter + (1 - mix) intra) / L_max

Source: CANON and its released code. mix 1 is inter only, mix .5 is Dr. GRPO for even groups. alpha damps
the long half: high alpha r - mean low, low r - alpha mean high.
Odd cases: equal metrics are split by the first tokens' log-prob (released: by order of arrival). A group of one gets
r / L_max. Odd groups: the high half has one more. `cosine` takes the trained version for the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._canon import canon, scheduled
from services.learning.batch import Batch


@dataclass(frozen=True)
class CanonLength:
    """Lengths 100 .. 400, r [1, 0, 1, 1]: inter [0, -1, .5, .5], intra [.5, -.5, 0, 0], each over L_max."""

    mix: float = knob(1.0, "weight of the comparison between halves", ge=0, le=1)
    schedule: str = knob(
        "none",
        "what sets that weight instead: accuracy: 1 - mean reward of the step; cosine: with restarts, at most .6",
        choices=("none", "accuracy", "cosine"),
    )
    alpha: float = knob(1.0, "how much of the damped half counts", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        metric_N = batch.length_N
        found_N = canon(batch, metric_N, scheduled(batch, self.mix, self.schedule), self.alpha, long_first=True)
        return found_N / batch.max_tokens
