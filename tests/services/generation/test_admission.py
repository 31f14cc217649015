"""How many rollouts are let in, by hand."""

from __future__ import annotations

from services.generation.admission import Admission, Load


def load(kv_use: float, in_work: int, preempted: int = 0, ceiling: float = 160) -> Load:
    return Load(kv_use, preempted, in_work, request=8, ceiling=ceiling)


def test_nothing_is_held_back_before_the_cache_is_full():
    rule = Admission(160)
    for in_work in (0, 40, 160):
        rule = rule.after(load(0.95, in_work))
    assert rule.limit == 160


def test_a_full_cache_cuts_what_is_in_work_by_a_quarter_and_waits_until_that_has_come_down():
    rule = Admission(160).after(load(0.96, 100))
    assert rule.limit == 75
    assert rule.after(load(0.99, 83)).limit == 75  # 83 is a request of 8 above it, at least: still coming down
    assert rule.after(load(0.99, 80)).limit == 0.75 * 75
    assert rule.after(load(0.99, 40)).limit == 30


def test_it_rises_by_a_thirty_second_of_the_ceiling_a_look_and_never_above_it():
    rule = Admission(75)
    limits = []
    for _ in range(20):
        rule = rule.after(load(0.5, 60))
        limits.append(rule.limit)
    assert limits[:3] == [80, 85, 90] and limits[-3:] == [160, 160, 160]


def test_a_preempted_sequence_counts_as_a_full_cache():
    assert Admission(160).after(load(0.2, 100, preempted=1)).limit == 75


def test_what_an_idle_engine_last_said_cuts_nothing_and_one_is_always_let_in():
    assert Admission(100).after(load(1.0, 0)).limit == 105
    assert Admission(1.2).after(load(1.0, 1)).limit == 1.0


def test_the_limit_comes_down_with_the_ceiling_when_a_replica_is_gone():
    assert Admission(160).after(load(0.1, 80, ceiling=80)).limit == 80


def test_with_the_mark_at_one_the_rule_is_off():
    assert Admission(160, high=1.0).after(load(1.0, 100, preempted=5)).limit == 160
