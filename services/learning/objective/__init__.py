"""Losses that couple rollouts, or that are no product of coef and logp: `(batch, forward, coef_NT) -> scalar`.

An objective takes the place of -sum coef * logp / Z. Its micro-batches keep groups whole, so it may compare rollouts of
a group; what it must know of the whole step it makes in `over_step(batch)` as signals [N] or [N, T]. The scalars of
all micro-batches and ranks are added up, so every sum in it is divided by a count of the whole step. `coef_NT` is the
detached M * W * A of the recipe's weights and advantage (0 where the recipe has no advantage), for objectives that
route some rollouts to the plain estimator. An objective that ignores a slot says so in `conflicts`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.likelihood import Forward


def trained(batch: Batch, forward: Forward, *others: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probs with their graph, mask), [N, T], both 0 where a token is not trained on or a log-prob is not finite.

    `others` are log-probs that must be finite too.
    """
    mask_NT = batch.mask_NT & forward.logp_NT.detach().isfinite()
    for other in others:
        mask_NT = mask_NT & other.isfinite()
    return torch.where(mask_NT, forward.logp_NT, torch.zeros_like(forward.logp_NT)), mask_NT


def whole_step(batch: Batch, value: Tensor) -> Tensor:
    """A number of the whole step as a signal [N], summed over the ranks. Collective."""
    return batch.world.sum(value.detach().clone().reshape(1)).expand(len(batch))


def told(batch: Batch, name: str, at_least: float = 0.0) -> Tensor:
    """The number behind a `whole_step` signal, a scalar; `at_least` keeps a count from being divided by at 0."""
    value_N = batch.signals[name]
    return value_N[0].clamp(min=at_least) if len(value_N) else value_N.new_tensor(at_least)
