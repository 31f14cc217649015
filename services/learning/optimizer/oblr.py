"""AdamW whose rate follows the signal-to-noise ratio of the gradient (OBLR-PO's adaptive learning rate).

    factor_t = ||mean g||^2 / mean ||g||^2 = SNR / (1 + SNR),    lr_t = lr * factor_t
    mean: exponential over steps with decay `memory`, both corrected for their start; norms over all parameters

Source: OBLR-PO, arXiv:2511.23310: eta = (1 / L) ||E g||^2 / E ||g||^2. The smoothness L, the moments' averaging and the
optimiser underneath are guesses: lr stands for 1 / L, AdamW takes the rate.
Odd cases: the first step has factor 1. A gradient of 0 throughout has factor 0. `memory: 1` is the plain
mean of all steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.knobs import check, knob

FIELDS = ("exp_avg", "exp_avg_sq", "mean")
"""AdamW's own moments, which it makes only where there is no state at all, and the mean gradient."""


class _Oblr(torch.optim.AdamW):
    """AdamW with the mean gradient of each parameter as "mean", and the two weights that correct the averages."""

    memory: float = 0.9

    def factor(self) -> float:
        """Take the gradients that are there into the averages; the factor of the rate."""
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not held:
            return 0.0
        count = float(self.state[held[0]].get("count", 0.0))
        share = 1 / (count + 1) if self.memory == 1 else (1 - self.memory) / (1 - self.memory ** (count + 1))
        square = torch.stack([p.grad.norm() for p in held]).norm() ** 2
        for parameter in held:
            state = self.state[parameter]
            if not state:
                state |= {"step": torch.tensor(0.0)} | {n: torch.zeros_like(parameter) for n in FIELDS}
            state["mean"].lerp_(parameter.grad, share)
        told = self.state[held[0]]
        told["count"] = count + 1
        told["square"] = float(told.get("square", 0.0)) * (1 - share) + share * float(square)
        mean = torch.stack([self.state[p]["mean"].norm() for p in held]).norm() ** 2
        return float(mean) / told["square"] if told["square"] else 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One AdamW step at the rate times the factor."""
        factor = self.factor()
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


@dataclass(frozen=True)
class Oblr:
    """Gradients (1, 0), (.5, .5), (1.5, -.5), (1, 0) with the plain mean: factor 1 / 1.25 = 0.8."""

    lr: float = knob(1e-6, "rate at a factor of 1, for 1 / L", ge=0)
    memory: float = knob(0.9, "decay of the averages; 1 is the plain mean", ge=0, le=1)
    beta1: float = knob(0.9, "AdamW's decay of the first moment", ge=0, lt=1)
    beta2: float = knob(0.999, "AdamW's decay of the second moment", ge=0, lt=1)
    eps: float = knob(1e-8, "added to the root of the second moment", gt=0)
    clip_norm: float | None = knob(1.0, "largest norm of the whole gradient; null disables", gt=0)

    __post_init__ = check

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        found = _Oblr(trained, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, weight_decay=0.0)
        found.memory = self.memory
        return found

    def rate(self, step: int) -> float:
        """Rate of step `step`, from 1, before the factor."""
        return self.lr
