"""PPO with a value head: GAE and the value loss by hand; a head that is trained, clipped, kept and never published."""

from __future__ import annotations

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning import checkpoint
from services.learning.advantage.gae import Gae
from services.learning.likelihood import Forward
from services.learning.regularizer.value_loss import ValueLoss
from services.learning.returns import generalised
from services.learning.trainer import Trainer
from tests.services.learning.rollouts import random_groups as some
from tests.services.learning.rollouts import rewarded, tiny_model
from tests.services.learning.steps import step

VALUES = torch.tensor([[0.2, 0.3, 0.5, 0.6]], dtype=torch.float64)


def trainer(seed: int = 0, **more) -> Trainer:
    recipe = load_recipe({"base": "ppo", "optimizer": {"name": "adamw", "lr": 1e-2, "clip_norm": None}, **more})
    return Trainer(tiny_model(seed), recipe, max_tokens=6)


def by_hand(reward, values, mask, gamma, lam):
    """Backwards over the trained tokens, as every paper writes it."""
    found, after, following = [0.0] * len(values), 0.0, 0.0
    places = [t for t in range(len(values)) if mask[t]]
    for t in reversed(places):
        delta = (reward if t == places[-1] else 0.0) + gamma * following - values[t]
        after = delta + gamma * lam * after
        found[t], following = after, values[t]
    return found


@pytest.mark.parametrize(
    ("edge", "wanted"), [("zero", [-0.134175, -0.2465, -0.47, -0.6]), ("edge", [0.38025, 0.295, 0.1, 0])]
)
def test_gae_of_a_rollout_that_was_cut(edge, wanted):
    batch = rewarded([0.0], tokens=4)
    batch.truncated_N[:] = True
    found_NT = Gae(truncated=edge, whiten=False)(batch.with_signals(value=VALUES))
    torch.testing.assert_close(found_NT, torch.tensor([wanted], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_gae_steps_over_what_is_not_trained_on(seed, gamma, lam):
    generator = torch.Generator().manual_seed(seed)
    value_NT, reward_N = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 13), (5,)))
    mask_NT = torch.rand(5, 13, generator=generator) < 0.6
    mask_NT[4] = False
    found_NT = generalised(reward_N, value_NT, mask_NT, gamma, lam)
    for i in range(5):
        wanted = by_hand(float(reward_N[i]), value_NT[i].tolist(), mask_NT[i].tolist(), gamma, lam)
        torch.testing.assert_close(found_NT[i], torch.tensor(wanted, dtype=torch.float64))


def test_gae_is_whitened_over_the_trained_tokens_of_the_step():
    batch, _, _ = step(1)
    found_NT = Gae()(batch)
    assert float(found_NT[batch.mask_NT].mean()) == pytest.approx(0, abs=1e-12)
    assert float(found_NT[batch.mask_NT].std()) == pytest.approx(1, rel=1e-6)
    assert (found_NT[~batch.mask_NT] == 0).all()


def test_the_value_moves_at_most_a_clip_per_step():
    part, one = ValueLoss(clip=0.5), torch.tensor
    found = part.per_token(one([0.9, 0.3]), one([0.2, 0.2]), one([1.0, 1.0]))
    torch.testing.assert_close(found, one([0.045, 0.245]))


@pytest.mark.parametrize("seed", range(3))
def test_value_loss_two_routes(seed):
    batch, _, logp_NT = step(seed)
    value_NT = logp_NT * 0.4
    part = ValueLoss(coef=0.3, lam=0.9, clip=0.2)
    found = part(batch.with_signals(**part.over_step(batch)), Forward(logp_NT, {"value": value_NT}))
    wanted = 0.0
    for i in range(len(batch)):
        old, mask = batch.signals["value"][i], batch.mask_NT[i]
        target = old + torch.tensor(by_hand(float(batch.reward_N[i]), old.tolist(), mask.tolist(), 1.0, 0.9))
        near = old + (value_NT[i] - old).clamp(-0.2, 0.2)
        loss = torch.maximum((value_NT[i] - target) ** 2, (near - target) ** 2) / 2
        wanted = wanted + 0.3 * loss[mask].sum() / batch.mask_NT.sum()
    mine, papers = (torch.autograd.grad(loss, value_NT, retain_graph=True)[0] for loss in (found, wanted))
    torch.testing.assert_close(mine, papers, atol=1e-8, rtol=1e-8)


def test_the_head_learns_the_value_of_a_prompt_and_goes_through_a_checkpoint(tmp_path):
    one = trainer()
    losses = [one.step(some(1), 3).metrics["loss_value_loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert one.heads["value"].weight.abs().sum() > 0
    assert [name for name, _ in one.weights() if "head" in name and "lm_head" not in name] == []
    saved = checkpoint.save(tmp_path, 1, 4, one.state())
    other = trainer(seed=9)
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    a, b = one.step(some(1), 3), other.step(some(1), 3)
    assert a.metrics == b.metrics
    for (name, x), y in zip(one.trained().items(), other.trained().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, msg=name)


def test_the_head_is_clipped_with_the_policy_and_has_a_rate_of_its_own():
    one = trainer(signals=[{"name": "value", "rate": 3.0}], optimizer={"name": "adamw", "lr": 1e-2, "clip_norm": 1e-3})
    one.step(some(2), 3)
    norm = torch.cat([p.grad.flatten() for p in one.trained().values()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert one.heads["value"].weight.grad.abs().sum() > 0
    assert sorted({group["lr"] for group in one.optimizer.param_groups}) == pytest.approx([1e-2, 3e-2])


def test_a_value_that_stops_at_the_head_leaves_the_trunk_alone():
    """With the policy's coefficient at 0 only the head has a gradient."""
    quiet = {"weight": [{"name": "tis", "cap": 1e-30, "of": "policy"}]}
    one = trainer(signals=[{"name": "value", "trunk": False}], **quiet)
    one.step(some(3), 3)
    assert max(float(p.grad.abs().max()) for p in one.model.parameters() if p.grad is not None) < 1e-25
    assert one.heads["value"].bias.grad.abs() > 0
    through = trainer(**quiet)
    with torch.no_grad():
        through.heads["value"].weight.fill_(0.1)
    through.step(some(3), 3)
    assert max(float(p.grad.abs().max()) for p in through.model.parameters()) > 1e-6
