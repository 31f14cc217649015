"""Every token counts the same in every step: the sum over tokens by a constant, which removes the length bias.

    per rollout:  loss = mean_i sum_t x_it / L          per step:  loss = sum_it x_it / L

Source: Dr. GRPO, arXiv:2503.20783, `train_zero_math.py` (per rollout, L = the most tokens a rollout may sample). verl's
"seq-mean-token-sum-norm" is called its equivalent and does not divide by the rollouts: `per: step`.
Odd case: L does not depend on the data, so an empty rollout only lowers the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class SequenceSumConstant:
    """x [[1, 2, 3, 4], [10]], L = 4: per rollout 2.5, per step 5."""

    constant: int | None = knob(None, "L; null is the run's limit of sampled tokens", unit="tokens", ge=1)
    per: str = knob("rollout", "whether the sum is also divided by the rollouts", choices=("rollout", "step"))
    shrink: bool = knob(False, "whether rollouts that weight parts left without a token leave the mean")

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        rows = max(batch.denominators.rows, 1.0) if self.per == "rollout" else 1.0
        return batch.behaviour_NT.new_full((1, 1), 1 / ((self.constant or batch.max_tokens) * rows))
