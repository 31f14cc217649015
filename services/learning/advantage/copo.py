"""Groups that agree learn from the other prompts, groups that differ from themselves (COPO).

    local  = (r - mean) / (std + eps) in the group;   global = (R_q - mean_q R) / (std_q R + eps),  R_q = mean r
    H = entropy, in bits, of the group's answers;   w = sigmoid(k (H - b)),   w = 0 where local = 0 (soft_forced)
    A = w local + (1 - w) global

Source: COPO's released code. `consistency` takes R_q = mean r * (1 - lambda H) with lambda = (1 - 1/G) / log2 G.
The code blends two clipped losses of the same ratio; so blended, the clip acts on the blend, which differs only where
the two have different signs and the ratio is outside the clip.
Odd cases: a group of one has lambda = 0, H = 0. One prompt in the step: global = 0. Answers that cannot be read count
as one answer; answers are compared as text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import class_sum, prompt_moments, same_in_group
from services.learning.advantage.group_norm import GroupNorm
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_size


@dataclass(frozen=True)
class Copo:
    """Answers 4, 4, 4, 5: H = .811278, 1 - lambda H = .695771, w = .998026."""

    slope: float = knob(20.0, "k: steepness of the blend", unit="per bit")
    middle: float = knob(0.5, "b: entropy at which both count the same", unit="bits")
    consistency: bool = knob(False, "damp the global reward of groups that disagree")
    mode: str = knob(
        "soft_forced", "how the two are blended", choices=("soft_forced", "soft", "forced", "global", "local")
    )
    eps: float = knob(1e-6, "added to both stds", unit="reward", ge=0)

    __post_init__ = check

    z_score: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __call__(self, batch: Batch) -> Tensor:
        entropy_N = self.entropy(batch)
        local_N, global_N = GroupNorm(eps=self.eps)(batch), self.across(batch, entropy_N)
        share_N = self.share(entropy_N, local_N)
        return share_N * local_N + (1 - share_N) * global_N

    def entropy(self, batch: Batch) -> Tensor:
        """H of each rollout's group, bits, [N]."""
        one_N = torch.ones_like(batch.reward_N)
        share_N = class_sum(same_in_group(batch, batch.signals["answer"]), one_N) / group_size(batch)
        return -group_mean(batch, share_N.log2())

    def across(self, batch: Batch, entropy_N: Tensor) -> Tensor:
        """The global advantage, [N]. Collective."""
        size_N, worth_N = group_size(batch), group_mean(batch, batch.reward_N)
        if self.consistency:
            lambda_N = (1 - 1 / size_N) / size_N.clamp(min=2).log() * math.log(2)
            worth_N = worth_N * (1 - lambda_N * entropy_N)
        mean, std = prompt_moments(batch, worth_N, 1)
        return torch.where(std > 0, (worth_N - mean) / (std + self.eps), torch.zeros_like(worth_N))

    def share(self, entropy_N: Tensor, local_N: Tensor) -> Tensor:
        """w: how much the local advantage counts, [N]."""
        if self.mode in ("global", "local"):
            return torch.full_like(local_N, float(self.mode == "local"))
        soft_N = torch.sigmoid(self.slope * (entropy_N - self.middle))
        if self.mode == "forced":
            soft_N = torch.ones_like(soft_N)
        return soft_N if self.mode == "soft" else torch.where(local_N == 0, torch.zeros_like(soft_N), soft_N)
