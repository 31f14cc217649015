"""The landscape: it folds as the service does, and what the service leaves out moves nothing here."""

import math

import pytest

from pipeline.report.landscape import landscape
from services.difficulty.estimate.spo_tracker import SpoTracker
from sluice.v1 import rollout_pb2, training_pb2


@pytest.mark.parametrize("nats", [math.nan, math.inf, -1.0])
def test_a_movement_that_is_no_distance_moves_nothing(nats):
    told = [rollout_pb2.Verdict(prompt_id="p", outcome=1, accuracy=1.0, purpose=1)] * 8
    shifts = [training_pb2.PromptShift(prompt_id="p", mean_abs_logprob_change=nats)]
    with_it = landscape(SpoTracker(), [*told, training_pb2.TrainStep(step=1, version=1, shifts=shifts)], [1])
    without = landscape(SpoTracker(), [*told, training_pb2.TrainStep(step=1, version=1)], [1])
    assert with_it == without == [(1, [0.0, 0.0, 0.0, 0.0, 1.0])]
