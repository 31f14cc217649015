"""Pairs of rollouts of one prompt, for objectives that compare two at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.objective import whole_step

Pairs = tuple[Tensor, Tensor]
"""Rows of the better rollouts and of the worse ones, [P] each."""


def pairs(batch: Batch, better_NN: Tensor) -> Pairs:
    """Every (i, j) of one group for which `better_NN[i, j]`."""
    same_NN = batch.group_N[:, None] == batch.group_N[None, :]
    first, second = (same_NN & better_NN).nonzero(as_tuple=True)
    return first, second


def above(x_N: Tensor, margin: float = 0.0) -> Tensor:
    """Whether x_i exceeds x_j by more than `margin`, [N, N]."""
    return x_N[:, None] - x_N[None, :] > margin


def paired(batch: Batch, name: str, found: Pairs) -> dict[str, Tensor]:
    """How many pairs the whole step has, as the signal `name`. Collective."""
    return {name: whole_step(batch, torch.tensor(float(len(found[0])), device=batch.group_N.device))}


def preference(margin_P: Tensor, smoothing: float | Tensor = 0.0) -> Tensor:
    """-log sigmoid of a margin, [P]; `smoothing` is the chance that the pair is the wrong way round.

    >>> round(float(preference(torch.tensor(0.16), 0.25)), 6)
    0.656344
    """
    return -(1 - smoothing) * functional.logsigmoid(margin_P) - smoothing * functional.logsigmoid(-margin_P)


def log_ratios(forward: Forward, below_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Sum of logp - below over each row's masked tokens, [N], with its graph; tokens that are not finite add 0."""
    mask_NT = mask_NT & (forward.logp_NT.detach() - below_NT).isfinite()
    zero_NT = torch.zeros_like(forward.logp_NT)
    return (torch.where(mask_NT, forward.logp_NT, zero_NT) - torch.where(mask_NT, below_NT, zero_NT)).sum(1)
