"""Trains the value head towards the return, without letting it move far in one step.

    R_t = V_old,t + A_t(gamma, lam),    V_clip = clip(V_t, V_old,t - clip, V_old,t + clip)
    loss += coef / 2 * sum_t max((V_t - R_t)^2, (V_clip - R_t)^2) / (trained tokens of the whole step)

Source: PPO, arXiv:1707.06347, and its released code; verl `compute_value_loss` (clip 0.5, the half inside). lam 1 makes
the target the plain return (VAPO, arXiv:2504.05118, with another lam for the advantage).
Odd cases: the target is of the values at the start of the step and has no gradient. A token that is not trained on has
no target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.returns import generalised


@dataclass(frozen=True)
class ValueLoss:
    """V_old 0.2, V 0.9, R 1, clip 0.5: max(0.01, 0.09) / 2 = 0.045 at coef 1; reward 1 on one token at value 0: 0.5."""

    coef: float = knob(0.5, "strength beside the policy's loss", ge=0)
    gamma: float = knob(1.0, "discount per token", ge=0, le=1)
    lam: float = knob(0.95, "of the target; 1 is the return", ge=0, le=1)
    clip: float | None = knob(0.5, "how far the value may move in one step; null disables", unit="reward", gt=0)
    truncated: str = knob("zero", "what follows a rollout that was cut", choices=("zero", "edge"))

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The target of each token, [N, T]."""
        old_NT = batch.signals["value"]
        edge_N = batch.truncated_N if self.truncated == "edge" else None
        found_NT = generalised(batch.reward_N, old_NT, batch.mask_NT, self.gamma, self.lam, edge_N)
        return {"value_target": old_NT + found_NT}

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        loss_NT = self.per_token(forward.signals["value"], batch.signals["value"], batch.signals["value_target"])
        loss = torch.where(batch.mask_NT, loss_NT, torch.zeros_like(loss_NT)).sum()
        return self.coef * loss / max(batch.denominators.tokens, 1.0)

    def per_token(self, value_NT: Tensor, old_NT: Tensor, target_NT: Tensor) -> Tensor:
        """Half the squared error, the larger of the clipped and the plain one."""
        square_NT = (value_NT - target_NT) ** 2
        if self.clip is None:
            return square_NT / 2
        near_NT = torch.maximum(torch.minimum(value_NT, old_NT + self.clip), old_NT - self.clip)
        return torch.maximum(square_NT, (near_NT - target_NT) ** 2) / 2
