"""What verdicts are worth, and DAPO's overlong ramp."""

from __future__ import annotations

import math

import pytest
import torch

from services.learning.collate import collate
from services.learning.reward.outcome_table import OutcomeTable
from services.learning.reward.soft_overlong import SoftOverlong
from sluice.v1 import rollout_pb2
from tests.services.learning.rollouts import call, group, member, rewarded

Outcome = rollout_pb2


def worth(outcome: int, part: OutcomeTable, **more) -> float:
    batch = collate([group("g", [member([call([3])], outcome=outcome, **more)])], 0, 8)
    return float(part(batch, batch.reward_N)[0])


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        (Outcome.VERDICT_OUTCOME_CORRECT, 1.0),
        (Outcome.VERDICT_OUTCOME_WRONG, 0.0),
        (Outcome.VERDICT_OUTCOME_UNPARSABLE, 0.0),
        (Outcome.VERDICT_OUTCOME_VIOLATION, 0.0),
        (Outcome.VERDICT_OUTCOME_TIMEOUT, 0.0),
    ],
)
def test_outcome_table_defaults(outcome, value):
    assert worth(outcome, OutcomeTable()) == value


def test_outcome_table_partial_is_its_raw_reward_else_its_accuracy():
    partial = Outcome.VERDICT_OUTCOME_PARTIAL
    assert worth(partial, OutcomeTable(), right=0.25, rewards={"accuracy": 0.75}) == 0.75
    assert worth(partial, OutcomeTable(), right=0.25) == 0.25
    assert worth(partial, OutcomeTable(raw="tests"), right=0.25, rewards={"tests": 0.5}) == 0.5


@pytest.mark.parametrize(
    "outcome",
    [Outcome.VERDICT_OUTCOME_INFRA_ERROR, Outcome.VERDICT_OUTCOME_NOT_RUN, Outcome.VERDICT_OUTCOME_UNSPECIFIED],
)
def test_outcome_table_a_failure_of_ours_is_no_reward_at_all(outcome):
    assert math.isnan(worth(outcome, OutcomeTable()))


def test_dapo_soft_overlong_ramp():
    lengths = torch.tensor([16000, 16384, 18432, 20480])
    assert SoftOverlong(buffer=4096).penalty(lengths, 20480).tolist() == [0.0, 0.0, -0.5, -1.0]


def test_dapo_soft_overlong_leaves_accuracy_alone():
    batch = rewarded([1, 0], tokens=8)
    found = SoftOverlong(buffer=0.5)(batch, batch.reward_N)
    assert found.tolist() == [0.0, -1.0] and batch.accuracy_N.tolist() == [1.0, 0.0]
