"""The value of the state in front of each sampled token, before the step; its head is trained with the policy.

    V_t = u . h_t + c,    h_t the last hidden state that predicts token t;  u and c start at 0

Source: PPO, arXiv:1707.06347, with the head on the policy's own trunk (as TRL's first PPO); OpenRLHF and verl train a
second model in its place.
Odd cases: the forward pass of the gradient gives "value" too, with a graph, for the value loss. The head is clipped
with the policy's gradient, kept in the checkpoint and never published to the engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.signal import Score


class _Head(nn.Linear):
    """Starts at 0. `trunk`: whether its gradient goes on into the hidden states."""

    def __init__(self, width: int, trunk: bool) -> None:
        super().__init__(width, 1)
        self.trunk = trunk
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden if self.trunk else hidden.detach()
        return super().forward(hidden.to(self.weight.dtype)).squeeze(-1)


@dataclass(frozen=True)
class Value:
    """At the start every value is 0; u = [1, 2], c = 0.5, h = [0.1, 0.2]: V = 1."""

    rate: float = knob(10.0, "learning rate of the head, in multiples of the policy's", gt=0)
    trunk: bool = knob(True, "whether the value's gradient reaches the policy's trunk")

    __post_init__ = check

    reads: ClassVar[frozenset[str]] = frozenset({"value"})

    def head(self, width: int) -> nn.Module:
        """The head on hidden states of this width."""
        return _Head(width, self.trunk)

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["value"]
