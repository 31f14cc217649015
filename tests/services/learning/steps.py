"""Random ragged steps with every signal, for tests that walk over all parts and all recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline import parts, partspec
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.estimator import Estimator, Loss
from services.learning.likelihood import Forward
from tests.services.learning.rollouts import VOCAB, random_groups, with_fields

LONGEST = 6
ADVANTAGES = ("random", "equal", "zero")


def step(
    seed: int, spread: float = 0.5, gap: float = 0.3, groups: int = 4, size: int = 4
) -> tuple[Batch, Tensor, Tensor]:
    """A batch, its advantage [N], and log-probs [N, T] with a gradient, `spread` nats around the behaviour's.

    `gap`: nats between behaviour, proximal and reference policy. Every signal that some part could need is there.
    """
    made = random_groups(seed, groups=groups, size=size, longest=LONGEST)
    return signalled(collate(made, version=3, max_tokens=LONGEST, dtype=torch.float64), seed, spread, gap)


def signalled(batch: Batch, seed: int, spread: float, gap: float) -> tuple[Batch, Tensor, Tensor]:
    """What `step` makes of a batch."""
    generator = torch.Generator().manual_seed(seed + 100)
    shape, dtype = batch.token_NT.shape, batch.behaviour_NT.dtype

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    first_NT = noise()
    advantage_N = torch.randn(len(batch), generator=generator, dtype=dtype)
    signals = {name: noise().abs() for name in partspec.names("learning.signal")}
    signals |= {name: batch.behaviour_NT + gap * noise() for name in ("prox_logp", "ref_logp")}
    logp_NT = ((batch.behaviour_NT + spread * first_NT) * batch.valid_NT).requires_grad_()
    batch = with_fields(batch, reward_N=batch.accuracy_N)
    signals |= teaching(batch, noise)
    batch = batch.with_signals(**{
        name: x * batch.valid_NT if x.shape == shape else x for name, x in signals.items()})  # fmt: skip
    return batch.with_signals(step_logp=logp_NT.detach(), advantage=advantage_N), advantage_N, logp_NT


def teaching(batch: Batch, noise: Callable[[], Tensor]) -> dict[str, Tensor]:
    """What signal parts that make several signals make: a teacher over two picked tokens, the policy's top two."""
    first_NT = -0.2 - noise().abs()
    top_NTK = torch.stack([first_NT, torch.log1p(-first_NT.exp()) - 0.5], -1) * batch.valid_NT[..., None]
    ids_NTK = torch.stack([batch.token_NT, batch.token_NT + 1], -1) % VOCAB
    taught_N = (batch.accuracy_N < 2).to(batch.behaviour_NT.dtype)
    return {"pick": ids_NTK, "teacher_top": top_NTK, "top_ids": ids_NTK, "top_logp": top_NTK, "taught": taught_N,
            "teacher_logp": first_NT, "teacher_entropy": noise().abs(),
            "hidden": torch.stack([noise(), noise(), noise()], -1)}  # fmt: skip


def loaded(room: str, name: str, **knobs: Any) -> Any:
    """A part, opened where it keeps state between steps."""
    part = parts.load(room, name, **knobs)
    return part.open(parts.load("learning.optimizer", "adamw")) if hasattr(part, "open") else part


def begun(estimator: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> Batch:
    """The batch with what parts derive from the whole step, as the trainer hands it to the loss."""
    batch = batch.with_signals(step_logp=logp_NT.detach(), advantage=advantage)
    return batch.with_signals(**estimator.over_step(batch))


def forward(batch: Batch, logp_NT: Tensor) -> Forward:
    """A forward pass that brought everything it can of log-probs' shape."""
    own_NT = logp_NT.nan_to_num(-1.0, -1.0, -1.0).clamp(-30, -0.01)
    picked_NTK = torch.stack([own_NT, torch.log1p(-own_NT.exp()) - 0.3], -1)
    return Forward(logp_NT, {"entropy": batch.signals["entropy"], "picked": picked_NTK, "value": 0.3 * own_NT})


def loss(estimator: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> Loss:
    """The loss of a whole step in one micro-batch."""
    return estimator.loss(begun(estimator, batch, advantage, logp_NT), forward(batch, logp_NT), advantage)


def gradient(total: Tensor, logp_NT: Tensor) -> Tensor:
    """d total / d logp, [N, T]; 0 where nothing depends on it."""
    (found,) = torch.autograd.grad(total, logp_NT, allow_unused=True) if total.requires_grad else (None,)
    return torch.zeros_like(logp_NT) if found is None else found
