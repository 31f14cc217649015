"""Predict what each token would do to the objective and the policy under the coming Adam step; drop the wild ones.

The output layer is taken as a linear model with weights W, hidden state h and the policy pi over its likeliest tokens:

    v = onehot(y) - pi,  g = A outer(v, h),  G = Adam direction of the step's mean g, with moments of its own,  u = G h
    m_H = lr <g, G> + lr^2 / 2 * A [(v.u)^2 - u' (diag pi - pi pi') u]      the change of the objective
    m_F = lr^2 / 2 * (v.u)^2                                              the move of the policy
    M = 1 where |m_H| < tau_h (one_sided: 0 <= m_H < tau_h) and m_F < tau_f

Source: CAPO, "Stabilizing Policy Gradients for Sample-Efficient RL in LLM Reasoning" and its code
(luckeciano/stable-pg-llm): for GRPO tau_f 1e-4 and tau_h 0.01, for Dr. GRPO tau_f 1e-3 to 1e-2 and tau_h 5e-4, at
lr 1.5e-5. Its masks of whole sentences and batches are off in its runs and not built.
Odd cases: lr is the recipe's own schedule, so a run that overrides it moves the thresholds too. Moments are updated
with kept tokens only, and only by steps that were made; they lie in the checkpoint. A sampled token beyond the
likeliest K counts with pi = 0. Hidden states of the whole step are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.curvature import Linear, direction, moments
from services.learning.likelihood import Forward
from services.learning.reduce import per_token
from services.learning.weight import Weighed
from sluice.v1 import training_pb2

PAPER_LR = 1.5e-5


@dataclass(frozen=True)
class Capo:
    """h [1, .5], y 0, A 1, lr .05, G [[.9, .4], [-.5, -.2], [-.3, -.1]]: m_H 0.049932, m_F 0.001224: dropped."""

    tau_h: float = knob(0.01, "bound on the change of the objective", gt=0)
    tau_f: float = knob(1e-4, "bound on the move of the policy", unit="nats", gt=0)
    one_sided: bool = knob(False, "drop tokens that would lower the objective too")
    beta1: float = knob(0.9, "decay of the first shadow moment", ge=0, lt=1)
    beta2: float = knob(0.999, "decay of the second shadow moment", ge=0, lt=1)
    eps: float = knob(1e-8, "added to the root of the second shadow moment", gt=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"top", "hidden"})

    def open(self, optimizer: Any) -> _Running:
        """Moments of no step yet, at the optimiser's learning rate."""
        return _Running(self, optimizer.rate)

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Which tokens a first step at the paper's learning rate keeps."""
        return _Running(self, lambda step: PAPER_LR).over_step(batch)

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        return Weighed(torch.ones_like(logp_NT), batch.signals["capo_keep"] > 0)

    def keeps(self, objective: Tensor, move: Tensor) -> Tensor:
        """Whether a token with these two changes is trained on."""
        calm = (objective >= 0) & (objective < self.tau_h) if self.one_sided else objective.abs() < self.tau_h
        return calm & (move < self.tau_f)


class _Running:
    """The shadow moments [V, D] of the output layer: a weight and a controller in one."""

    def __init__(self, part: Capo, rate: Callable[[int], float]) -> None:
        self.part, self.rate = part, rate
        self.steps, self.rank = 0, 0
        self.first_VD = self.second_VD = self._next = None

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        return self.part(batch, logp_NT, advantage_NT)

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """ "capo_keep" [N, T]. Collective: the gradient is the whole step's."""
        part, mask_NT = self.part, batch.mask_NT
        advantage_NT = per_token(batch.signals["advantage"], batch.behaviour_NT).expand_as(batch.behaviour_NT)
        layer = Linear.of(batch, mask_NT)
        advantage_M = advantage_NT[mask_NT].to(layer.hidden_MD.dtype)
        size = int(batch.world.max(layer.largest_id)) + 1
        if self.first_VD is not None:
            size = max(size, len(self.first_VD))
        total = max(batch.denominators.tokens, 1.0)
        gradient_VD = batch.world.sum(layer.gradient(advantage_M, size)) / total
        betas, step = (part.beta1, part.beta2), self.steps + 1
        first_VD, second_VD = moments(self.first_VD, self.second_VD, gradient_VD, betas)
        objective_M, move_M = layer.changes(
            advantage_M, direction(first_VD, second_VD, betas, part.eps, step), self.rate(step)
        )
        keep_M = part.keeps(objective_M, move_M)
        kept_VD = batch.world.sum(layer.gradient(advantage_M * keep_M, size)) / total
        self._next, self.rank = moments(self.first_VD, self.second_VD, kept_VD, betas), batch.world.rank
        keep_NT = torch.zeros_like(batch.behaviour_NT)
        keep_NT[mask_NT] = keep_M.to(keep_NT.dtype)
        return {"capo_keep": keep_NT}

    def after_step(
        self, batch: Batch, score: Callable[[Batch], Forward]
    ) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        """The step was made: its kept tokens are in the moments."""
        self.first_VD, self.second_VD = self._next
        self.steps += 1
        return [], {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The moments, told by rank 0 alone."""
        told = self.rank == 0 and self.first_VD is not None
        flat = [x.flatten().float().cpu() if told else torch.zeros(0) for x in (self.first_VD, self.second_VD)]
        rows = len(self.first_VD) if told else 0
        return {"first": flat[0], "second": flat[1]}, {"steps": self.steps, "rows": rows}

    def load(self, shards: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Take the moments from the rank that told them."""
        for tensors, meta in shards:
            self.steps = meta["steps"]
            if meta["rows"]:
                found = [tensors[name].view(meta["rows"], -1) for name in ("first", "second")]
                self.first_VD, self.second_VD = found
