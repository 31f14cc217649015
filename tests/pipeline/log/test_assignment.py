"""Partitions of a group: every topic shared evenly, and nothing moved that need not move."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.log.assignment import assign

REQUESTS, RETRIES = {0, 1, 2, 3}, {4, 5, 6, 7}


def test_workers_that_join_get_partitions_of_every_topic():
    alone = assign({"a": REQUESTS | RETRIES}, {}, [REQUESTS, RETRIES])
    joined = assign(dict.fromkeys("abc", REQUESTS | RETRIES), alone, [REQUESTS, RETRIES])
    for topic in (REQUESTS, RETRIES):
        assert sorted(Counter(joined[one] for one in topic).values()) == [1, 1, 2]


@given(
    members=st.integers(1, 9),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    owners=st.lists(st.integers(-1, 9), min_size=36, max_size=36),
)
def test_every_topic_is_shared_evenly_and_a_second_look_moves_nothing(members, sizes, owners):
    topics, first = [], 0
    for size in sizes:
        topics.append(set(range(first, first + size)))
        first += size
    wanted = set(range(first))
    wishes = {f"m{n}": wanted for n in range(members)}
    held = {one: f"m{owner}" for one, owner in zip(sorted(wanted), owners, strict=False) if owner >= 0}
    target = assign(wishes, held, topics)
    assert set(target) == wanted
    for topic in topics:
        shares = [sum(target[one] == member for one in topic) for member in wishes]
        assert max(shares) - min(shares) <= 1
    assert assign(wishes, target, topics) == target
