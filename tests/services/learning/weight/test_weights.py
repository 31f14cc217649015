"""PPO's clip and truncated importance sampling against their worked numbers."""

from __future__ import annotations

import pytest
import torch

from services.learning.collate import collate
from services.learning.weight.ppo_clip import PpoClip
from services.learning.weight.tis import Tis
from tests.services.learning.rollouts import call, group, member, with_fields

BEHAVIOUR = [[-1, -0.5, -2, -0.7], [-0.3, -1.2, -0.9]]
PROX = [[-0.9, -0.6, -1.2, -0.7], [-0.4, -1, -2, 0]]
LOGP = [[-0.6, -0.6, -1.3, -0.5], [-0.5, -1.1, -2, 0]]


def batch_of(behaviour, prox=None):
    members = [member([call([3] * len(row), row)]) for row in behaviour]
    batch = collate([group("g", members)], 0, 8, dtype=torch.float64)
    exact = torch.zeros_like(batch.behaviour_NT)
    for row, values in enumerate(behaviour):
        exact[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
    batch = with_fields(batch, behaviour_NT=exact)
    return batch if prox is None else batch.with_signals(prox_logp=torch.tensor(prox, dtype=torch.float64))


@pytest.mark.parametrize(
    ("part", "advantage", "ratio", "coef"),
    [
        (PpoClip(), 1, 1.5, 0),
        (PpoClip(), 1, 0.5, 0.5),
        (PpoClip(), -1, 1.5, -1.5),
        (PpoClip(), -1, 0.5, 0),
        (PpoClip(), -1, 20, 0),
        (PpoClip(dual=None), -1, 20, -20),
        (PpoClip(high=0.28, dual=10.0), 1, 1.27, 1.27),
        (PpoClip(high=0.28, dual=10.0), 1, 1.29, 0),
        (PpoClip(dual=None, cap=2.0), -1, 20, -2),
    ],
)
def test_ppo_clip_coefficients(part, advantage, ratio, coef):
    batch = batch_of([[0.0]])
    logp = torch.log(torch.tensor([[float(ratio)]], dtype=torch.float64))
    found = part(batch, logp, torch.full_like(logp, float(advantage)))
    assert float(found.weight_NT * found.mask_NT * advantage) == pytest.approx(coef)


@pytest.mark.parametrize("gap", [25.0, float("inf")])
def test_ppo_clip_beyond_the_clamp_the_loss_is_flat(gap):
    batch = batch_of([[-1.0 - gap]])
    found = PpoClip(dual=None)(batch, torch.tensor([[-1.0]], dtype=torch.float64), -torch.ones(1, 1).double())
    assert not found.mask_NT.any() and found.weight_NT.isfinite().all()


def test_tis_token_weights_truncated_at_two():
    batch = batch_of(BEHAVIOUR, PROX)
    logp = torch.tensor(LOGP, dtype=torch.float64)
    found = Tis(cap=2.0)(batch, logp, torch.ones_like(logp)).weight_NT
    wanted = torch.tensor([[1.105171, 0.904837, 2, 1], [0.904837, 1.221403, 0.332871, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_tis_sequence_weights_truncated_at_two():
    batch = batch_of(BEHAVIOUR, PROX)
    logp = torch.tensor(LOGP, dtype=torch.float64)
    found = Tis(cap=2.0, level="sequence")(batch, logp, torch.ones_like(logp)).weight_NT.flatten()
    torch.testing.assert_close(found, torch.tensor([2, 0.367879], dtype=torch.float64), atol=1e-6, rtol=0)


def test_aipo_form_tis_of_the_policy_itself():
    batch = batch_of(BEHAVIOUR, PROX)
    logp = torch.tensor(LOGP, dtype=torch.float64)
    advantage = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    found = Tis(cap=2.0, of="policy")(batch, logp, advantage).weight_NT * advantage
    first, second = [1.491825, 0.904837, 2, 1.221403], [-0.409365, -0.552585, -0.166436]
    torch.testing.assert_close(found[0], torch.tensor(first).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1, :3], torch.tensor(second).double(), atol=1e-6, rtol=0)


def test_decoupled_ppo_is_clip_on_the_proximal_ratio_times_the_behaviour_weight():
    batch = batch_of(BEHAVIOUR, PROX)
    logp = torch.tensor(LOGP, dtype=torch.float64)
    advantage = torch.tensor([[1.0] * 4, [-0.5] * 4], dtype=torch.float64)
    clip, tis = PpoClip(dual=None)(batch, logp, advantage), Tis(cap=5.0)(batch, logp, advantage)
    value = -(torch.minimum(clip.weight_NT, torch.tensor([[1.2], [9.0]]).double()) * advantage * tis.weight_NT)
    assert float(value[batch.mask_NT].sum() / 7) == pytest.approx(-0.616630, abs=1e-6)
