"""How the log-prob of a token and its advantage move together: what the covariance guards select by.

    cov_t = (A_t - mean A) (logp_t - mean logp)    means over the trained tokens of the whole step

Source: "The Entropy Mechanism of Reinforcement Learning", arXiv:2505.22617.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.reduce import per_token, step_moments


def covariance(batch: Batch, logp_NT: Tensor) -> tuple[Tensor, Tensor]:
    """(cov [N, T] in advantage nats, bool [N, T] where it is defined: trained tokens of finite log-prob). Collective.

    Reads `batch.signals["advantage"]`; 0 where it is not defined.
    """
    usable_NT = batch.mask_NT & logp_NT.isfinite()
    known_NT = torch.where(usable_NT, logp_NT, torch.zeros_like(logp_NT))
    advantage_NT = per_token(batch.signals["advantage"], logp_NT).to(logp_NT.dtype).expand_as(logp_NT)
    means = [step_moments(batch, x_NT, usable_NT, ddof=0)[0] for x_NT in (advantage_NT, known_NT)]
    cov_NT = (advantage_NT - means[0]) * (known_NT - means[1])
    return torch.where(usable_NT, cov_NT, torch.zeros_like(cov_NT)), usable_NT
