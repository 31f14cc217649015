"""What discriminative objectives are made of: scores of rollouts, statistics over a group's right or wrong half."""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.objective import told, trained, whole_step
from services.learning.reduce import row_mean
from services.learning.weight import log_ratio


def scores(batch: Batch, forward: Forward, kind: str) -> Tensor:
    """Score [N] with its graph: the mean over trained tokens of the log-prob ("logp") or of the ratio ("ratio")."""
    if kind == "logp":
        return row_mean(*trained(batch, forward))
    logp_NT, mask_NT = trained(batch, forward)
    log_NT, _ = log_ratio(logp_NT, torch.where(mask_NT, batch.prox_NT, torch.zeros_like(logp_NT)))
    return row_mean(log_NT.exp(), mask_NT)


def mean_of(batch: Batch, x_N: Tensor, weight_N: Tensor) -> Tensor:
    """Mean of `x_N` over each group under these weights, [G]; 0 where a group has none."""
    start = x_N.new_zeros(batch.groups)
    total = start.index_add(0, batch.group_N, weight_N * x_N)
    return total / _nonzero(start.index_add(0, batch.group_N, weight_N.to(x_N.dtype)))


def soft_max_of(batch: Batch, x_N: Tensor, chosen_N: Tensor, tau: float) -> Tensor:
    """tau log mean exp(x / tau) over each group's chosen rollouts, [G]; 0 where a group has none."""
    low_N = torch.where(chosen_N, x_N.detach() / tau, torch.full_like(x_N, -torch.inf))
    peak_G = low_N.new_full((batch.groups,), -torch.inf).scatter_reduce(0, batch.group_N, low_N, "amax")
    peak_G = torch.where(peak_G.isfinite(), peak_G, torch.zeros_like(peak_G))
    exp_N = torch.where(chosen_N, x_N / tau - peak_G[batch.group_N], torch.zeros_like(x_N)).exp()
    mean_G = mean_of(batch, exp_N, chosen_N.to(x_N.dtype))
    return tau * (_nonzero(mean_G).log() + peak_G)


def halves(batch: Batch, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """(right [N], wrong [N], mixed [G]): who is above `threshold`, and which groups have both."""
    right_N = batch.reward_N > threshold
    start = torch.zeros(batch.groups, dtype=torch.long, device=right_N.device)
    right_G = start.index_add(0, batch.group_N, right_N.long())
    wrong_G = start.index_add(0, batch.group_N, (~right_N).long())
    return right_N, ~right_N, (right_G > 0) & (wrong_G > 0)


def price(batch: Batch, beta: float, delta: float) -> dict[str, Tensor]:
    """ "kl_price": beta * max(KL - delta, 0) with KL the mean of prox - logp over the whole step. Collective."""
    logp_NT = batch.signals["step_logp"]
    gap_NT = batch.prox_NT - logp_NT
    mask_NT = batch.mask_NT & gap_NT.isfinite()
    kl_N = whole_step(batch, torch.where(mask_NT, gap_NT, torch.zeros_like(gap_NT)).sum())
    return {"kl_price": (beta * (kl_N / max(batch.denominators.tokens, 1.0) - delta)).clamp(min=0)}


def penalty(batch: Batch, forward: Forward) -> Tensor:
    """The detached price times this micro-batch's share of the KL, a scalar with its graph."""
    logp_NT, mask_NT = trained(batch, forward, batch.prox_NT)
    gap_NT = torch.where(mask_NT, batch.prox_NT, torch.zeros_like(logp_NT)) - logp_NT
    return told(batch, "kl_price") * gap_NT.sum() / max(batch.denominators.tokens, 1.0)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)
