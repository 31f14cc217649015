"""Momentum whose old part is carried along by the curvature on the way (HARPG).

    theta^ = q theta_t + (1 - q) theta_{t-1},   q uniform on [0, 1]
    v = H(theta^) (theta_t - theta_{t-1})
    d_t = (1 - eta) (d_{t-1} + v) + eta g(theta_t),    d_0 = g              g an ascent direction
    theta_{t+1} = theta_t + lr d_t       (`normalised`: N-HARPG, + lr d_t / ||d_t||, norm over all parameters)

H is never made: v is the difference of the step's gradient at two points, `reach` to either side of theta^ on the way,
two more passes over the step. Where the recipe weighs by the ratio to the policy that sampled, that difference has both
terms of the Hessian, the score's own curvature and score times gradient.

Source: HARPG and N-HARPG ("Stochastic Policy Gradient Methods: Improved Sample Complexity for Fisher-non-degenerate
Policies", arXiv:2302.01734), abstract: two trajectories and a Hessian-vector product; the details are a guess. The
step's rollouts stand for both trajectories here, corrected to either policy by the recipe's weight.
Odd cases: the first step has d = g. A way of length 0, or a gradient of 0 throughout, moves nothing. q is drawn from
the number of the step, the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.knobs import check, knob


class _Harpg(torch.optim.Optimizer):
    """State of each parameter: "previous" and "momentum", and "count" of steps."""

    def __init__(self, parameters: Iterable[Any], part: Harpg) -> None:
        super().__init__(parameters, {"lr": part.lr})
        self.part = part

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        """One step along the gradients that are there; `closure` makes them anew at the weights that then are."""
        held = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not held:
            return
        parameters = [parameter for parameter, _ in held]
        ascent = [-parameter.grad for parameter in parameters]
        if "momentum" in self.state[parameters[0]]:
            turn = self._carried(parameters, closure)
            for parameter, g, v in zip(parameters, ascent, turn, strict=True):
                d = self.state[parameter]["momentum"]
                d.add_(v).mul_(1 - self.part.eta).add_(g, alpha=self.part.eta)
        else:
            for parameter, g in zip(parameters, ascent, strict=True):
                self.state[parameter] |= {"momentum": g.clone(), "previous": parameter.clone(), "count": 0.0}
        norm = _norm([self.state[parameter]["momentum"] for parameter in parameters])
        scale = torch.where(norm > 0, 1 / norm, 0.0) if self.part.normalised else torch.ones_like(norm)
        for parameter, group in held:
            state = self.state[parameter]
            state["previous"].copy_(parameter)
            state["count"] += 1.0
            parameter.add_(state["momentum"] * scale, alpha=group["lr"])

    def _carried(self, parameters: list[Tensor], closure: Callable[[], Any]) -> list[Tensor]:
        """v, in parameter order; the weights are what they were when it returns."""
        here = [parameter.clone() for parameter in parameters]
        way = [now - self.state[p]["previous"] for p, now in zip(parameters, here, strict=True)]
        length = float(_norm(way))
        if length == 0:
            return [torch.zeros_like(step) for step in way]
        seed = int(self.state[parameters[0]]["count"])
        q = float(torch.rand((), generator=torch.Generator().manual_seed(seed)))
        ends = []
        for side in (1.0, -1.0):
            for parameter, now, step in zip(parameters, here, way, strict=True):
                parameter.copy_(now).add_(step, alpha=q - 1 + side * self.part.reach / length)
            with torch.enable_grad():
                closure()
            ends.append([-p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters])
        for parameter, now in zip(parameters, here, strict=True):
            parameter.copy_(now)
        scale = length / (2 * self.part.reach)
        return [(ahead - behind) * scale for ahead, behind in zip(*ends, strict=True)]


@dataclass(frozen=True)
class Harpg:
    """-theta^2 / 2 (Hessian -1), eta .5, lr .1, theta 1: theta .9, .81, .729; from step 2 d -.9, -.81."""

    lr: float = knob(1e-3, "rate, or length of a normalised step", ge=0)
    eta: float = knob(0.1, "share of the newest gradient", unit="share", gt=0, le=1)
    normalised: bool = knob(False, "N-HARPG: steps of length lr")
    reach: float = knob(1e-2, "half the distance of the two points", unit="norm of the weights", gt=0)
    clip_norm: float | None = knob(None, "largest norm of the newest gradient; null disables", gt=0)

    __post_init__ = check

    again: ClassVar[bool] = True

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        return _Harpg([parameter for parameter in parameters if parameter.requires_grad], self)

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, from 1."""
        return self.lr


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.norm() for tensor in tensors]).norm()
