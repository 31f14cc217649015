"""The output layer as a linear model: gradients of tokens in its weights, and what a step of them would change.

    logits = W h,   v = onehot(y) - pi,   d log pi(y) / dW = outer(v, h)

Only the likeliest K tokens of each position are looked at. M tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch

CHUNK = 1 << 26
"""Most numbers of tokens times vocabulary held at once."""


@dataclass(frozen=True)
class Linear:
    """Tokens at the output layer: hidden states, ids and probabilities [M, K + 1], the sampled token last."""

    hidden_MD: Tensor
    ids_MK: Tensor
    prob_MK: Tensor
    pull_MK: Tensor
    """v: the sampled token's share less the policy's."""

    @classmethod
    def of(cls, batch: Batch, mask_NT: Tensor) -> Linear:
        """The masked tokens of a batch that carries "top_ids", "top_logp" and "hidden"."""
        hidden_MD = batch.signals["hidden"][mask_NT].to(batch.behaviour_NT.dtype)
        ids_MK, prob_MK = batch.signals["top_ids"][mask_NT], batch.signals["top_logp"][mask_NT].exp()
        return cls.sampled(hidden_MD, ids_MK, prob_MK.to(hidden_MD.dtype), batch.token_NT[mask_NT])

    @classmethod
    def sampled(cls, hidden_MD: Tensor, ids_MK: Tensor, prob_MK: Tensor, token_M: Tensor) -> Linear:
        """With the sampled token as one more column, of probability 0, where it is not among the likeliest."""
        is_it_MK = ids_MK == token_M[:, None]
        beyond_M1 = (~is_it_MK.any(1, keepdim=True)).to(prob_MK.dtype)
        pull_MK = torch.cat([is_it_MK.to(prob_MK.dtype) - prob_MK, beyond_M1], 1)
        ids_MK = torch.cat([ids_MK, token_M[:, None]], 1)
        return cls(hidden_MD, ids_MK, torch.cat([prob_MK, torch.zeros_like(beyond_M1)], 1), pull_MK)

    @property
    def largest_id(self) -> Tensor:
        """Largest token id, [1]; -1 without tokens."""
        return torch.cat([self.ids_MK.flatten(), self.ids_MK.new_tensor([-1])]).max()[None]

    def gradient(self, advantage_M: Tensor, vocabulary: int) -> Tensor:
        """Sum of A outer(v, h) over the tokens, [V, D]."""
        tokens, columns = self.ids_MK.shape
        rows = torch.arange(tokens, device=self.ids_MK.device).repeat_interleave(columns)
        values = (advantage_M[:, None] * self.pull_MK).flatten()
        place, shape = torch.stack([self.ids_MK.flatten(), rows]), (vocabulary, tokens)
        return torch.sparse.mm(torch.sparse_coo_tensor(place, values, shape, check_invariants=False), self.hidden_MD)

    def changes(self, advantage_M: Tensor, step_VD: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """(change of the objective, move of the policy) of each token for the step lr * `step_VD`, [M]."""
        size = max(1, CHUNK // max(len(step_VD), 1))
        pairs = zip(self.hidden_MD.split(size), self.ids_MK.split(size), strict=True)
        along = [(hidden @ step_VD.T).gather(1, ids) for hidden, ids in pairs]
        u_MK = torch.cat(along) if along else self.pull_MK
        pull_M = (self.pull_MK * u_MK).sum(1)
        spread_M = (self.prob_MK * u_MK**2).sum(1) - (self.prob_MK * u_MK).sum(1) ** 2
        curve_M = advantage_M * (pull_M**2 - spread_M)
        return lr * advantage_M * pull_M + lr**2 / 2 * curve_M, lr**2 / 2 * pull_M**2


def moments(
    first: Tensor | None, second: Tensor | None, gradient: Tensor, betas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Adam's moments after this gradient; absent or shorter ones are filled up with zeros."""
    grown = [torch.zeros_like(gradient) for _ in range(2)]
    for own, old in zip(grown, (first, second), strict=True):
        if old is not None:
            own[: len(old)] = old
    return tuple(b * m + (1 - b) * g for b, m, g in zip(betas, grown, (gradient, gradient**2), strict=True))  # type: ignore[return-value]


def direction(first: Tensor, second: Tensor, betas: tuple[float, float], eps: float, step: int) -> Tensor:
    """Adam's direction at step `step`, from 1."""
    mean, square = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
    return mean / (square.sqrt() + eps)
