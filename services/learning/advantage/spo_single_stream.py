"""One rollout per prompt: the value tracker is the baseline and the whole step is the scale (SPO).

    A~_i = r_i - v_i,    A_i = (A~_i - mean A~) / (std A~ + eps)     over every rollout of the step, all ranks

Source: Single-stream Policy Optimization, arXiv:2509.13232, and its recipe in verl-recipe (std with ddof 1, eps 1e-8).
v_i is the tracker's mean for the prompt as it was when the rollout was asked for (`belief_N`), so it does not depend on
the reward it is the baseline of.
Odd cases: a step of equal A~ gets 0; a rollout without a belief uses `prior`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import step_moments


@dataclass(frozen=True)
class SpoSingleStream:
    """v [.2, .5, .9, .5], r [1, 0, 1, 1]: A~ = [.8, -.5, .1, .5], A = [1.023149, -1.290057, -0.222424, 0.489332]."""

    ddof: int = knob(1, "1: divide squares by n - 1; 0: by n", choices=(0, 1))
    eps: float = knob(1e-8, "added to the std", unit="reward", ge=0)
    prior: float = knob(0.5, "value of a prompt that nothing is believed of", unit="pass rate", ge=0, le=1)

    __post_init__ = check

    conflicts: ClassVar[dict[str, str]] = {
        "select.informative_groups": "one rollout per prompt makes no group to filter",
    }

    def __call__(self, batch: Batch) -> Tensor:
        value_N = torch.where(batch.belief_N.isnan(), torch.full_like(batch.belief_N, self.prior), batch.belief_N)
        raw_N = batch.reward_N - value_N
        mean, std = step_moments(batch, raw_N, None, self.ddof)
        return torch.where(std > 0, (raw_N - mean) / (std + self.eps), torch.zeros_like(raw_N))
