"""Any interleaving, any number of redeliveries, a restart anywhere: nothing lost, nothing twice, nothing mixed up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.learning.assembler import Assembler
from tests.services.learning.assembling import (
    GRACE_MS,
    LONG_AFTER,
    Ending,
    request,
    rollout,
    verdict,
)  # fmt: skip

FATES = st.sampled_from([*range(1, 8)])
ENDINGS = st.sampled_from(
    [Ending.ENDING_STOP] * 4 + [Ending.ENDING_FAILED, Ending.ENDING_EXPIRED, Ending.ENDING_ABORTED]
)


@st.composite
def logs(draw):
    """Three topics as they could lie on a log: requests, rollouts (attempts in order), verdicts of each of them."""
    requests, rollouts, verdicts = [], [], []
    for group in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
        for part, n in enumerate(sizes):
            first, last = sum(sizes[:part]), part == len(sizes) - 1
            one = request(f"r-{group}{part}", f"g-{group}", n=n, first_index=first, final=last)
            requests.append(one)
            for index in range(first, first + n):
                for attempt in range(1, draw(st.integers(0, 3)) + 1):
                    said = rollout(one.request_id, index, attempt, draw(st.integers(0, 99)), draw(ENDINGS))
                    rollouts.append(said)
                    if draw(st.integers(0, 9)):
                        verdicts.append(verdict(said, draw(FATES)))
    order = draw(st.permutations(requests))
    return {"requests": order, "rollouts": rollouts, "verdicts": verdicts}


def interleave(topics, at, draw):
    """Read on from the offsets `at`, in any order that keeps each topic's own."""
    at = dict(at)
    while left := [topic for topic, nouns in topics.items() if at[topic] < len(nouns)]:
        topic = draw(st.sampled_from(left))
        yield topic, at[topic], topics[topic][at[topic]]
        at[topic] += 1


def train(assembler, groups):
    """What the handler does with groups: use every member once."""
    for group in groups:
        for member in group.members:
            assert member.verdict.rollout_sha256 == member.rollout.sha256
            assembler.used(member.name)
            assembler.end(member.name)


def requested(topics):
    return {(r.request_id, i) for r in topics["requests"] for i in range(r.first_index, r.first_index + r.n)}


def fates(ends):
    return {(end.request_id, end.index): (end.fate, end.reason, end.attempt) for end in ends}


def in_order(topics, min_group):
    """The ends when everything is read topic after topic, without a restart."""
    assembler = Assembler(min_group, GRACE_MS)
    for topic, nouns in topics.items():
        for offset, noun in enumerate(nouns):
            assembler.add(noun, (topic, 0, offset))
    train(assembler, assembler.closed())
    assembler.expire(LONG_AFTER)
    train(assembler, assembler.closed())
    return fates(assembler.ends())


@settings(max_examples=300, deadline=None)
@given(st.data(), logs(), st.integers(1, 2))
def test_any_interleaving_gives_the_same_ends_each_once(data, topics, min_group):
    assembler = Assembler(min_group, GRACE_MS)
    ends = []
    for topic, offset, noun in interleave(topics, dict.fromkeys(topics, 0), data.draw):
        assembler.add(noun, (topic, 0, offset))
        train(assembler, assembler.closed())
        ends += assembler.ends()
    assembler.expire(LONG_AFTER)
    train(assembler, assembler.closed())
    ends += assembler.ends()
    assert len(ends) == len(fates(ends))
    assert fates(ends).keys() == requested(topics)
    assert fates(ends) == in_order(topics, min_group)
    first = {(r.key.request_id, r.key.index): r.key.attempt for r in reversed(topics["rollouts"])}
    assert all(end.attempt == first.get((end.request_id, end.index), 0) for end in ends)
    assert assembler.idle and assembler.requests_seen == len(topics["requests"])
    assert assembler.low_offsets() == {(topic, 0): len(nouns) for topic, nouns in topics.items() if nouns}


@settings(max_examples=300, deadline=None)
@given(st.data(), logs(), st.integers(1, 2), st.integers(1, 3))
def test_restarts_anywhere_lose_nothing_and_end_nothing_twice(data, topics, min_group, restarts):
    """Groups may be held at the restart; ends after the snapshot are void and happen again."""
    named, snapshot, held = [], Assembler().snapshot(), []
    for _ in range(restarts):
        assembler = Assembler(min_group, GRACE_MS)
        assembler.restore(snapshot)
        low = dict.fromkeys(topics, 0) | {topic: offset for topic, _, offset in snapshot["low"]}
        reading = interleave(topics, low, data.draw)
        held, ends = [], []
        for topic, offset, noun in reading:
            assembler.add(noun, (topic, 0, offset))
            held += assembler.closed()
            if data.draw(st.booleans()):
                train(assembler, held)
                held = []
            ends += assembler.ends()
            if not data.draw(st.integers(0, 5)):
                named, ends, snapshot = named + ends, [], assembler.snapshot()
            if not data.draw(st.integers(0, 9)):
                break
    assembler = Assembler(min_group, GRACE_MS)
    assembler.restore(snapshot)
    low = dict.fromkeys(topics, 0) | {topic: offset for topic, _, offset in snapshot["low"]}
    for topic, offset, noun in interleave(topics, low, data.draw):
        assembler.add(noun, (topic, 0, offset))
    assembler.expire(LONG_AFTER)
    train(assembler, assembler.closed())
    named += assembler.ends()
    assert len(named) == len(fates(named))
    assert fates(named).keys() == requested(topics)
    assert {name: end[2] for name, end in fates(named).items()} == {
        name: end[2] for name, end in in_order(topics, min_group).items()
    }
    assert assembler.idle and assembler.requests_seen == len(topics["requests"])


@settings(max_examples=150, deadline=None)
@given(st.data(), logs(), st.integers(1, 2))
def test_a_drain_at_any_moment_ends_everything_once_and_hands_out_no_group(data, topics, min_group):
    assembler = Assembler(min_group, GRACE_MS)
    ends, held, drained = [], [], False
    for topic, offset, noun in interleave(topics, dict.fromkeys(topics, 0), data.draw):
        assembler.add(noun, (topic, 0, offset))
        if drained:
            assert assembler.closed() == []
        elif not data.draw(st.integers(0, 5)):
            drained, held = True, []
            assembler.drain("drained")
            assert assembler.closed() == []
        else:
            held += assembler.closed()
            if data.draw(st.booleans()):
                train(assembler, held)
                held = []
        ends += assembler.ends()
    assembler.drain("drained")
    assembler.expire(LONG_AFTER)
    ends += assembler.ends()
    assert assembler.closed() == []
    assert len(ends) == len(fates(ends)) and fates(ends).keys() == requested(topics)
    assert assembler.idle
