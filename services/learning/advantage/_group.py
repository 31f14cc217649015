"""What advantage, reward and selection parts share: order and masked statistics inside groups, one value per group.

Everything runs over whole tensors; a group's rows are found by sorting, never by a loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.reduce import group_range, group_size, group_sum, step_moments


def rank(batch: Batch, x_N: Tensor, ties_N: Tensor | None = None) -> Tensor:
    """Place of each rollout in its group by ascending `x_N`, from 0, [N], long; ties by `ties_N`, then by arrival."""
    by_value_N = x_N.argsort(stable=True) if ties_N is None else ties_N.argsort(stable=True)
    if ties_N is not None:
        by_value_N = by_value_N[x_N[by_value_N].argsort(stable=True)]
    order_N = by_value_N[batch.group_N[by_value_N].argsort(stable=True)]
    size_G = torch.bincount(batch.group_N, minlength=batch.groups)
    start_G = size_G.cumsum(0) - size_G
    found_N = torch.empty_like(order_N)
    found_N[order_N] = torch.arange(len(order_N), device=order_N.device) - start_G[batch.group_N[order_N]]
    return found_N


def group_median(batch: Batch, x_N: Tensor) -> tuple[Tensor, Tensor]:
    """(lower median of each rollout's group, True at the rollout that is it), [N]; ties by `tie_break`."""
    pivot_N = rank(batch, x_N, tie_break(batch)) == (group_size(batch).long() - 1) // 2
    return group_sum(batch, torch.where(pivot_N, x_N, torch.zeros_like(x_N))), pivot_N


def tie_break(batch: Batch) -> Tensor:
    """Behaviour log-prob of each rollout's first tokens, [N]: it decides among equals, so that arrival does not."""
    return batch.behaviour_NT[:, :16].sum(1)


def masked_mean(batch: Batch, x_N: Tensor, mask_N: Tensor) -> Tensor:
    """Mean of `x_N` over the marked rollouts of each rollout's group, [N]; 0 where none is marked."""
    kept_N = torch.where(mask_N, x_N, torch.zeros_like(x_N))
    return group_sum(batch, kept_N) / group_sum(batch, mask_N.to(x_N.dtype)).clamp(min=1)


def masked_extreme(batch: Batch, x_N: Tensor, mask_N: Tensor, how: str) -> Tensor:
    """Largest ("amax") or smallest ("amin") `x_N` of the marked rollouts of each group, [N]; -inf or inf for none."""
    empty = float("-inf") if how == "amax" else float("inf")
    kept_N = torch.where(mask_N, x_N, torch.full_like(x_N, empty))
    return x_N.new_full((batch.groups,), empty).scatter_reduce(0, batch.group_N, kept_N, how)[batch.group_N]


def present(batch: Batch) -> Tensor:
    """True for groups that have a rollout here, [G]."""
    return torch.bincount(batch.group_N, minlength=batch.groups) > 0


def per_group(batch: Batch, x_N: Tensor) -> Tensor:
    """A value that is equal for all rollouts of a group, once per group, [G]; 0 for an empty group."""
    return x_N.new_zeros(batch.groups).index_put((batch.group_N,), x_N)


def prompt_moments(batch: Batch, x_N: Tensor, ddof: int) -> tuple[Tensor, Tensor]:
    """Mean and std, over all groups of the step, of a value that is equal inside a group. Collective."""
    return step_moments(batch, per_group(batch, x_N), present(batch), ddof)


def step_mean(batch: Batch, x_N: Tensor) -> Tensor:
    """Mean of `x_N` over the rollouts of the step, on all ranks. Collective."""
    return step_moments(batch, x_N, None, 1)[0]


def whiten(batch: Batch, x: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the step, unbiased, as verl's `masked_whiten`; 0 where all are equal.

    `mask` may be a count: how many tokens a value stands for. Collective.
    """
    mean, std = step_moments(batch, x, mask, 1)
    return torch.where(std > 0, (x - mean) / (std**2 + eps).sqrt(), torch.zeros_like(x))


def mixed(batch: Batch, x_N: Tensor) -> Tensor:
    """True in groups whose members differ in `x_N`, [N]."""
    return group_range(batch, x_N) > 0


def same_in_group(batch: Batch, class_N: Tensor) -> Tensor:
    """Index of each rollout's (group, class), [N], long, from 0."""
    class_N = class_N.to(batch.group_N.dtype)
    width = int(class_N.max()) + 1 if len(class_N) else 1
    return (batch.group_N * width + class_N).unique(return_inverse=True)[1]


def class_sum(class_N: Tensor, x_N: Tensor) -> Tensor:
    """Sum of `x_N` over the rollouts of each rollout's class, [N]."""
    size = int(class_N.max()) + 1 if len(class_N) else 0
    return x_N.new_zeros(size).index_add_(0, class_N, x_N)[class_N]


def pad(batch: Batch, x_N: Tensor) -> Tensor:
    """`x_N` with one row per group, members in order of arrival, [G, M]; 0 where a group has no more members."""
    slot_N = rank(batch, torch.zeros_like(batch.reward_N))
    width = int(slot_N.max()) + 1 if len(slot_N) else 0
    return x_N.new_zeros((batch.groups, width)).index_put((batch.group_N, slot_N), x_N)


def unpad(batch: Batch, x_GM: Tensor) -> Tensor:
    """What `pad` made, as [N] again."""
    return x_GM[batch.group_N, rank(batch, torch.zeros_like(batch.reward_N))]


def named(batch: Batch, name: str) -> Tensor:
    """A raw reward [N] by name; "reward" is the combined one, "accuracy" the verdict's where no reward is named so.

    NaN throughout where no verdict has it.
    """
    if name == "reward":
        return batch.reward_N
    absent_N = batch.accuracy_N if name == "accuracy" else torch.full_like(batch.accuracy_N, float("nan"))
    return batch.rewards.get(name, absent_N)
