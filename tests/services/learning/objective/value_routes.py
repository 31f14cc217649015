"""What tests of objectives share: the two routes to a gradient, and loops over groups and rollouts."""

from __future__ import annotations

import torch

from services.learning.batch import Batch
from services.learning.denominator.token_mean import TokenMean
from services.learning.estimator import Estimator
from tests.services.learning.steps import begun, forward, gradient, step


def f64(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found, *wanted, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(found).double().flatten(), f64(*wanted), atol=tolerance, rtol=0)


def routes(objective, value, seed: int, spread: float = 0.3, weights=()):
    """The part's gradient and the value form's, on a random ragged step."""
    batch, advantage_N, logp_NT = step(seed, spread)
    estimator = Estimator(weights, TokenMean() if weights else None, objective=objective)
    ready = begun(estimator, batch, advantage_N, logp_NT)
    found = estimator.loss(ready, forward(batch, logp_NT), advantage_N).total
    wanted = value(batch, logp_NT, forward(batch, logp_NT), advantage_N)
    mine, papers = gradient(found, logp_NT), gradient(wanted, logp_NT)
    assert papers.abs().max() > 1e-4
    torch.testing.assert_close(mine, papers, atol=1e-8, rtol=1e-8)


def groups_of(batch: Batch) -> list[list[int]]:
    rows = batch.group_N.tolist()
    return [[i for i, g in enumerate(rows) if g == group] for group in range(batch.groups)]


def mean_score(batch, logp_NT, i):
    return logp_NT[i][batch.mask_NT[i]].mean()


def total(batch, logp_NT, below_NT, i):
    return (logp_NT - below_NT)[i][batch.mask_NT[i]].sum()


def hinge(batch, logp_NT, beta, delta):
    kl = (batch.prox_NT - logp_NT)[batch.mask_NT].mean()
    return (beta * (kl - delta)).clamp(min=0).detach() * kl
