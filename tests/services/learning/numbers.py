"""Small batches with exact numbers, for the worked numbers of weight and regularizer parts."""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.collate import collate
from tests.services.learning.rollouts import call, group, member, with_fields

BEHAVIOUR = [[-1, -0.5, -2, -0.7], [-0.3, -1.2, -0.9]]
PROX = [[-0.9, -0.6, -1.2, -0.7], [-0.4, -1, -2]]
LOGP = [[-0.6, -0.6, -1.3, -0.5], [-0.5, -1.1, -2]]
ADVANTAGE = [1.0, -0.5]
"""The reference's batch A2: two rollouts, of four tokens and of three."""


def ragged(rows) -> Tensor:
    """Rows of numbers as [N, T], right-padded with 0, float64."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)


def batch_of(behaviour, prox=None, tokens=None, reward=None, advantage=None, version=0, **signals) -> Batch:
    """One group of one-call rollouts whose behaviour log-probs are exactly these; all else as named signals."""
    texts = tokens or [[3] * len(row) for row in behaviour]
    members = [member([call(text)], index=i) for i, text in enumerate(texts)]
    batch = collate([group("g", members)], version, 8, dtype=torch.float64)
    batch = with_fields(batch, behaviour_NT=ragged(behaviour))
    if reward is not None:
        rewards = torch.tensor(reward, dtype=torch.float64)
        batch = with_fields(batch, reward_N=rewards, accuracy_N=rewards)
    if advantage is not None:
        signals["advantage"] = advantage
    if prox is not None:
        signals["prox_logp"] = prox
    made = {name: torch.tensor(x).double() if not isinstance(x[0], list) else ragged(x) for name, x in signals.items()}
    return batch.with_signals(**made).counted()


def weigh(part, batch: Batch, logp, advantage) -> tuple[Tensor, Tensor]:
    """(W, M) of one part over a whole step, [N, T], 0 on padding; `advantage` one per rollout or per token."""
    logp_NT = logp if isinstance(logp, Tensor) else ragged(logp)
    advantage_NT = advantage if isinstance(advantage, Tensor) else torch.tensor(advantage, dtype=torch.float64)
    advantage_NT = advantage_NT[:, None].expand_as(logp_NT) if advantage_NT.dim() == 1 else advantage_NT
    batch = batch.with_signals(step_logp=logp_NT, advantage=advantage_NT)
    if hasattr(part, "over_step"):
        batch = batch.with_signals(**part.over_step(batch))
    found = part(batch, logp_NT, advantage_NT)
    weight_NT, mask_NT = found.weight_NT.expand_as(logp_NT), found.mask_NT.expand_as(logp_NT).double()
    return weight_NT * batch.mask_NT, mask_NT * batch.mask_NT


def pull(part, batch: Batch, logp, advantage) -> Tensor:
    """W M of one part."""
    weight_NT, mask_NT = weigh(part, batch, logp, advantage)
    return weight_NT * mask_NT


def near(found: Tensor, wanted, tolerance: float = 1e-5) -> None:
    """Assert closeness to the printed digits."""
    wanted = ragged(wanted) if isinstance(wanted[0], list) else torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=0)
