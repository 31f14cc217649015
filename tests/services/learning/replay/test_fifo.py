"""Oldest first; stale at first use is dropped; reuse within its own bounds."""

import pytest

from pipeline.parts import load
from services.learning.group import Group, Member
from services.learning.replay import Held
from services.learning.replay.fifo import Fifo
from sluice.v1 import rollout_pb2


def held(version, uses=0):
    call = rollout_pb2.Call(tokens=[1], spans=[rollout_pb2.Span(version=version)])
    return Held(Group("g", "p", (Member(rollout_pb2.Rollout(calls=[call]), rollout_pb2.Verdict()),)), uses)


def test_the_oldest_groups_go_first_and_the_rest_stays_in_order():
    buffer = [held(7), held(6), held(7), held(5)]
    choice = Fifo().choose(buffer, version=7, batch_groups=2, max_lag=2)
    assert [one.group.lag(7) for one in choice.batch] == [2, 1]
    assert [id(one) for one in choice.kept] == [id(buffer[0]), id(buffer[2])]


def test_of_equally_old_groups_the_first_that_closed_goes_first():
    buffer = [held(7), held(7), held(7)]
    choice = Fifo().choose(buffer, version=7, batch_groups=2, max_lag=2)
    assert [id(one) for one in choice.batch] == [id(buffer[0]), id(buffer[1])]


def test_too_few_groups_make_no_batch():
    choice = Fifo().choose([held(7)], version=7, batch_groups=2, max_lag=2)
    assert choice.batch == () and len(choice.kept) == 1


def test_a_group_beyond_the_hard_bound_is_stale_even_when_no_batch_is_made():
    choice = Fifo().choose([held(4), held(5)], version=7, batch_groups=9, max_lag=2)
    assert [one.group.lag(7) for one in choice.stale] == [3] and len(choice.kept) == 1
    assert Fifo().choose([held(6)], version=7, batch_groups=1, max_lag=0).stale


def test_without_reuse_a_used_group_is_retired():
    assert Fifo().choose([held(7, uses=1)], version=8, batch_groups=1, max_lag=2).retired


def test_reuse_fills_up_behind_fresh_groups_and_at_least_half_is_fresh():
    buffer = [held(7, uses=1), held(7, uses=1), held(8)]
    replay = Fifo(max_uses=2, reuse_max_lag=1)
    assert [one.uses for one in replay.choose(buffer, 8, 2, max_lag=2).batch] == [0, 1]
    assert replay.choose(buffer[:2], 8, 2, max_lag=2).batch == ()
    assert replay.choose(buffer, 8, 3, max_lag=2).batch == ()


def test_reuse_ends_at_its_own_bounds():
    replay = Fifo(max_uses=3, reuse_max_lag=1)
    choice = replay.choose([held(6, uses=1), held(7, uses=1), held(7, uses=3)], 8, 9, max_lag=9)
    assert [(one.uses, one.group.lag(8)) for one in choice.retired] == [(1, 2), (3, 1)]


def test_members_are_numbered_for_their_next_use():
    assert held(7, uses=2).next_use().members[0].use == 3


def test_knobs_out_of_range_are_refused():
    with pytest.raises(Exception, match="max_uses is 0"):
        load("learning.replay", "fifo", max_uses=0)
