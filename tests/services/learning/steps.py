"""Random ragged steps with every signal, for tests that walk over all parts and all recipes."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline import partspec
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.estimator import Estimator, Loss
from services.learning.likelihood import Forward
from tests.services.learning.rollouts import random_groups, with_fields

LONGEST = 6
ADVANTAGES = ("random", "equal", "zero")


def step(
    seed: int, spread: float = 0.5, gap: float = 0.3, groups: int = 4, size: int = 4
) -> tuple[Batch, Tensor, Tensor]:
    """A batch, its advantage [N], and log-probs [N, T] with a gradient, `spread` nats around the behaviour's.

    `gap`: nats between behaviour, proximal and reference policy. Every signal that some part could need is there.
    """
    made = random_groups(seed, groups=groups, size=size, longest=LONGEST)
    batch = collate(made, version=3, max_tokens=LONGEST, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed + 100)
    shape = batch.token_NT.shape

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first_NT = noise()
    advantage_N = torch.randn(len(batch), generator=generator, dtype=torch.float64)
    signals = {name: noise().abs() for name in partspec.names("learning.signal")}
    signals |= {name: batch.behaviour_NT + gap * noise() for name in ("prox_logp", "ref_logp")}
    logp_NT = ((batch.behaviour_NT + spread * first_NT) * batch.valid_NT).requires_grad_()
    batch = with_fields(batch, reward_N=batch.accuracy_N)
    batch = batch.with_signals(**{name: signal_NT * batch.valid_NT for name, signal_NT in signals.items()})
    return batch.with_signals(step_logp=logp_NT.detach(), advantage=advantage_N), advantage_N, logp_NT


def begun(estimator: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> Batch:
    """The batch with what parts derive from the whole step, as the trainer hands it to the loss."""
    batch = batch.with_signals(step_logp=logp_NT.detach(), advantage=advantage)
    return batch.with_signals(**estimator.over_step(batch))


def forward(batch: Batch, logp_NT: Tensor) -> Forward:
    """A forward pass that brought everything it can of log-probs' shape."""
    return Forward(logp_NT, {"entropy": batch.signals["entropy"]})


def loss(estimator: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> Loss:
    """The loss of a whole step in one micro-batch."""
    return estimator.loss(begun(estimator, batch, advantage, logp_NT), forward(batch, logp_NT), advantage)


def gradient(total: Tensor, logp_NT: Tensor) -> Tensor:
    """d total / d logp, [N, T]; 0 where nothing depends on it."""
    (found,) = torch.autograd.grad(total, logp_NT, allow_unused=True) if total.requires_grad else (None,)
    return torch.zeros_like(logp_NT) if found is None else found
