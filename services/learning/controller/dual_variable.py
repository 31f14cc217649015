"""The price of a constraint on mean cost, raised while a pessimistic bound is above it: the dual side of HC-RLHF.

    bound = mean c + kappa std c   over the last `window` costs,   kappa of the reward part `constrained`
    log lambda += lr lambda (bound - threshold)

lambda is the signal "dual" of the next step.

Source: HC-RLHF, released code (UMass-SCALAR-Lab/HC-RLHF): lambda 1 at first, at most 1e6, lr .01, threshold 0, window
256 a rank; here the window is of the whole step's costs.
Odd cases: fewer than two costs so far leave lambda as it is. Equal costs have std 0. Costs and lambda lie in the
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import named
from services.learning.batch import Batch
from services.learning.controller import Score
from services.learning.reward.constrained import margin
from sluice.v1 import training_pb2


@dataclass(frozen=True)
class DualVariable:
    """c [-1.2, .3, -.8, -.5, -1, .1, -.6, -.9]: bound -.289199; lambda 1 becomes exp(-.00289199) = .997112."""

    cost: str = knob("cost", "raw reward with the cost; 0 or less is safe")
    threshold: float = knob(0.0, "highest mean cost allowed", unit="cost")
    lr: float = knob(0.01, "rate of log lambda", ge=0)
    initial: float = knob(1.0, "lambda at first", gt=0)
    most: float = knob(1e6, "largest lambda", gt=0)
    window: int = knob(256, "costs that the bound is made of", unit="rollouts", ge=2)
    delta: float = knob(0.1, "chance that the bound may fail", gt=0, lt=1)
    c1: float = knob(1.0, "weight of the window's own uncertainty", ge=0)
    c2: float = knob(1.0, "weight of the safety test's uncertainty", ge=0)
    safety: int = knob(1000, "prompts of the safety test", unit="prompts", ge=2)

    __post_init__ = check

    def open(self) -> _Running:
        """The multiplier at its start."""
        return _Running(self, math.log(self.initial))

    def bound(self, costs: Sequence[float]) -> float:
        """The mean cost that is not exceeded, with confidence 1 - delta."""
        return fmean(costs) + margin(len(costs), self.safety, self.delta, self.c1, self.c2) * stdev(costs)


@dataclass
class _Running:
    part: DualVariable
    log: float
    costs: list[float] = field(default_factory=list)

    def before_step(self) -> dict[str, float]:
        """What the reward pays for a unit of cost."""
        return {"dual": math.exp(self.log)}

    def after_step(self, batch: Batch, score: Score) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        """Take the step's costs into the window and move the multiplier. Collective."""
        raw_N = named(batch, self.part.cost)
        mine_K = raw_N[~raw_N.isnan()].double().to(batch.world.device)
        every_K = torch.cat(batch.world.gather_rows(mine_K[:, None])).flatten()
        self.costs = [*self.costs, *every_K.tolist()][-self.part.window :]
        if len(self.costs) < 2:
            return [], {}
        bound = self.part.bound(self.costs)
        self.log += self.part.lr * math.exp(self.log) * (bound - self.part.threshold)
        self.log = min(self.log, math.log(self.part.most))
        return [], {"dual": math.exp(self.log), "cost_bound": bound}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The same on every rank."""
        return {}, {"log": self.log, "costs": self.costs}

    def load(self, shards: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Go on from any rank's state."""
        self.log, self.costs = shards[0][1]["log"], list(shards[0][1]["costs"])
