"""The group's z-score, anchored by the reward's own size, so that a signal is left where rewards are equal (VGPO).

    A_i = (r_i - mean) / (std + eps) + anchor (r_i - zero)

Source: VGPO, arXiv:2512.12387 (value-anchored group policy optimisation): the abstract says that group normalisation is
"enhanced by absolute values" to keep a signal as rewards grow alike; this form is a guess.
Odd cases: a group of equal rewards gets anchor (r - zero), which is the point. A group of one gets no z-score.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage.group_norm import GroupNorm
from services.learning.batch import Batch


@dataclass(frozen=True)
class Vgpo:
    """[1, 0, 0, 0] at .1: [1.599997, -.499999 x 3]; [1, 1, 1, 1]: .1 each; [0, 0, 0, 0]: 0."""

    anchor: float = knob(0.1, "weight of the absolute reward (a guess)", unit="per reward", ge=0)
    zero: float = knob(0.0, "reward that pulls neither way", unit="reward")
    eps: float = knob(1e-6, "added to the std", unit="reward", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        relative_N = GroupNorm(eps=self.eps, singleton="zero")(batch)
        return relative_N + self.anchor * (batch.reward_N - self.zero)
