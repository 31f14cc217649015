"""Two routes to one gradient: the paper's loss by autograd, and the closed-form coefficient of the estimator.

The value forms below are written from the papers' formulas and import nothing of the parts.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch

from pipeline.recipe import load_recipe, shipped
from services.learning.build import build
from services.learning.denominator.sequence_mean_token_mean import SequenceMeanTokenMean
from services.learning.denominator.sequence_sum_constant import SequenceSumConstant
from services.learning.denominator.token_mean import TokenMean
from services.learning.estimator import Estimator
from services.learning.likelihood import Forward
from services.learning.regularizer.entropy import Entropy
from services.learning.regularizer.kl import Kl
from services.learning.weight.ppo_clip import PpoClip
from services.learning.weight.tis import Tis
from tests.services.learning.steps import LONGEST, gradient, loss, step


@functools.cache
def estimator_of(name: str) -> Estimator:
    return build(load_recipe(name)).opened()[0]


def ppo_value(ratio, advantage, low, high, dual):
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))
    if dual is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, -advantage * dual), loss)
    return loss


def token_mean(loss, mask):
    return (loss * mask).sum() / mask.sum()


def row_mean(loss, mask):
    return ((loss * mask).sum(1) / mask.sum(1)).mean()


def row_sum_constant(loss, mask):
    return (loss * mask).sum(1).mean() / LONGEST


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.1, 2.0, 20.0])
@pytest.mark.parametrize(
    ("low", "high", "dual", "denominator", "average"),
    [
        (0.2, 0.2, 3.0, SequenceMeanTokenMean(), row_mean),  # GRPO
        (0.2, 0.28, 10.0, TokenMean(), token_mean),  # DAPO, SPO
        (0.2, 0.2, None, SequenceSumConstant(), row_sum_constant),  # Dr. GRPO
    ],
)
def test_ppo_clip_two_routes(seed, spread, low, high, dual, denominator, average):
    batch, advantage_N, logp_NT = step(seed, spread)
    ratio = (logp_NT - batch.signals["prox_logp"]).clamp(-20, 20).exp()
    value = average(ppo_value(ratio, advantage_N[:, None], low, high, dual), batch.mask_NT)
    estimator = Estimator((PpoClip(low=low, high=high, dual=dual),), denominator)
    found = estimator.loss(batch, Forward(logp_NT), advantage_N).total
    torch.testing.assert_close(gradient(found, logp_NT), gradient(value, logp_NT), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_decoupled_ppo_with_tis_two_routes(seed, spread):
    batch, advantage_N, logp_NT = step(seed, spread)
    prox_NT = batch.signals["prox_logp"]
    ratio = (logp_NT - prox_NT).clamp(-20, 20).exp()
    correction = (prox_NT - batch.behaviour_NT).exp().clamp(max=1.2)
    value = token_mean(correction * ppo_value(ratio, advantage_N[:, None], 0.2, 0.28, 3.0), batch.mask_NT)
    estimator = Estimator((PpoClip(high=0.28), Tis(cap=1.2)), TokenMean())
    found = estimator.loss(batch, Forward(logp_NT), advantage_N).total
    torch.testing.assert_close(gradient(found, logp_NT), gradient(value, logp_NT), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_reinforce_with_a_truncated_weight_two_routes(seed):
    batch, advantage_N, logp_NT = step(seed)
    weight = (logp_NT - batch.behaviour_NT).exp().clamp(max=2.0).detach()
    value = token_mean(-weight * advantage_N[:, None] * logp_NT, batch.mask_NT)
    found = Estimator((Tis(cap=2.0, of="policy"),), TokenMean()).loss(batch, Forward(logp_NT), advantage_N).total
    torch.testing.assert_close(gradient(found, logp_NT), gradient(value, logp_NT), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("corrected", [False, True])
def test_kl_two_routes(kind, corrected):
    batch, advantage_N, logp_NT = step(1)
    d = batch.signals["ref_logp"] - logp_NT
    term = {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - 1 - d}[kind]
    weight = (logp_NT - batch.behaviour_NT).exp().detach() if corrected else 1.0
    value = 0.04 * token_mean(weight * term, batch.mask_NT)
    found = Kl(coef=0.04, estimator=kind, corrected=corrected)(batch, Forward(logp_NT))
    torch.testing.assert_close(found, value)
    torch.testing.assert_close(gradient(found, logp_NT), gradient(value, logp_NT), atol=1e-8, rtol=1e-8)


def test_kl_worked_numbers():
    d = torch.tensor([0.1, -0.2], dtype=torch.float64)
    wanted = torch.tensor([0.005171, 0.018731], dtype=torch.float64)
    torch.testing.assert_close(Kl().per_token(d), wanted, atol=1e-6, rtol=0)
    found = [float(Kl(estimator=kind).per_token(torch.tensor(0.1).double())) for kind in ("k1", "k2", "k3")]
    assert found == pytest.approx([-0.1, 0.005, 0.0051709], abs=1e-7)


def test_entropy_bonus_is_a_mean_over_trained_tokens():
    batch, _, logp_NT = step(2)
    entropy_NT = torch.where(batch.mask_NT, 0.6, 9.0).double()
    assert float(Entropy(coef=0.1)(batch, Forward(logp_NT, {"entropy": entropy_NT}))) == pytest.approx(-0.06)


@pytest.mark.parametrize("name", shipped())
def test_at_ratio_one_the_coefficient_is_the_advantage(name):
    """Unless a weight part says that it `shapes` the coefficient there: then it must."""
    batch, advantage_N, _ = step(3)
    logp_NT = batch.behaviour_NT.clone().requires_grad_()
    batch = batch.with_signals(prox_logp=batch.behaviour_NT)
    estimator = estimator_of(name)
    found_NT = loss(estimator, batch, advantage_N, logp_NT).coef_NT
    wanted_NT = advantage_N[:, None] * batch.mask_NT
    if any(getattr(part, "shapes", "") for part in estimator.weights):
        assert not torch.allclose(found_NT, wanted_NT)
    else:
        torch.testing.assert_close(found_NT, wanted_NT)


@pytest.mark.parametrize("name", shipped())
def test_no_gradient_reaches_tokens_that_are_not_trained_on(name):
    batch, advantage_N, logp_NT = step(4, spread=1e-4, gap=1e-4)
    found = gradient(loss(estimator_of(name), batch, advantage_N, logp_NT).total, logp_NT)
    assert (found[~batch.mask_NT] == 0).all() and (found[batch.mask_NT] != 0).any()


@pytest.mark.parametrize("name", shipped())
def test_impossible_tokens_leave_loss_and_gradient_finite(name):
    batch, advantage_N, logp_NT = step(5)
    values = logp_NT.detach().clone()
    values[:5, 0] = batch.prox_NT[:5, 0] + torch.tensor([25.0, -25.0, math.inf, -math.inf, math.nan]).double()
    logp_NT = values.requires_grad_()
    total = loss(estimator_of(name), batch, advantage_N, logp_NT).total
    assert total.isfinite() and gradient(total, logp_NT).isfinite().all()


@pytest.mark.parametrize("name", shipped())
def test_a_behaviour_log_prob_of_minus_infinity_leaves_the_loss_finite(name):
    batch, advantage_N, logp_NT = step(6)
    batch.behaviour_NT[0, 0] = -math.inf
    batch.signals["prox_logp"][0, 0] = -math.inf
    total = loss(estimator_of(name), batch, advantage_N, logp_NT).total
    assert total.isfinite() and gradient(total, logp_NT).isfinite().all()


def test_a_denominator_that_shrinks_counts_what_the_mask_left():
    batch, _, _ = step(7)
    logp_NT = (batch.prox_NT + 1.0).requires_grad_()  # ratio e: above the clip
    advantage_N = torch.ones(len(batch), dtype=torch.float64)
    advantage_N[::2] = -1  # pulls down, within the dual clip: open
    kept = Estimator((PpoClip(dual=None),), TokenMean(shrink=False)).loss(batch, Forward(logp_NT), advantage_N)
    shrunk = Estimator((PpoClip(dual=None),), TokenMean(shrink=True)).loss(batch, Forward(logp_NT), advantage_N)
    open_tokens = int(batch.mask_NT[::2].sum())
    ratio = float(batch.mask_NT.sum()) / open_tokens
    torch.testing.assert_close(gradient(shrunk.total, logp_NT), ratio * gradient(kept.total, logp_NT))
