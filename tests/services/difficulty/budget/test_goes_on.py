"""Shared budgets behind a narrow gate: whatever groups are dropped, the learner gets the groups of its next step."""

import numpy as np
import pytest

from pipeline import parts
from pipeline.gate import Gate
from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

SHARED = [name for name in parts.names("difficulty.budget") if name not in ("fixed", "single_stream")]


class Run:
    """A scheduler and a learner that takes so many groups a step; some of what was asked for is dropped."""

    def __init__(self, name, groups, max_lag=0, prompts=40, seed=0, **knobs):
        self.budget = parts.load("difficulty.budget", name, **knobs)
        rollouts = max(groups * self.budget.typical, self.budget.largest)
        sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
        self.scheduler = Scheduler(Beta(), Uniform(), self.budget, Gate(max_lag, rollouts), sampling)
        self.rng, self.groups, self.hand, self.step = np.random.default_rng(seed), groups, [], 0
        self.scheduler.observe(prompt_pb2.Prompt(prompt_id=f"p{n}", digest=b"d") for n in range(prompts))
        # Beliefs that differ, so that groups do: half of the prompts are sure.
        self.scheduler.observe(
            rollout_pb2.Verdict(prompt_id=f"p{n}", accuracy=k % 2 * (n % 2), outcome=2, purpose=1)
            for n in range(prompts)
            for k in range(30)
        )

    def issue(self):
        """What is asked for comes back at once."""
        asked = self.scheduler.issue(0)
        assert self.scheduler.gate.outstanding <= self.scheduler.gate.capacity
        self.hand += asked
        return asked

    def drop(self, request, indices):
        """So many rollouts of a group end unused."""
        keys = [rollout_pb2.RolloutKey(request_id=request.request_id, index=index) for index in indices]
        drops = [training_pb2.Drop(key=key, reason="degenerate_group") for key in keys]
        self.scheduler.observe([training_pb2.DropNotice(epoch=1, after_step=self.step, drops=drops)])

    def lose(self, asked, chance):
        """Drop small groups sooner than large ones, and a rollout of some that stay."""
        for request in asked:
            if self.rng.random() < chance * (1.5 if request.n < self.budget.typical else 0.7):
                self.drop(request, range(request.n))
                self.hand.remove(request)
            elif self.rng.random() < 0.2:
                self.drop(request, [0])

    def train(self):
        """A step of the oldest groups."""
        used, self.hand = self.hand[: self.groups], self.hand[self.groups :]
        self.step += 1
        keys = [rollout_pb2.RolloutKey(request_id=r.request_id, index=i) for r in used for i in range(r.n)]
        uses = [training_pb2.Use(key=key, use=1) for key in keys]
        self.scheduler.observe([training_pb2.TrainStep(epoch=1, step=self.step, version=self.step, uses=uses)])


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("groups", [1, 2, 12])
@pytest.mark.parametrize(("max_lag", "prompts"), [(0, 40), (1, 40), (0, 3)])
def test_a_run_goes_on_whatever_is_dropped(name, groups, max_lag, prompts):
    run = Run(name, groups, max_lag, prompts, seed=groups)
    while run.step < 6:
        asked = run.issue()
        assert asked or len(run.hand) >= groups, f"it stands still at step {run.step} with {len(run.hand)} groups"
        run.lose(asked, 0.5)
        if len(run.hand) >= groups:
            run.train()


def test_a_gate_of_two_groups_is_filled():
    run = Run("rollout_gdro", 2)
    assert sum(request.n for request in run.issue()) == run.scheduler.gate.capacity == 16


def test_the_groups_that_replace_dropped_ones_share_the_room_that_those_left():
    run = Run("cures", 12)
    asked = run.issue()
    assert len(asked) == 12 and sum(request.n for request in asked) == 96
    small = sorted(asked, key=lambda request: request.n)[:7]
    for request in small:
        run.drop(request, range(request.n))
    left = sum(request.n for request in small)
    again = run.scheduler.issue(0)
    assert left < 56 and len(again) == 7 and sum(request.n for request in again) == left


@pytest.mark.parametrize("name", SHARED)
def test_with_room_for_it_every_prompt_has_its_mean(name):
    asked = Run(name, 12, max_lag=2).issue()
    assert sum(request.n for request in asked) == 8 * len(asked)


@pytest.mark.parametrize("name", SHARED)
def test_it_waits_to_share_only_while_the_learner_has_a_step(name):
    budget = parts.load("difficulty.budget", name, n=4, at_once=3)
    assert [budget.prompts(8, groups, step=5) for groups in (5, 4, 0)] == [0, 2, 8 // budget.low]
    assert budget.prompts(8, groups=2, step=2) == 2, "a step of two groups never makes room for three"
