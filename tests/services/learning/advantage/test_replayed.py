"""Advantages of mixed, ranked and reused groups: R^3 and VSPO."""

import pytest
import torch

from services.learning.advantage.cross_context_norm import CrossContextNorm
from services.learning.advantage.entropy_ranking import EntropyRanking
from services.learning.advantage.value_smoothing import ValueSmoothing
from tests.services.learning.rollouts import rewarded, with_fields

ROWS = ([0.1, 2, 0.1, 1.5, *[0.1] * 6], [0.5] * 10, [*[0.1] * 9, 1], [*[1] * 9, 2])


def ranked(truncated=(True,) * 4, rewards=(0, 0, 0, 0)):
    batch = rewarded(list(rewards), tokens=10)
    batch = with_fields(batch, truncated_N=torch.tensor(truncated))
    return batch.with_signals(entropy=torch.tensor(ROWS, dtype=torch.float64))


def test_r3_mixed_group_advantages():
    batch = rewarded([0, 0, 0, 0, 1, 1])
    for alpha, wanted in ((1.0, [-0.707105] * 4 + [1.414211] * 2), (2.0, [-0.353553] * 4 + [0.707106] * 2)):
        assert CrossContextNorm(alpha=alpha)(batch).tolist() == pytest.approx(wanted, abs=2e-6)
    assert CrossContextNorm()(rewarded([1, 1], [0])).tolist() == [0, 0, 0]


def test_r3_entropy_ranking_rewards():
    batch, part = ranked(), EntropyRanking()
    peak, mean = part.shape(batch.signals["entropy"], batch.valid_NT, batch.length_N)
    assert peak.tolist() == pytest.approx([1.75, 0.5, 0.55, 1.5]) and mean.tolist() == pytest.approx(
        [0.43, 0.5, 0.19, 1.1]
    )
    assert part.reward(batch, batch.truncated_N, peak, mean).tolist() == pytest.approx(
        [1, 0.333333, 0.666667, 0], abs=1e-6
    )
    # Rewards 1, 1/3, 2/3, 0 have mean 1/2 and population std 0.372678.
    found = part(batch, torch.zeros(4, dtype=torch.float64))
    assert found.tolist() == pytest.approx([1.341637, -0.447212, 0.447212, -1.341637], abs=1e-5)


def test_r3_ranking_leaves_every_other_group_and_a_single_truncated_answer_alone():
    before = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for batch in (ranked(rewards=(0, 1, 0, 0)), ranked(truncated=(True, False, False, False)), ranked((False,) * 4)):
        assert EntropyRanking()(batch, before).tolist() == before.tolist()
    two = EntropyRanking()(ranked(truncated=(True, True, False, False)), before)
    assert two.tolist() == pytest.approx([1.732047, -0.577349, -0.577349, -0.577349], abs=1e-5)


def test_vspo_value_smoothing():
    batch = with_fields(rewarded([1, 0]), use_N=torch.tensor([3, 3]))
    found = ValueSmoothing()(batch, torch.tensor([1.2, -0.8], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.692820, -0.461880], abs=1e-6)
