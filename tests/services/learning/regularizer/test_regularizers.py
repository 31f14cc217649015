"""Regularizers against the worked numbers of their methods."""

from __future__ import annotations

import pytest
import torch

from services.learning.likelihood import Forward
from services.learning.regularizer.epo import Epo
from services.learning.regularizer.forward_kl import ForwardKl
from services.learning.regularizer.kl import Kl
from services.learning.regularizer.kl_cov import KlCov
from services.learning.regularizer.llds import Llds
from services.learning.regularizer.log_ratio_square import LogRatioSquare
from tests.services.learning.numbers import batch_of, near, ragged
from tests.services.learning.rollouts import with_fields


def value(part, batch, logp) -> float:
    logp_NT = ragged(logp)
    batch = batch.with_signals(step_logp=logp_NT)
    if hasattr(part, "over_step"):
        batch = batch.with_signals(**part.over_step(batch))
    return float(part(batch, Forward(logp_NT)))


def test_kl_weighed_by_the_ratio_to_the_sampler():
    d, ratio = torch.tensor([[0.1, -0.2]]).double(), torch.tensor([[1.2, 0.8]]).double()
    logp = torch.tensor([[-0.5, -0.7]]).double()
    batch = batch_of((logp - ratio.log()).tolist(), ref_logp=(logp + d).tolist())
    assert value(Kl(coef=2.0), batch, logp.tolist()) == pytest.approx(0.005171 + 0.018731, abs=1e-6)
    assert value(Kl(coef=2.0, corrected=True), batch, logp.tolist()) == pytest.approx(0.006205 + 0.014985, abs=1e-6)


def test_kimi_opmd_and_dro_squared_log_ratio():
    # lp -.8, lp_prox -1, A 1, tau .1: -A lp + tau / 2 (lp - lp_prox)^2 = .802
    found = value(LogRatioSquare(coef=0.05), batch_of([[-1.0]]), [[-0.8]])
    assert 0.8 + found == pytest.approx(0.802)


REC = {"logp": [[-0.5], [-1.0]], "prox": [[-0.6], [-0.8]], "advantage": [0.75, -0.25]}


def rec_loss(part) -> float:
    policy = -sum(a * lp[0] for a, lp in zip(REC["advantage"], REC["logp"], strict=True)) / 2
    return policy + value(part, batch_of(REC["prox"]), REC["logp"])


def test_rec_with_k2_is_opmd():
    assert rec_loss(LogRatioSquare(coef=0.1)) == pytest.approx(0.065)


def test_rec_with_forward_kl_is_asymre():
    assert rec_loss(ForwardKl(coef=0.1)) == pytest.approx(0.1375)


def test_asymre_lowers_the_baseline():
    logp_NT = ragged([[-0.5], [-1.0]]).requires_grad_()
    batch = batch_of([[-0.6], [-0.8]])
    advantage = torch.tensor([[0.75], [-0.25]], dtype=torch.float64)
    total = -(advantage * logp_NT).sum() / 2 + ForwardKl(coef=0.1)(batch, Forward(logp_NT))
    near(-2 * torch.autograd.grad(total, logp_NT)[0].flatten(), [0.85, -0.15])


def test_kl_cov_pulls_back_the_tokens_of_highest_covariance():
    logp = [[-0.1, -0.2, -2.0, -3.0]]
    advantage = [[1.0, -1.0, 1.0, -1.0]]
    batch = batch_of([[-0.5, -0.5, -0.5, -0.5]], advantage=advantage)
    assert value(KlCov(), batch, logp) == pytest.approx(2.5 / 4)  # token 3: |-3 + .5|
    assert value(KlCov(share=0.5), batch, logp) == pytest.approx((2.5 + 0.4) / 4)


def llds(gate: str) -> float:
    prox = [[-1.0, -0.5, -0.2, -0.9, -0.4], [-1.0] * 5]
    logp = [[-1.3, -0.4, -0.2, -0.7, -0.5], [-3.0] * 5]
    batch = batch_of(prox, advantage=[1.0, -1.0])
    mask = torch.tensor([[1, 1, 0, 1, 1]] * 2).bool()
    return value(Llds(gate=gate), with_fields(batch, mask_NT=mask).counted(), logp)


def test_llds_penalises_only_the_runs_that_fell():
    assert llds("run") == pytest.approx(0.0075)


def test_llds_with_the_response_gate():
    assert llds("response") == pytest.approx(0.01)


def epo(entropy, history=(0.5, 0.48, 0.52), **knobs):
    """(running part, loss, d loss / d entropy) of one turn after three updates."""
    running = Epo(coef=1.0, **knobs).open()
    total = torch.tensor([sum(history)]).double()
    running.load([({"total": total, "count": torch.tensor([3.0])}, {"updates": 0})])
    batch = batch_of([[0.0] * len(entropy)])
    batch = batch.with_signals(**running.over_step(batch))
    entropy_NT = ragged([entropy]).requires_grad_()
    loss = running(batch, Forward(torch.zeros_like(entropy_NT), {"entropy": entropy_NT}))
    return running, float(loss.detach()), torch.autograd.grad(loss, entropy_NT)[0]


def test_epo_penalty_outside_the_band_as_released_has_no_gradient():
    _, loss, pull = epo([0.4, 0.7, 1.3], low=0.0, high=2.0)
    assert loss == pytest.approx(-(2.4 - 0.1) / 3)  # penalties [0, 0, .1]
    near(pull, [[-1 / 3] * 3])


def test_epo_penalty_as_a_distance_pulls_back():
    _, loss, pull = epo([0.4, 0.7, 1.3], low=0.9, high=2.0, penalty="distance")
    assert loss == pytest.approx(-(2.4 - 0.05 - 0.3) / 3)
    near(pull, [[-2 / 3, -1 / 3, 0]])


def test_epo_phase_weights():
    found = [Epo().phase(n) for n in (0, 30, 75, 76, 100, 150)]
    near(torch.tensor(found), [1, 0.889866, 0.827067, 0.768632, 0.294304, 0.039830])


def test_epo_remembers_each_turn_through_a_checkpoint_and_holds_only_long_rollouts_to_it():
    running, _, _ = epo([0.6, 0.8])
    running.after_step(batch_of([[0.0, 0.0]]), lambda other: None)
    near(running.past, [[2.2, 4.0]])
    other = Epo(turns=4).open()
    other.load([running.state()])
    assert other.updates == 1
    batch = batch_of([[0.0, 0.0]])
    assert other.over_step(batch)["epo_history"].isnan().all()  # turn 0 only, of four
    batch.turn_NT[:] = torch.tensor([0, 2])
    found = other.over_step(batch)["epo_history"]
    assert float(found[0, 0]) == pytest.approx(0.55) and found[0, 1].isnan()


def test_ap_grpo_holds_rollouts_above_their_group_back_less():
    for reward, wanted in (([1, 0, 0, 1], [0.7, 1.3, 1.3, 0.7]), ([1, 0, 0, 0], [0.55, 1.15, 1.15, 1.15])):
        batch = batch_of([[-1.0]] * 4, reward=reward, ref_logp=[[-0.9]] * 4)
        near(Kl(preference=0.6).over_step(batch)["kl_weight"], wanted)
    one = batch_of(
        [[-1.0], [-1.0]], reward=[1, 0], ref_logp=[[-0.9], [-0.9]]
    )  # k3 of .1 is .005171, weights .7 and 1.3
    assert value(Kl(coef=0.04, preference=0.6), one, [[-1.0], [-1.0]]) == pytest.approx(0.04 * 0.0051709, abs=1e-8)
    assert value(Kl(coef=1.0, preference=0.6), one, [[-1.0], [-0.9]]) == pytest.approx(0.7 * 0.0051709 / 2, abs=1e-7)
