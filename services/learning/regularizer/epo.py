"""An entropy bonus that keeps each turn's entropy in a band around its own history (EPO).

    Hbar_k = mean over the updates so far of the mean entropy of turn k
    penalty_t = 0 inside low Hbar < H_t < high Hbar,    outside: `outside` (indicator), or the distance to it (distance)
    loss -= coef * ( sum_t H_t - smooth * phase * sum_t penalty_t ) / (trained tokens)
    phase(n) = 1 - 0.2 (1 - e^(-2 n / half)) up to update n = half, then 0.8 e^(-3 (n - half) / half)

Source: EPO, arXiv:2509.22576, and its released code. The released penalty is the indicator: a constant that has no
gradient, so that the method in effect is the plain entropy bonus; `distance` is a reading of the paper's idea and a
guess.
Odd cases: no history of a turn, no penalty. The penalty acts only in a step that reaches turn `turns` / 2 or later.
The phase counts updates where the released code counts epochs. The history is part of the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.controller import Score
from services.learning.likelihood import Forward
from services.learning.regularizer import token_mean
from sluice.v1 import training_pb2


@dataclass(frozen=True)
class Epo:
    """
    History [.5, .48, .52]: Hbar .5; band (0, 2): H = [.4, .7, 1.3]: penalties [0, 0, .1].

    >>> [round(Epo().phase(n), 6) for n in (0, 30, 75, 76, 100, 150)]
    [1.0, 0.889866, 0.827067, 0.768632, 0.294304, 0.03983]
    """

    coef: float = knob(0.001, "strength of the bonus", unit="per nat", ge=0)
    smooth: float = knob(1.0, "strength of the penalty, in multiples of the bonus", ge=0)
    low: float = knob(0.8, "lower end of the band, in multiples of the history (README 0)", ge=0)
    high: float = knob(1.2, "upper end of the band, in multiples of the history (README 2)", ge=0)
    outside: float = knob(0.1, "penalty of a token outside the band (script 0.05)", unit="nats", ge=0)
    penalty: str = knob("indicator", "what a token outside pays", choices=("indicator", "distance"))
    turns: int = knob(1, "turns of the longest rollout", unit="turns", ge=1)
    half: int = knob(75, "updates of the first phase", unit="updates", ge=1)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def phase(self, n: int) -> float:
        """Weight of the penalty at update `n`, from 0."""
        x = n / self.half
        return 1 - 0.2 * (1 - math.exp(-2 * x)) if n <= self.half else 0.8 * math.exp(-3 * (x - 1))

    def open(self, optimizer: Any = None) -> _Running:
        """The part without a history."""
        return _Running(self)


@dataclass
class _Running:
    """`past`: per turn, the sum of its mean entropies and how many updates had it. `seen`: this step's, by token."""

    part: Epo
    past: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.float64))
    seen: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.float64))
    updates: int = 0

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The history of each token's turn, NaN where there is none or where the step is too short to be held to it."""
        most = batch.turn_NT.max() if batch.turn_NT.numel() else torch.zeros((), dtype=torch.long)
        last = int(batch.world.max(most))
        self.seen = torch.zeros(last + 1, 2, dtype=torch.float64)
        mean_K = torch.full((max(last + 1, len(self.past)),), math.nan, dtype=torch.float64)
        if last >= self.part.turns // 2:
            mean_K[: len(self.past)] = self.past[:, 0] / self.past[:, 1]
        return {"epo_history": mean_K.to(batch.behaviour_NT)[batch.turn_NT]}

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        entropy_NT, history_NT = forward.signals["entropy"], batch.signals["epo_history"]
        self._see(batch, entropy_NT.detach())
        below_NT, above_NT = self.part.low * history_NT - entropy_NT, entropy_NT - self.part.high * history_NT
        far_NT = torch.maximum(below_NT, above_NT)
        out_NT = batch.mask_NT & ~history_NT.isnan() & (far_NT >= 0)
        paid_NT = far_NT if self.part.penalty == "distance" else torch.full_like(far_NT, self.part.outside)
        penalty = self.part.smooth * self.part.phase(self.updates) * token_mean(batch, paid_NT, out_NT)
        return -self.part.coef * (token_mean(batch, entropy_NT, batch.mask_NT) - penalty)

    def _see(self, batch: Batch, entropy_NT: Tensor) -> None:
        turn_K, entropy_K = batch.turn_NT[batch.mask_NT].cpu(), entropy_NT[batch.mask_NT].double().cpu()
        self.seen.index_add_(0, turn_K, torch.stack([entropy_K, torch.ones_like(entropy_K)], 1))

    def after_step(self, batch: Batch, score: Score) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        """Add this step's mean entropy of every turn to the history. Collective."""
        seen = batch.world.sum(self.seen.to(batch.behaviour_NT.device)).cpu()
        had = seen[:, 1] > 0
        past = torch.zeros(max(len(self.past), len(seen)), 2, dtype=torch.float64)
        past[: len(self.past)] += self.past
        past[: len(seen), 0] += torch.where(had, seen[:, 0] / seen[:, 1].clamp(min=1), torch.zeros_like(seen[:, 0]))
        past[: len(seen), 1] += had
        self.past, self.updates = past, self.updates + 1
        return [], {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The history, the same on every rank."""
        return {"total": self.past[:, 0].clone(), "count": self.past[:, 1].clone()}, {"updates": self.updates}

    def load(self, shards: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Go on from any rank's state."""
        tensors, meta = shards[0]
        self.past = torch.stack([tensors["total"].cpu().double(), tensors["count"].cpu().double()], 1)
        self.updates = meta["updates"]
