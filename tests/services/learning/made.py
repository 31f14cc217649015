"""Batches with exact lengths, log-probs, accuracies and signals, for worked numbers of advantages and rewards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline import parts
from services.learning.batch import Batch
from services.learning.collate import collate
from tests.services.learning.rollouts import call, group, member, with_fields


def vector(values: Sequence[float]) -> Tensor:
    """float64."""
    return torch.tensor(values, dtype=torch.float64)


def lists(
    *rewards: Sequence[float],
    lengths: Sequence[int] | None = None,
    logps: Sequence[float] | None = None,
    accuracy: Sequence[float] | None = None,
    longest: int = 8,
    raw: dict[str, Sequence[float]] | None = None,
    **fields: object,
) -> Batch:
    """Groups with these rewards; all else runs along all rollouts. `logps`: of every token of a rollout."""
    count = sum(map(len, rewards))
    lengths = lengths or [1] * count
    rows = iter(range(count))
    made = []
    for g, values in enumerate(rewards):
        members = []
        for value in values:
            row = next(rows)
            one = call([3 + row] * lengths[row], [logps[row] if logps else -1.0] * lengths[row])
            told = {name: float(column[row]) for name, column in (raw or {}).items()}
            members.append(member([one], value, prompt=f"g{g}", index=row, rewards=told))
        made.append(group(f"g{g}", members))
    batch = collate(made, version=0, max_tokens=longest, dtype=torch.float64)
    reward_N = vector([value for values in rewards for value in values])
    accuracy_N = vector(accuracy) if accuracy is not None else reward_N
    return with_fields(batch, reward_N=reward_N, accuracy_N=accuracy_N, **fields)


def supplied(batch: Batch, part: object) -> Batch:
    """The batch with every signal that a part needs: the shipped signal's, or numbers drawn from log-probs."""
    for need in sorted(getattr(part, "needs", ())):
        if need == "advantage":
            batch = batch.with_signals(advantage=batch.reward_N)
        elif need in ("answer", "demonstration", "player", "role", "turn_reward"):
            batch = batch.with_signals(**{need: parts.load("learning.signal", need)(batch, None)})
        elif need == "tempered_logp":
            batch = batch.with_signals(tempered_logp=torch.stack([batch.behaviour_NT, batch.behaviour_NT / 2], -1))
        else:
            batch = batch.with_signals(**{need: batch.behaviour_NT.abs()})
    return batch


def credit(part, batch: Batch) -> Tensor:
    """What an advantage part makes of a batch; a modifier is given the reward minus 0.5."""
    batch = supplied(batch, part)
    return part(batch, batch.reward_N - 0.5) if getattr(part, "modifies", False) else part(batch)
