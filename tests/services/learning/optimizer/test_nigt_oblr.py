"""N-PG-IGT, HARPG and OBLR: the worked numbers, and runs that go on from a checkpoint as if nothing had happened."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.recipe import load_recipe
from services.learning import checkpoint
from services.learning.optimizer.harpg import Harpg
from services.learning.optimizer.nigt import Nigt
from services.learning.optimizer.oblr import Oblr
from services.learning.trainer import Trainer
from tests.services.learning.rollouts import random_groups, tiny_model


def test_n_pg_igt_climbs_a_parabola_by_its_step_length_and_serves_the_extrapolated_point():
    served = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = Nigt(lr=0.1, eta=0.5).build([served])
    theta, points, momentum = [], [], []
    for _ in range(4):
        served.grad = served.detach().clone()  # of the loss theta^2 / 2
        optimizer.step()
        theta.append(float(optimizer.state[served]["theta"]))
        points.append(float(served.detach()))
        momentum.append(float(optimizer.state[served]["momentum"]))
    assert theta == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert points[:3] == pytest.approx([0.8, 0.7, 0.6])
    assert momentum[1:] == pytest.approx([-0.9, -0.8, -0.7])


def test_n_pg_igt_has_one_norm_over_all_parameters():
    a, b = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([-4.0])
    optimizer = Nigt(lr=1.0, eta=1.0).build([a, b])
    optimizer.step()
    assert (float(a), float(b)) == pytest.approx((-0.6, 0.8))
    a.grad, b.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert (float(a), float(b)) == pytest.approx((-0.6, 0.8))


def parabola(part, steps=3):
    """(weights, momenta) of a climb of -theta^2 / 2 from theta = 1."""
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = part.build([theta])

    def again():
        theta.grad = theta.detach().clone()

    found = []
    for _ in range(steps):
        again()
        optimizer.step(again)
        found.append((float(theta.detach()), float(optimizer.state[theta]["momentum"])))
    return tuple(zip(*found, strict=True))


def test_harpg_tracks_the_gradient_of_a_parabola_exactly():
    theta, momentum = parabola(Harpg(lr=0.1, eta=0.5))
    assert theta == pytest.approx([0.9, 0.81, 0.729]) and momentum == pytest.approx([-1, -0.9, -0.81])


def test_n_harpg_takes_steps_of_one_length():
    theta, _ = parabola(Harpg(lr=0.1, eta=0.5, normalised=True))
    assert theta == pytest.approx([0.9, 0.8, 0.7])


def test_harpg_adds_the_difference_of_gradients_at_a_point_of_the_way():
    """x^4 / 4: the second derivative at the point drawn for the step, q from the count of steps."""
    x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = Harpg(lr=0.1, eta=0.5, reach=1e-4).build([x])

    def again():
        x.grad = x.detach() ** 3

    for _ in range(2):
        again()
        optimizer.step(again)
    q = float(torch.rand((), generator=torch.Generator().manual_seed(1)))
    between = q * 0.9 + (1 - q) * 1.0
    v = -3 * between**2 * (0.9 - 1.0)
    wanted = 0.5 * (-1 + v) + 0.5 * -(0.9**3)
    assert float(optimizer.state[x]["momentum"]) == pytest.approx(wanted, abs=1e-7)
    assert float(x.detach()) == pytest.approx(0.9 + 0.1 * wanted, abs=1e-8)


def test_harpg_asks_for_two_more_gradients_and_leaves_a_point_without_one_alone():
    x, asked = nn.Parameter(torch.zeros(2)), []
    optimizer = Harpg(normalised=True).build([x])
    for _ in range(2):
        x.grad = torch.zeros(2)
        optimizer.step(lambda: asked.append(1))
    assert not asked and x.tolist() == [0, 0]


def test_oblr_factor_of_four_gradients():
    one = nn.Parameter(torch.zeros(2))
    optimizer = Oblr(memory=1.0).build([one])
    factors = []
    for gradient in ((1.0, 0.0), (0.5, 0.5), (1.5, -0.5), (1.0, 0.0)):
        one.grad = torch.tensor(gradient)
        factors.append(optimizer.factor())
    assert factors[0] == pytest.approx(1.0) and factors[-1] == pytest.approx(0.8)


def test_oblr_slows_where_gradients_disagree():
    moved = []
    for sign in (1.0, -1.0):
        one = nn.Parameter(torch.zeros(1))
        optimizer = Oblr(lr=0.1, memory=0.9).build([one])
        for each in (1.0, sign, 1.0, sign):
            one.grad = torch.tensor([each])
            before = float(one)
            optimizer.step()
        moved.append(abs(float(one) - before))
        assert optimizer.param_groups[0]["lr"] == 0.1
    assert moved[1] < 0.1 * moved[0]


@pytest.mark.parametrize("recipe", ["nigt", "harpg", "oblr_po"])
def test_a_run_goes_on_from_a_checkpoint_to_the_same_weights(recipe, tmp_path):
    changed = load_recipe({"base": recipe, "optimizer": dict(load_recipe(recipe).optimizer) | {"lr": 1e-2}})
    one, other = (Trainer(tiny_model(seed), changed, max_tokens=6) for seed in (0, 9))
    for _ in range(2):
        one.step(random_groups(1), 3)
    saved = checkpoint.save(tmp_path, 1, 2, one.state())
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    results = [each.step(random_groups(2), 3).metrics for each in (one, other)]
    assert results[0] == results[1]
    for (name, a), (_, b) in zip(one.weights(), other.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
