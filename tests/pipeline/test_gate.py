"""The gate: never more than the bound, every place given back once, and taken back when a step is void."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.errors import UserError
from pipeline.gate import Gate
from sluice.v1 import posterior_pb2, rollout_pb2, training_pb2


def key(request_id, index, attempt=1):
    return rollout_pb2.RolloutKey(request_id=request_id, index=index, attempt=attempt)


def step(number, uses=(), drops=(), epoch=1, checkpoint=0, use=1, ended=()):
    return training_pb2.TrainStep(
        epoch=epoch,
        step=number,
        version=number,
        uses=[training_pb2.Use(key=key(*k), use=use) for k in uses],
        drops=[training_pb2.Drop(key=key(*k), reason="stale") for k in drops],
        checkpoint_step=checkpoint,
        ended_requests=ended,
    )


def notice(after, drops, epoch=1):
    rows = [training_pb2.Drop(key=key(*k), reason="degenerate_group") for k in drops]
    return training_pb2.DropNotice(epoch=epoch, after_step=after, drops=rows)


def rewind(epoch, to):
    return training_pb2.Rewind(epoch=epoch, to_step=to, version=100 * epoch)


def issue(gate, n):
    request_id, _ = gate.next_ids()
    gate.issue(request_id, n, 0, "p", 1000)
    return request_id


def test_the_bound_is_max_lag_plus_one_batches():
    gate = Gate(max_lag=2, batch_rollouts=8)
    assert gate.room() == 24
    issue(gate, 8)
    assert (gate.room(), gate.outstanding) == (16, 8)


def test_without_lag_at_most_one_batch_is_outstanding():
    gate = Gate(max_lag=0, batch_rollouts=4)
    issue(gate, 4)
    assert gate.room() == 0
    with pytest.raises(ValueError, match="room for 0"):
        issue(gate, 1)


def test_a_step_gives_back_what_it_used_for_the_first_time_and_what_it_dropped():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.apply_step(step(1, uses=[(request, 0), (request, 1)], drops=[(request, 2)]))
    assert (gate.outstanding, gate.room()) == (1, 3)


def test_a_reuse_gives_nothing_back():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.apply_step(step(1, uses=[(request, 0)], use=2))
    assert gate.outstanding == 4


def test_the_same_end_twice_gives_one_place_back():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.apply_drops(notice(0, [(request, 0), (request, 0, 2)]))
    gate.apply_step(step(1, uses=[(request, 0)], checkpoint=1))
    gate.apply_step(step(2, uses=[(request, 0)], checkpoint=2))
    assert gate.outstanding == 3


def test_what_was_never_issued_gives_nothing_back():
    gate = Gate(0, 4)
    request = issue(gate, 2)
    gate.apply_step(step(1, uses=[("r-unknown", 0), (request, 2)]))
    assert gate.outstanding == 2


def test_a_request_named_as_ended_gives_all_its_places_back():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.apply_step(step(1, uses=[(request, 0)], ended=[request]))
    assert gate.outstanding == 0


def test_a_rewind_holds_again_the_places_of_void_steps_only():
    gate = Gate(1, 4)
    a, b = issue(gate, 4), issue(gate, 4)
    gate.apply_step(step(1, uses=[(a, i) for i in range(4)]))
    gate.apply_step(step(2, uses=[(b, i) for i in range(4)]))
    assert gate.outstanding == 0
    gate.rewind(rewind(epoch=2, to=1))
    assert (gate.outstanding, gate.step, gate.version) == (4, 1, 200)
    gate.apply_step(step(2, uses=[(b, i) for i in range(4)], epoch=2))
    assert gate.outstanding == 0


def test_a_drop_notice_after_a_step_is_void_on_a_rewind_to_that_step():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.apply_step(step(1, uses=[(request, 0)]))
    gate.apply_drops(notice(1, [(request, 1)]))
    gate.rewind(rewind(epoch=2, to=1))
    assert gate.outstanding == 3


def test_a_checkpoint_of_the_step_before_does_not_confirm_a_drop_notice():
    gate = Gate(0, 2)
    request = issue(gate, 2)
    gate.apply_step(step(1, uses=[(request, 0)]))
    gate.apply_drops(notice(1, [(request, 1)]))
    gate.checkpointed(1)
    assert request in gate.open
    gate.checkpointed(2)
    assert request not in gate.open


def test_void_steps_old_notices_and_old_rewinds_change_nothing():
    gate = Gate(0, 4)
    request = issue(gate, 4)
    gate.rewind(rewind(epoch=2, to=0))
    before = gate.to_record()
    assert not gate.apply_step(step(1, uses=[(request, 0)], epoch=1))
    assert not gate.apply_drops(notice(0, [(request, 1)], epoch=1))
    assert not gate.rewind(rewind(epoch=2, to=0))
    assert gate.to_record() == before


def test_after_a_rewind_above_the_bound_nothing_is_issued_until_enough_has_ended():
    gate = Gate(0, 2)
    requests = []
    for number in (1, 2, 3):
        requests.append(issue(gate, 2))
        gate.apply_step(step(number, uses=[(requests[-1], 0), (requests[-1], 1)]))
    gate.rewind(rewind(epoch=2, to=0))
    assert (gate.outstanding, gate.room()) == (6, 0)
    gate.apply_step(step(1, uses=[(requests[0], 0), (requests[0], 1)], epoch=2))
    assert gate.room() == 0
    gate.apply_step(step(2, uses=[(requests[1], 0), (requests[1], 1), (requests[2], 0)], epoch=2))
    assert gate.room() == 1


@pytest.mark.parametrize(("max_lag", "batch", "value"), [(-1, 8, "-1"), (0, 0, "0")])
def test_a_bound_that_makes_no_sense_is_refused(max_lag, batch, value):
    with pytest.raises(UserError, match=f"is {value}; accepted"):
        Gate(max_lag, batch)


def test_a_group_larger_than_a_batch_is_refused():
    with pytest.raises(UserError, match="a group of 9 rollouts does not fit a batch; accepted: at most 8"):
        Gate(3, 8).groups_of(9, 0)


def test_no_more_groups_are_out_than_the_steps_of_the_lag_train():
    gate = Gate(max_lag=1, batch_rollouts=8)
    gate.groups_of(4, kept=2)  # two groups a step
    for _ in range(3):
        issue(gate, 2)
    assert (gate.outstanding, gate.room()) == (6, 4), "10 places are free, in one group"
    last = issue(gate, 10)
    assert (gate.groups, gate.room(), gate.oldest_version) == (4, 0, 1)
    gate.apply_drops(notice(0, [(last, index) for index in range(9)]))
    with pytest.raises(ValueError, match="room for 8 in 0 groups"):
        issue(gate, 1)
    gate.apply_drops(notice(0, [(last, 9)]))
    assert (gate.groups, gate.free, gate.room()) == (3, 10, 4)


class AnyOrder(RuleBasedStateMachine):
    """Any order of issues, ends, steps, notices, checkpoints, rewinds and restarts, against a plain account."""

    def __init__(self):
        super().__init__()
        self.gate = Gate(max_lag=1, batch_rollouts=6)
        self.epoch, self.step, self.checkpoint = 1, 0, 0
        self.gate.rewind(rewind(1, 0))
        self.held, self.ends = set(), {}

    def pick(self, data):
        known = sorted(self.held | set(self.ends))
        chosen = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        return chosen

    def end(self, keys, at):
        for k in set(keys) & self.held:
            self.held.discard(k)
            self.ends[k] = at

    @rule(n=st.integers(1, 6), first=st.integers(0, 3))
    def issue(self, n, first):
        room = self.gate.room()
        request_id, _ = self.gate.next_ids()
        if n > room:
            with pytest.raises(ValueError):
                self.gate.issue(request_id, n, first, "p", 0)
            return
        self.gate.issue(request_id, n, first, "p", 0)
        self.held |= {(request_id, first + i) for i in range(n)}
        assert self.gate.outstanding <= 12

    @rule(data=st.data(), checkpoint=st.booleans())
    def train(self, data, checkpoint):
        uses, drops = self.pick(data), self.pick(data)
        self.step += 1
        self.checkpoint = self.step if checkpoint else self.checkpoint
        record = step(self.step, uses, drops, self.epoch, self.checkpoint)
        for _ in range(2):
            self.gate.apply_step(record)
        self.end(uses + drops, self.step)

    @rule(data=st.data())
    def notice(self, data):
        drops = self.pick(data)
        self.gate.apply_drops(notice(self.step, drops, self.epoch))
        self.end(drops, self.step + 1)

    @rule(back=st.integers(0, 3))
    def rewind(self, back):
        self.step = max(self.checkpoint, self.step - back)
        self.checkpoint, self.epoch = self.step, self.epoch + 1
        self.gate.rewind(rewind(self.epoch, self.step))
        void = {k for k, at in self.ends.items() if at > self.step}
        self.ends = {k: at for k, at in self.ends.items() if k not in void}
        self.held |= void

    @precondition(lambda self: self.epoch > 1)
    @rule(data=st.data())
    def zombie(self, data):
        before = self.gate.to_record()
        self.gate.apply_step(step(self.step + 1, self.pick(data), epoch=self.epoch - 1))
        assert self.gate.to_record() == before

    @rule()
    def restart(self):
        record = posterior_pb2.GateState.FromString(self.gate.to_record().SerializeToString())
        self.gate = Gate(max_lag=1, batch_rollouts=6)
        self.gate.from_record(record)
        assert self.gate.to_record() == record

    @invariant()
    def places_are_those_of_the_account(self):
        held = sum(request.places for request in self.gate.open.values())
        assert self.gate.outstanding == held == len(self.held)
        assert self.gate.room() == max(12 - len(self.held), 0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
