"""Normalised momentum with gradients taken at an extrapolated point, so that old ones are carried along (N-PG-IGT).

    theta~ = theta_t + (1 - eta) / eta (theta_t - theta_{t-1})        what is served, sampled from and trained on
    d_t = (1 - eta) d_{t-1} + eta g(theta~),    d_0 = g               g an ascent direction
    theta_{t+1} = theta_t + lr d_t / ||d_t||                          norm over all parameters

The model's parameters are theta~ throughout: the engines must sample with the extrapolated weights. theta and d lie in
the optimiser's state.

Source: N-PG-IGT ("Stochastic Policy Gradient Methods: Improved Sample Complexity for Fisher-non-degenerate Policies",
arXiv:2302.01734), as tuned for asynchronous RL (Rennala NIGT): eta 0.001 to 0.1.
Odd cases: a gradient of norm 0 leaves theta where it is. The norm of the step is lr itself: there is no adaptive scale,
so lr is in units of the weights' own norm. The first step has d = g.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.knobs import check, knob


class _Nigt(torch.optim.Optimizer):
    """State of each parameter: "theta" and "momentum"."""

    def __init__(self, parameters: Iterable[Any], lr: float, eta: float) -> None:
        super().__init__(parameters, {"lr": lr, "eta": eta})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step along the gradients that are there."""
        held = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter, group in held:
            state = self.state[parameter]
            if not state:
                state["theta"], state["momentum"] = parameter.clone(), -parameter.grad.clone()
            else:
                state["momentum"].mul_(1 - group["eta"]).sub_(parameter.grad, alpha=group["eta"])
        norm = torch.stack([self.state[p]["momentum"].norm() for p, _ in held]).norm() if held else None
        for parameter, group in held:
            theta, eta = self.state[parameter]["theta"], group["eta"]
            move = self.state[parameter]["momentum"] * torch.where(norm > 0, group["lr"] / norm, 0.0)
            theta.add_(move)
            parameter.copy_(theta).add_(move, alpha=(1 - eta) / eta)


@dataclass(frozen=True)
class Nigt:
    """-theta^2 / 2, eta .5, lr .1, theta 1: theta .9, .8, .7, .6; served .8, .7, .6; from step 2 d -.9, -.8, -.7."""

    lr: float = knob(1e-3, "length of a step", unit="norm of the weights", ge=0)
    eta: float = knob(0.1, "share of the newest gradient", unit="share", gt=0, le=1)
    clip_norm: float | None = knob(None, "largest norm of the whole gradient; null disables", gt=0)

    __post_init__ = check

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        return _Nigt([parameter for parameter in parameters if parameter.requires_grad], self.lr, self.eta)

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, from 1."""
        return self.lr
