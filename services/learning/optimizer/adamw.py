"""AdamW with warm-up, a schedule and clipping of the global gradient norm.

    lr(step) = lr * min(1, step / warmup) * shape(step),    step from 1
    shape    constant: 1;  linear: 1 -> final;  cosine: final + (1 - final) (1 + cos(pi x)) / 2
             x = progress from the end of the warm-up to `decay_steps`

Source: AdamW, arXiv:1711.05101; 1e-6, betas 0.9/0.999 and no decay is what released RL scripts use.
Odd cases: weight decay acts on matrices only, not on norms and biases. `decay_steps` 0 means no decay of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.knobs import check, knob


@dataclass(frozen=True)
class Adamw:
    """
    >>> part = Adamw(lr=1.0, warmup_steps=2, schedule="linear", decay_steps=6, final=0.0)
    >>> [part.rate(step) for step in (1, 2, 4, 6, 9)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """

    lr: float = knob(1e-6, "peak learning rate", ge=0)
    beta1: float = knob(0.9, "decay of the first moment", ge=0, lt=1)
    beta2: float = knob(0.999, "decay of the second moment", ge=0, lt=1)
    eps: float = knob(1e-8, "added to the root of the second moment", gt=0)
    weight_decay: float = knob(0.0, "decoupled decay, per step and learning rate", ge=0)
    clip_norm: float | None = knob(1.0, "largest norm of the whole gradient; null disables", gt=0)
    warmup_steps: int = knob(0, "steps of linear warm-up", unit="steps", ge=0)
    schedule: str = knob("constant", "shape after the warm-up", choices=("constant", "linear", "cosine"))
    decay_steps: int = knob(0, "step at which the shape reaches its end", unit="steps", ge=0)
    final: float = knob(0.0, "share of the rate left at the end", unit="share", ge=0, le=1)

    __post_init__ = check

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, from 1."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        span = self.decay_steps - self.warmup_steps
        if self.schedule == "constant" or span <= 0:
            return self.lr * warm
        x = min(1.0, max(0.0, (step - self.warmup_steps) / span))
        shape = 1 - x if self.schedule == "linear" else (1 + math.cos(math.pi * x)) / 2
        return self.lr * warm * (self.final + (1 - self.final) * shape)
