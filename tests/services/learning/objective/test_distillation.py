"""Distillation and imitation: each worked number, and each paper's loss written out against the part's gradient."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from pipeline import parts
from pipeline.errors import UserError
from services.learning.advantage.own_group import OwnGroup
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.estimator import Estimator
from services.learning.likelihood import Forward
from services.learning.objective.hpt import Hpt
from services.learning.objective.sdpo import Sdpo
from services.learning.objective.srpo import Srpo
from services.learning.weight.ppo_clip import PpoClip
from sluice.v1 import rollout_pb2
from tests.services.learning.objective.value_routes import close, f64, routes
from tests.services.learning.rollouts import call, group, member
from tests.services.learning.steps import begun, gradient

INJECTED = rollout_pb2.TOKEN_KIND_INJECTED

TEACHER, STUDENT = f64(0.7, 0.2, 0.1).log(), f64(0.4, 0.4, 0.2).log()


@pytest.mark.parametrize(("alpha", "wanted"), [(0.0, 0.183787), (1.0, 0.192042), (0.5, 0.046201)])
def test_sdpo_divergences_over_the_whole_vocabulary(alpha, wanted):
    for rest in ("bucket", "renormalise"):
        close(Sdpo(alpha=alpha, rest=rest).divergence(TEACHER, STUDENT), wanted)


def test_sdpo_divergence_over_the_likeliest_tokens():
    """With the first two tokens the bucket holds the third, so nothing is lost; renormalised, it is."""
    close(Sdpo().divergence(TEACHER[:2], STUDENT[:2]), 0.183787)
    close(Sdpo(rest="renormalise").divergence(TEACHER[:2], STUDENT[:2]), 0.163441)


def test_sdpo_on_the_sampled_token():
    batch = collate([group("g", [member([call([3])], True)])], 0, 8, dtype=torch.float64)
    batch = batch.with_signals(teacher_logp=TEACHER[:1][None], taught=f64(1))
    logp_NT = STUDENT[:1][None].clone().requires_grad_()
    found_NT = Sdpo(alpha=1.0, form="sampled", clip=None).per_token(batch, Forward(logp_NT))
    close(found_NT.detach(), 0.512771)
    close(gradient(found_NT.sum(), logp_NT), math.log(0.4 / 0.7))
    with pytest.raises(UserError, match="alpha is 0.0"):
        parts.load("learning.objective", "sdpo", form="sampled")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_sdpo_two_routes(seed, alpha):
    def value(batch, logp_NT, seen, _):
        summed = 0.0
        for i, t in batch.mask_NT.nonzero().tolist():
            p, q = batch.signals["teacher_top"][i, t].exp(), seen.signals["picked"][i, t].exp()
            p, q = torch.cat([p, 1 - p.sum()[None]]), torch.cat([q, 1 - q.sum()[None]])
            if alpha in (0.0, 1.0):
                kl = (p * (p / q).log()).sum() if alpha == 0 else (q * (q / p).log()).sum()
            else:
                m = (1 - alpha) * q + alpha * p
                kl = (1 - alpha) * (q * (q / m).log()).sum() + alpha * (p * (p / m).log()).sum()
            summed = summed + kl * (logp_NT - batch.prox_NT)[i, t].exp().clamp(max=2.0).detach()
        return summed / batch.mask_NT.sum()

    routes(Sdpo(alpha=alpha), value, seed)


def test_srpo_weighs_by_the_teachers_certainty_and_has_one_denominator():
    made = [member([call([3, 4, 5])], False), member([call([3, 4])], True, index=1)]
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    entropy_NT = torch.cat([f64([0.1, 1.2, 0.5]), torch.zeros(1, 3).double()])
    batch = batch.with_signals(taught=f64(1, 1), teacher_entropy=entropy_NT)
    part = Srpo()
    batch = batch.with_signals(**part.over_step(batch))
    weight_NT = part.weights(batch)
    close(weight_NT[0], 1.497610, 0.498511, 1.003878)
    assert part.routed(batch).tolist() == [[True] * 3, [False] * 3]
    loss = ((weight_NT[0] * f64(0.2, 0.4, 0.1)).sum() - 0.5 - 0.5) / batch.denominators.tokens
    close(loss, -0.080137)


@pytest.mark.parametrize("seed", range(3))
def test_srpo_two_routes(seed):
    def value(batch, logp_NT, seen, advantage_N):
        distilled, weights, plain = [], [], []
        for i, t in batch.mask_NT.nonzero().tolist():
            ratio = (logp_NT - batch.prox_NT)[i, t].exp()
            if batch.accuracy_N[i] == 1:
                a = advantage_N[i]
                plain.append(torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.28)))
                continue
            p, q = batch.signals["teacher_top"][i, t].exp(), seen.signals["picked"][i, t].exp()
            p, q = torch.cat([p, 1 - p.sum()[None]]), torch.cat([q, 1 - q.sum()[None]])
            distilled.append((p * (p / q).log()).sum() * ratio.detach().clamp(max=2.0))
            weights.append(torch.exp(-batch.signals["teacher_entropy"][i, t]))
        weight = torch.stack(weights)
        return (sum(plain) + (weight / weight.mean() * torch.stack(distilled)).sum()) / batch.mask_NT.sum()

    routes(Srpo(), value, seed, weights=(PpoClip(high=0.28, dual=None),))


def with_demonstration(right: int, wrong: int) -> Batch:
    made = [member([call([3])], i < right, index=i) for i in range(right + wrong)]
    made.append(member([call([4, 5], token_kinds=[INJECTED] * 2)], True, index=99))
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    return dataclasses.replace(batch, reward_N=batch.accuracy_N)


@pytest.mark.parametrize(("gate", "wanted"), [(0, "SRRR"), (2, "SSRR")])
def test_hpt_imitates_where_few_rollouts_are_right(gate, wanted):
    found = ""
    for right in (0, 2, 3, 8):
        imitated_NT, learning_N = Hpt(gate=gate).routes(with_demonstration(right, 8 - right))
        assert bool(imitated_NT.any()) != bool(learning_N.any())
        found += "S" if imitated_NT.any() else "R"
        assert int(imitated_NT.sum()) in (0, 2) and int(learning_N.sum()) in (0, 8)
    assert found == wanted


def test_hpt_compares_own_rollouts_only():
    close(OwnGroup()(with_demonstration(1, 3)), 0.75, -0.25, -0.25, -0.25, 0)


@pytest.mark.parametrize("right", [0, 2])
def test_hpt_two_routes(right):
    batch = with_demonstration(right, 4 - right)
    advantage_N = OwnGroup()(batch)
    logp_NT = (-torch.rand(batch.token_NT.shape, dtype=torch.float64)).requires_grad_()
    estimator = Estimator((), objective=Hpt(sft=0.3))
    found = estimator.loss(begun(estimator, batch, advantage_N, logp_NT), Forward(logp_NT), advantage_N).total
    if right:
        wanted = -sum(advantage_N[i] * logp_NT[i, 0] for i in range(4)) / 4 / 8
    else:
        wanted = -0.3 * (logp_NT[4, 0] + logp_NT[4, 1]) / 2
    torch.testing.assert_close(gradient(found, logp_NT), gradient(wanted, logp_NT), atol=1e-8, rtol=1e-8)
