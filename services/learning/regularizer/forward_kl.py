"""Likelihood of everything that was sampled: the forward KL from the sampler, up to a constant (AsymRE).

    loss -= coef * sum_t logp_t / (trained tokens)

Source: REC's forward-kl in arXiv:2509.24203; the same as lowering the baseline of every rollout by `coef`, which is
AsymRE (asymmetric REINFORCE, arXiv:2506.20520).
Odd cases: a token whose log-prob is not finite is left out. The term is not masked by weight parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.regularizer import safe, token_mean, usable


@dataclass(frozen=True)
class ForwardKl:
    """logp [-.5, -1], coef .1: 0.075; as a gradient, advantages [.75, -.25] become [.85, -.15]."""

    coef: float = knob(0.1, "how far the baseline is lowered", unit="reward", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        mask_NT = usable(batch, forward.logp_NT)
        return -self.coef * token_mean(batch, safe(mask_NT, forward.logp_NT), mask_NT)
