"""What value forms are written with: ratios, clips and means over a namespace of [N, T] tensors, from the papers.

Nothing here imports a part.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

Value = Callable[[SimpleNamespace], Tensor]


def ratio(x: SimpleNamespace) -> Tensor:
    """pi / pi_prox with its gradient, log-ratio clamped at 20 as section 0 of the reference has it."""
    return (x.logp - x.prox).clamp(-20, 20).exp()


def frozen(x: SimpleNamespace, below: Tensor) -> Tensor:
    """log pi / pi_below, without a gradient, clamped."""
    return (x.logp.detach() - below).clamp(-20, 20)


def mean(x: SimpleNamespace, loss: Tensor) -> Tensor:
    return (loss * x.mask).sum() / x.mask.sum()


def row_mean(x: SimpleNamespace, value: Tensor) -> Tensor:
    return ((value * x.mask).sum(1) / x.mask.sum(1))[:, None]


def row_sum(x: SimpleNamespace, value: Tensor) -> Tensor:
    return (value * x.mask).sum(1)[:, None]


def clipped(x, r, low, high, advantage=None, dual=None) -> Tensor:
    a = x.a if advantage is None else advantage
    r_clip = torch.minimum(torch.maximum(r, torch.as_tensor(1 - low)), torch.as_tensor(1 + high))
    loss = torch.maximum(-a * r, -a * r_clip)
    return loss if dual is None else torch.where(a < 0, torch.minimum(loss, -a * dual), loss)


def reinforce(weigh: Callable[[SimpleNamespace], Tensor]) -> Value:
    """-sg(weight) A logp, the token mean: for losses whose weight is written with a stopped gradient."""
    return lambda x: mean(x, -weigh(x).detach() * x.a * x.logp)


def covariance(x) -> Tensor:
    logp, a = x.logp.detach(), x.a.expand_as(x.logp)
    return (a - a[x.mask].mean()) * (logp - logp[x.mask].mean())
