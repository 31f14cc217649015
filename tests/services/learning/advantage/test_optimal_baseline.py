"""Baselines of least variance: verl's optimal token baseline and OBLR-PO's of whole rollouts."""

from __future__ import annotations

import torch

from services.learning.advantage.optimal_baseline import OptimalBaseline
from tests.services.learning.made import lists
from tests.services.learning.numbers import near, ragged


def test_optimal_token_baseline_of_two_rollouts():
    found = OptimalBaseline().of(lists([1, 0], lengths=[2, 2]), ragged([[0.5, 0.2], [0.3, 0.9]]))
    near(found, [[0.375, 0.631579], [-0.625, -0.368421]])


def test_oblr_po_baseline_weighs_rewards_by_the_norm_of_their_scores():
    found = OptimalBaseline(level="rollout").of(lists([1, 0, 0, 0]), ragged([[4.0], [1.0], [1.0], [1.0]]))
    near(found, [0.428571, -0.571429, -0.571429, -0.571429])


def test_the_norm_of_a_score_in_the_logits_from_probability_and_collision():
    logits = torch.tensor([[0.3, -0.7, 1.1], [2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    (score,) = torch.autograd.grad(logp[0, 2] + logp[1, 0], logits)
    share = torch.stack([logp[0, 2], logp[1, 0]]).detach()[:, None]
    batch = lists([1, 0]).with_signals(step_logp=share, collision=logp.detach().exp().square().sum(-1)[:, None])
    norm_N = score.square().sum(1)
    near(OptimalBaseline()(batch)[:, 0], [float(1 - norm_N[0] / norm_N.sum()), float(-norm_N[0] / norm_N.sum())], 1e-9)


def test_a_tail_that_one_rollout_has_alone_is_its_own_baseline_or_has_none():
    batch, norm_NT = lists([1, 0], lengths=[1, 2]), ragged([[0.5], [0.5, 0.5]])
    near(OptimalBaseline().of(batch, norm_NT), [[0.5, 0], [-0.5, 0]])
    batch = lists([0, 1], lengths=[1, 2])
    near(OptimalBaseline().of(batch, norm_NT), [[-0.5, 0], [0.5, 0]])
    near(OptimalBaseline(zero_tail=True).of(batch, norm_NT), [[-0.5, 0], [0.5, 1.0]])


def test_a_group_of_one_has_no_baseline_and_an_equal_group_no_signal():
    batch = lists([0.7], [1, 1], [0, 0])
    for part in (OptimalBaseline(), OptimalBaseline(level="rollout")):
        near(part.of(batch, torch.ones(5, 1, dtype=torch.float64)).flatten(), [0.7, 0, 0, 0, 0])
