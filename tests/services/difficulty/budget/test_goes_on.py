"""Budgets behind the gate: the learner always gets the groups of its next step, and none of them too old."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parts
from pipeline.gate import Gate
from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

NAMES = parts.names("difficulty.budget")
SHARED = [name for name in NAMES if name not in ("fixed", "single_stream")]


class Run:
    """A scheduler and a learner that takes so many groups a step; some of what was asked for is dropped."""

    def __init__(self, name, groups, max_lag=0, prompts=40, seed=0, **knobs):
        self.budget = parts.load("difficulty.budget", name, **knobs)
        gate = Gate(max_lag, groups * self.budget.typical)
        sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
        self.scheduler = Scheduler(Beta(), Uniform(), self.budget, gate, sampling)
        self.rng, self.groups, self.hand, self.step = np.random.default_rng(seed), groups, [], 0
        self.sampled_at, self.lag = {}, 0
        self.scheduler.observe(prompt_pb2.Prompt(prompt_id=f"p{n}", digest=b"d") for n in range(prompts))
        # Beliefs that differ, so that groups do: half of the prompts are sure.
        self.scheduler.observe(
            rollout_pb2.Verdict(prompt_id=f"p{n}", accuracy=k % 2 * (n % 2), outcome=2, purpose=1)
            for n in range(prompts)
            for k in range(30)
        )

    def issue(self):
        """What is asked for comes back at once, sampled from the newest policy."""
        asked = self.scheduler.issue(0)
        assert self.scheduler.gate.outstanding <= self.scheduler.gate.capacity
        assert all(request.oldest_version <= self.step for request in asked)
        self.sampled_at |= {request.request_id: self.step for request in asked}
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
            elif request.n > 1 and self.rng.random() < 0.2:
                self.drop(request, [0])

    def train(self):
        """A step of the oldest groups; `lag` is the oldest that ever came to its turn. Returns the rollouts used."""
        used, self.hand = self.hand[: self.groups], self.hand[self.groups :]
        self.lag = max(self.lag, *(self.step - self.sampled_at[request.request_id] for request in used))
        self.step += 1
        keys = [rollout_pb2.RolloutKey(request_id=r.request_id, index=i) for r in used for i in range(r.n)]
        uses = [training_pb2.Use(key=key, use=1) for key in keys]
        self.scheduler.observe([training_pb2.TrainStep(epoch=1, step=self.step, version=self.step, uses=uses)])
        return len(uses)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 16), st.integers(0, 3), st.sampled_from([0.0, 0.5]), st.integers(0, 9))
def test_nothing_gets_older_than_the_lag_and_the_sum_of_a_step_is_hard(name, groups, max_lag, chance, seed):
    run = Run(name, groups, max_lag, prompts=100, seed=seed)
    while run.step < 8:
        asked = run.issue()
        assert asked or len(run.hand) >= groups, f"it stands still at step {run.step} with {len(run.hand)} groups"
        if chance:
            run.lose(asked, chance)
        if len(run.hand) >= groups:
            used = run.train()
            assert chance or used == groups * run.budget.typical
    assert run.lag <= max_lag


@pytest.mark.parametrize(("groups", "max_lag", "bound"), [(12, 2, 288), (4, 0, 32)])
def test_knapsack_asks_for_no_more_than_the_batches_of_the_lag(groups, max_lag, bound):
    assert sum(request.n for request in Run("knapsack", groups, max_lag, prompts=100).issue()) == bound


def test_large_groups_that_a_rewind_holds_again_do_not_stop_the_groups_of_a_step():
    run = Run("knapsack", 3)
    for sizes in ((20, 2, 2), (20, 2, 2)):
        for n in sizes:
            request_id, _ = run.scheduler.gate.next_ids()
            run.scheduler.gate.issue(request_id, n, 0, "p0", 0)
            run.hand.append(prompt_pb2.RolloutRequest(request_id=request_id, n=n))
            run.sampled_at[request_id] = run.step
        run.train()
    run.scheduler.observe([training_pb2.Rewind(epoch=2, to_step=0, version=9)])
    for request_id in ("r-00000002", "r-00000003", "r-00000005", "r-00000006"):
        run.scheduler.gate.ended(request_id, range(2), 2, 1)
    gate = run.scheduler.gate
    assert (gate.groups, gate.outstanding, gate.capacity) == (2, 40, 24)
    assert [request.n for request in run.scheduler.issue(0)] == [2], "one group is missing for a step of three"


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
