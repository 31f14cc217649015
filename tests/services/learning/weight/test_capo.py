"""CAPO: the worked token, and moments that know only tokens that were kept."""

from __future__ import annotations

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning import checkpoint
from services.learning.curvature import Linear, direction, moments
from services.learning.trainer import Trainer
from services.learning.weight.capo import Capo
from tests.services.learning.rollouts import random_groups, tiny_model


def f64(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def token(top: int = 3) -> Linear:
    """One token 0 behind h = [1, .5], its policy over three tokens."""
    weight_VD, hidden_MD = f64([0.2, -0.1], [0, 0.3], [-0.4, 0.1]), f64([1, 0.5])
    prob_MK, ids_MK = (hidden_MD @ weight_VD.T).softmax(-1).topk(top)
    return Linear.sampled(hidden_MD, ids_MK, prob_MK, torch.tensor([0]))


def test_a_tokens_change_of_the_objective_and_move_of_the_policy():
    objective_M, move_M = token().changes(f64(1), f64([0.9, 0.4], [-0.5, -0.2], [-0.3, -0.1]), 0.05)
    assert float(objective_M) == pytest.approx(0.049932, abs=1e-6) and float(move_M) == pytest.approx(
        0.001224, abs=1e-6
    )
    assert not Capo().keeps(objective_M, f64(0)) and not Capo().keeps(f64(0), move_M)
    assert Capo(tau_h=0.05, tau_f=0.002).keeps(objective_M, move_M)
    assert Capo().keeps(-f64(0.005), f64(0)) and not Capo(one_sided=True).keeps(-f64(0.005), f64(0))


def test_the_gradient_of_a_token_is_the_gradient_of_its_log_prob_in_the_output_layer():
    weight_VD = f64([0.2, -0.1], [0, 0.3], [-0.4, 0.1]).requires_grad_()
    (weight_VD @ f64(1, 0.5)).log_softmax(-1)[0].backward()
    torch.testing.assert_close(token().gradient(f64(1), 3), weight_VD.grad)


def test_a_sampled_token_beyond_the_likeliest_still_pulls():
    one = Linear.sampled(f64([1, 0.5]), torch.tensor([[1]]), f64([0.4]), torch.tensor([2]))
    torch.testing.assert_close(one.gradient(f64(2), 3), f64([0, 0], [-0.8, -0.4], [2, 1]))


def test_the_direction_is_adams():
    weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=1.0)
    state: tuple = (None, None)
    for step, grad in enumerate((f64([1, -2], [0.5, 3]), f64([0.2, 1], [-1, 0.1])), 1):
        before, weight.grad = weight.detach().clone(), grad
        adam.step()
        state = moments(*state, grad, (0.9, 0.999))
        torch.testing.assert_close(before - weight.detach(), direction(*state, (0.9, 0.999), 1e-8, step))


def trainer(seed: int = 0, lr: float = 1e-2, **knobs) -> Trainer:
    weight = ["ppo_clip", {"name": "capo", **knobs}]
    recipe = load_recipe({"base": "capo", "weight": weight, "optimizer": {"name": "adamw", "lr": lr}})
    return Trainer(tiny_model(seed), recipe, max_tokens=6)


def test_tighter_bounds_leave_fewer_tokens_and_the_moments_know_only_those_kept(tmp_path):
    loose, tight, shut = trainer(tau_h=1e9, tau_f=1e9), trainer(tau_h=0.02, tau_f=1e-3), trainer(tau_f=1e-30)
    shares = [each.step(random_groups(1), 3).metrics["clip_share"] for each in (loose, tight, shut)]
    assert shares[0] < shares[1] < shares[2] == 1.0
    assert loose.controllers["capo"].first_VD.abs().sum() > 0 and shut.controllers["capo"].first_VD.abs().sum() == 0
    saved = checkpoint.save(tmp_path, 1, 1, tight.state())
    other = trainer(9, tau_h=0.02, tau_f=1e-3)
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    torch.testing.assert_close(tight.controllers["capo"].first_VD.float(), other.controllers["capo"].first_VD)
    assert other.controllers["capo"].steps == 1
    assert (
        tight.step(random_groups(2), 3).metrics["clip_share"] == other.step(random_groups(2), 3).metrics["clip_share"]
    )


def test_a_step_that_was_not_made_leaves_the_moments_alone():
    one = trainer()
    one.step([], 0)
    assert one.controllers["capo"].first_VD is None and one.controllers["capo"].steps == 0
