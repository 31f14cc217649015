"""One estimator for nearly every method.

    coef_t = M_t W_t A_t,      loss = -sum_t sg(coef_t) logp_t / Z + regularizers

after "Towards a Unified View of LLM Post-Training". For PPO-like losses the value differs from the paper's, the
gradient does not: it is what tests compare. Z is of the whole step. A token whose log-prob is not finite has coef 0 and
is counted, so that one impossible token cannot spoil a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.learning.batch import Batch, Denominators
from services.learning.likelihood import Forward
from services.learning.reduce import per_token
from services.learning.weight import Weighed


@dataclass(frozen=True)
class Loss:
    """What one micro-batch contributes: a scalar with its graph, and the detached pieces that explain it."""

    total: Tensor
    parts: dict[str, Tensor]
    """Detached contributions by name: "policy" and each regularizer's."""
    weight_NT: Tensor
    """W * M where a token is trained on, else 0."""
    coef_NT: Tensor
    """M * W * A where a token is trained on, else 0."""
    clipped_NT: Tensor
    """True on trained tokens that a weight part masked."""


@dataclass(frozen=True)
class Estimator:
    """Weights, denominator, regularizers, and in some recipes an objective in place of coef * logp.

    `denominator` is None only beside an objective, which has its own.
    """

    weights: tuple[Callable[[Batch, Tensor, Tensor], Weighed], ...]
    denominator: Any = None
    regularizers: tuple[tuple[str, Callable[[Batch, Forward], Tensor]], ...] = ()
    objective: Callable[[Batch, Forward, Tensor], Tensor] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the loss's parts."""
        return ["policy", *(name for name, _ in self.regularizers)]

    @property
    def shrinks(self) -> bool:
        """Whether masked tokens leave the denominator, which then needs the mask of the whole step."""
        return bool(self.weights) and bool(getattr(self.denominator, "shrink", False))

    def loss(self, batch: Batch, forward: Forward, advantage: Tensor, counted: Denominators | None = None) -> Loss:
        """The loss of a micro-batch. `advantage` is [N] or [N, T]; `counted` are whole-step counts after masking."""
        advantage_NT = per_token(advantage, forward.logp_NT).to(forward.logp_NT.dtype).expand_as(forward.logp_NT)
        weight_NT, open_NT = self.weigh(batch, forward.logp_NT.detach(), advantage_NT)
        coef_NT = torch.where(open_NT > 0, weight_NT * open_NT * advantage_NT, torch.zeros_like(weight_NT))
        if self.objective is not None:
            policy = self.objective(batch, forward, coef_NT)
        else:
            logp_NT = torch.where(coef_NT != 0, forward.logp_NT, torch.zeros_like(forward.logp_NT))
            policy = -(coef_NT * self._scale(batch, open_NT, counted) * logp_NT).sum()
        extra = {name: part(batch, forward) for name, part in self.regularizers}
        return Loss(
            total=policy + sum(extra.values()),
            parts={"policy": policy.detach()} | {name: value.detach() for name, value in extra.items()},
            weight_NT=weight_NT * open_NT,
            coef_NT=coef_NT,
            clipped_NT=batch.mask_NT & (open_NT == 0),
        )

    def weigh(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> tuple[Tensor, Tensor]:
        """(W, M) over all weight parts, [N, T]; both 0 off trained tokens and where logp is not finite."""
        finite_NT = batch.mask_NT & logp_NT.isfinite()
        weight_NT, open_NT = finite_NT.to(logp_NT.dtype), finite_NT.to(logp_NT.dtype)
        for part in self.weights:
            found = part(batch, logp_NT, advantage_NT)
            weight_NT = torch.where(finite_NT, weight_NT * found.weight_NT.to(logp_NT.dtype), weight_NT)
            open_NT = torch.where(finite_NT, open_NT * found.mask_NT, open_NT)
        return weight_NT, open_NT

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """What weights, regularizers and the objective derive from the whole step before it is cut. Collective.

        A part that has statistics over the step or over groups makes them in its own `over_step(batch)`; the signals
        it returns, [N] or [N, T], are cut with the rows. There `batch.signals` holds "advantage" and what it needs.
        """
        parts = [*self.weights, *(part for _, part in self.regularizers), self.objective]
        found = [part.over_step(batch) for part in parts if hasattr(part, "over_step")]
        return {name: signal for signals in found for name, signal in signals.items()}

    def count(self, batch: Batch, open_NT: Tensor) -> Denominators:
        """Whole-step counts of what the weight parts left open. Collective."""
        left_N = (open_NT > 0).any(1)
        present = torch.zeros(batch.groups, device=left_N.device)
        present[batch.group_N[left_N]] = 1
        counts = torch.stack([(open_NT > 0).sum(), left_N.sum(), present.sum()]).double()
        return Denominators(*batch.world.sum(counts).tolist())

    def _scale(self, batch: Batch, open_NT: Tensor, counted: Denominators | None) -> Tensor:
        if not self.shrinks:
            return self.denominator(batch)
        counted = counted or self.count(batch, open_NT)
        return self.denominator(dataclasses.replace(batch, mask_NT=open_NT > 0, denominators=counted))
