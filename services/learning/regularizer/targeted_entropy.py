"""Entropy is held near a set point, from both sides (targeted entropy regularization, TER).

    loss += coef |H - target|,    H = mean token entropy of the step, with a gradient

Source: Confucius3-Math's report, section 6.1: coef .001, target .55, in its first stage, on GRPO.
Odd cases: above the target it pushes entropy down. At the target the gradient is 0. The side is decided by the mean of
the whole step, over all ranks, as it is when the step begins, so that micro-batches pull the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.reduce import step_moments
from services.learning.regularizer import token_mean


@dataclass(frozen=True)
class TargetedEntropy:
    """H .4, .55, .7: 1.5e-4, 0, 1.5e-4."""

    coef: float = knob(0.001, "strength", unit="per nat", ge=0)
    target: float = knob(0.55, "where entropy is held", unit="nats", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"entropy", "step_entropy"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """1 where the step's entropy is above the target, -1 below, 0 at it; the same for every rollout."""
        mean, _ = step_moments(batch, batch.signals["step_entropy"], batch.mask_NT, 1)
        return {"entropy_side": (mean - self.target).sign().expand(len(batch))}

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        side_N1 = batch.signals["entropy_side"][:, None]
        entropy_NT = forward.signals["entropy"]
        away_NT = torch.where(side_N1 == 0, torch.zeros_like(entropy_NT), side_N1 * (entropy_NT - self.target))
        return self.coef * token_mean(batch, away_NT, batch.mask_NT)
