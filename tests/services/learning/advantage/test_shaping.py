"""Entropy shaping and off-policy baselines against the worked numbers of their methods."""

from __future__ import annotations

import pytest
import torch

from services.learning.advantage.dcpo_distribution import DcpoDistribution
from services.learning.advantage.empg import Empg
from services.learning.advantage.group_norm import GroupNorm
from services.learning.advantage.gtpo_entropy import GtpoEntropy
from services.learning.advantage.opmd import Opmd
from services.learning.advantage.red_drop import RedDrop
from services.learning.collate import collate
from tests.services.learning.numbers import batch_of, near
from tests.services.learning.rollouts import call, group, member, rewarded


def numbers(values):
    return torch.tensor(values, dtype=torch.float64)


def test_gtpo_entropy_filter():
    entropy = [[0.2, 0.4], [0.9], [0.1, 0.3], [0.5]]
    batch = batch_of([[0.0] * len(row) for row in entropy], entropy=entropy)
    near(GtpoEntropy()(batch, numbers([0.5, -0.5, -0.5, 0.5])), [0.47, 0, -0.52, 0.45])
    near(GtpoEntropy()(batch, numbers([0.0] * 4)), [-0.03, 0, -0.02, -0.05])


def turns(*rollouts):
    """One call of two tokens per step; the entropy of both tokens is the step's."""
    members = [member([call([3, 3]) for _ in steps], index=i) for i, steps in enumerate(rollouts)]
    batch = collate([group("g", members)], 0, 8, dtype=torch.float64)
    entropy_NT = torch.zeros_like(batch.behaviour_NT)
    for row, steps in enumerate(rollouts):
        entropy_NT[row, : 2 * len(steps)] = numbers(steps).repeat_interleave(2) + numbers([-0.05, 0.05] * len(steps))
    return batch.with_signals(entropy=entropy_NT)


@pytest.mark.parametrize(
    ("entropies", "wanted"),
    [
        (([0.2, 0.6, 1.0], [0.2, 1.0]), [[1.348316, 0.735829, 0.342023], [-1.667510, -0.758658]]),
        (([0.2, 0.8, 0.5], [1.0, 0.4]), [[1.2143, 0.4379, 0.6942], [-0.8236, -1.5229]]),
    ],
)
def test_empg_steps_of_two_trajectories(entropies, wanted):
    found = Empg()(turns(*entropies), numbers([1.0, -1.0]))
    for row, steps in enumerate(wanted):
        near(found[row, : 2 * len(steps) : 2], steps, 5e-5)
        torch.testing.assert_close(found[row, 0::2], found[row, 1::2])


def test_empg_equal_entropies_leave_the_advantage_and_a_centred_bonus():
    found = Empg()(turns([0.5, 0.5], [0.5, 0.5]), numbers([1.0, -1.0]))
    near(found[:, ::2], [[1.05, 0.95], [-0.95, -1.05]])


def test_opmd_log_average_exp_baseline():
    near(Opmd()(rewarded([1, 0, 0, 0])), [0.642626, *[-0.357374] * 3])
    near(Opmd(divide=True)(rewarded([1, 0, 0, 0])), [0.321313, *[-0.178687] * 3])
    near(Opmd()(rewarded([0.7])), [0.0])


def test_opmd_tends_to_the_mean_as_tau_grows():
    mean = GroupNorm(scale="none", singleton="zero")(rewarded([1, 0, 0, 0]))
    torch.testing.assert_close(Opmd(tau=1e6)(rewarded([1, 0, 0, 0])), mean, atol=1e-5, rtol=0)


def test_red_drop_keeps_as_many_bad_answers_as_good_ones():
    found = RedDrop()(rewarded([1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0]))
    assert float(found[0]) == 0.5 and sorted(found[1:4].tolist()) == [-0.5, 0, 0]
    near(found[4:], [0.5, 0.5, -0.5, -0.5, 0.25, 0.25, 0.25, -0.75, 0, 0])


def test_red_drop_leaves_out_others_at_another_step():
    from tests.services.learning.rollouts import with_fields

    batch = rewarded([1, 0, 0, 0, 0, 0, 0, 0])
    kept = {int(RedDrop()(with_fields(batch, version=v))[1:].argmin()) for v in range(20)}
    assert len(kept) > 3


def dcpo(right, entropy=0.3):
    batch = batch_of([[-1.0, -1.0]], reward=[right], entropy=[[entropy, entropy]], step_logp=[[-0.7, -1.3]])
    tempered = torch.stack([numbers([[9.0, 9.0]]), numbers([[-0.8, -1.1]])], -1)
    return batch.with_signals(tempered_logp=tempered)


def test_dcpo_distribution_worked_numbers():
    part = DcpoDistribution()
    assert float(part.alpha(numbers(0.3), numbers(0.4))) == pytest.approx(0.2)
    assert float(part.alpha(numbers(0.3), numbers(0.0))) == 0.0
    # the only answer is right: q = 1, a = .1, alpha = 1/11
    near(part(dcpo(1.0), numbers([1.2])), [[(1.2 * 10 + 0.904837) / 11, (1.2 * 10 + 1.221403) / 11]])
    near(part(dcpo(0.0), numbers([-0.8])), [[-0.8, -0.8]])
    cold = part(dcpo(1.0, entropy=0.9), numbers([1.2]))
    assert (cold > 100).all()  # above the target the colder copy is read: e^9.7 / 11


def test_dcpo_distribution_of_two_right_answers_in_five():
    part = DcpoDistribution()
    batch = batch_of([[-1.0, -1.0]] * 5, reward=[1.0, 1.0, 0.0, 0.0, 0.0], entropy=[[0.3, 0.3]] * 5,
                     step_logp=[[-0.7, -1.3]] * 5)  # fmt: skip
    tempered = torch.stack([numbers([[9.0, 9.0]] * 5), numbers([[-0.8, -1.1]] * 5)], -1)
    found = part(batch.with_signals(tempered_logp=tempered), numbers([1.2, 1.2, -0.8, -0.8, -0.8]))
    near(found[0], [1.140967, 1.204281])
    near(found[4], [-0.64, -0.64])
