"""Groups from any interleaving of requests, rollouts and verdicts: nothing lost, nothing twice, nothing mixed up."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import rollout_sha256
from services.learning.assembler import EARLY_KEPT, Assembler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

Ending, Verdict, Fate = rollout_pb2.Ending, rollout_pb2.VerdictOutcome, training_pb2.Fate
DEADLINE_MS, GRACE_MS = 100_000, 1_000
LONG_AFTER = 10**9


def request(request_id, group_id="g", n=1, first_index=0, final=True, deadline_ms=DEADLINE_MS, redrives=""):
    return prompt_pb2.RolloutRequest(
        request_id=request_id,
        group_id=group_id,
        n=n,
        first_index=first_index,
        final=final,
        prompt_id="p",
        deadline_ms=deadline_ms,
        belief=prompt_pb2.Belief(mean=0.25),
        redrives=redrives,
    )


def rollout(request_id, index=0, attempt=1, token=7, ending=Ending.ENDING_STOP, reason=""):
    said = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id=request_id, index=index, attempt=attempt),
        calls=[rollout_pb2.Call(tokens=[token, attempt], spans=[rollout_pb2.Span(version=3)])],
        ending=ending,
        reason=reason,
    )
    said.sha256 = rollout_sha256(said)
    return said


def verdict(of, outcome=Verdict.VERDICT_OUTCOME_CORRECT):
    return rollout_pb2.Verdict(key=of.key, rollout_sha256=of.sha256, outcome=outcome)


@dataclass
class Reader:
    """Hands nouns to an assembler with rising offsets."""

    assembler: Assembler = field(default_factory=lambda: Assembler(grace_ms=GRACE_MS))
    next: Counter = field(default_factory=Counter)

    def read(self, *nouns):
        for noun in nouns:
            topic = {"RolloutRequest": "requests", "Rollout": "rollouts", "Verdict": "verdicts"}[noun.DESCRIPTOR.name]
            self.assembler.add(noun, (topic, 0, self.next[topic]))
            self.next[topic] += 1
        return self.assembler


def names(ends):
    return [(end.request_id, end.index, end.fate, end.reason) for end in ends]


def test_a_group_closes_when_its_last_member_is_verified():
    said = [rollout("r-1", 0), rollout("r-1", 1)]
    reader = Reader()
    reader.read(request("r-1", n=2), said[0], verdict(said[0]), said[1])
    assert reader.assembler.closed() == []
    reader.read(verdict(said[1]))
    (group,) = reader.assembler.closed()
    assert [member.name for member in group.members] == [("r-1", 0), ("r-1", 1)]
    assert reader.assembler.closed() == []


def test_the_first_attempt_counts_and_the_second_is_superseded():
    first, second = rollout("r-1", token=7), rollout("r-1", attempt=2, token=8)
    reader = Reader()
    reader.read(request("r-1"), verdict(second), first, second, verdict(first))
    (group,) = reader.assembler.closed()
    assert group.members[0].rollout == first
    assert group.members[0].verdict.rollout_sha256 == first.sha256
    assert reader.assembler.counts == {"superseded": 1, "superseded_verdicts": 1}


def test_a_verdict_may_come_before_its_rollout_and_both_before_their_request():
    said = rollout("r-1")
    reader = Reader()
    reader.read(verdict(said), said)
    assert not reader.assembler.idle
    reader.read(request("r-1"))
    assert len(reader.assembler.closed()) == 1


def test_a_group_of_two_requests_waits_for_the_first_though_the_last_is_read_before_it():
    early, late = rollout("r-2", 1), rollout("r-1", 0)
    reader = Reader()
    reader.read(request("r-2", first_index=1, final=True), early, verdict(early))
    assert reader.assembler.closed() == []
    reader.read(request("r-1", final=False), late, verdict(late))
    (group,) = reader.assembler.closed()
    assert [member.name for member in group.members] == [("r-1", 0), ("r-2", 1)]


@pytest.mark.parametrize(
    ("ending", "reason", "fate", "said"),
    [
        (Ending.ENDING_EXPIRED, "", Fate.FATE_EXPIRED, "deadline"),
        (Ending.ENDING_FAILED, "too_long", Fate.FATE_FAILED, "too_long"),
        (Ending.ENDING_ABORTED, "", Fate.FATE_DROPPED, "aborted"),
    ],
)
def test_a_terminal_rollout_ends_without_a_verdict(ending, reason, fate, said):
    terminal = rollout("r-1", ending=ending, reason=reason)
    reader = Reader()
    reader.read(request("r-1"), terminal, verdict(terminal, Verdict.VERDICT_OUTCOME_NOT_RUN))
    assert names(reader.assembler.ends()) == [("r-1", 0, fate, said)]
    assert reader.assembler.idle and not reader.assembler.counts


def test_a_checkers_own_failure_is_a_drop_and_never_a_member():
    one, two = rollout("r-1", 0), rollout("r-1", 1)
    reader = Reader()
    reader.read(request("r-1", n=2), one, two, verdict(one, Verdict.VERDICT_OUTCOME_INFRA_ERROR), verdict(two))
    (group,) = reader.assembler.closed()
    assert [member.name for member in group.members] == [("r-1", 1)]
    assert names(reader.assembler.ends()) == [("r-1", 0, Fate.FATE_DROPPED, "infra_error")]


def test_a_short_group_is_dropped_whole_by_difficulty_and_length():
    one, two = rollout("r-1", 0), rollout("r-1", 1, ending=Ending.ENDING_FAILED)
    reader = Reader(Assembler(min_group=2))
    reader.read(request("r-1", n=2), two, one, verdict(one))
    assert reader.assembler.closed() == []
    drop = reader.assembler.ends()[1].drop()
    assert (drop.reason, drop.difficulty, drop.tokens) == ("short_group", 0.25, 2)
    assert reader.assembler.idle


def test_what_is_missing_expires_after_deadline_and_grace_and_comes_late():
    here, gone = rollout("r-1", 0), rollout("r-1", 1)
    reader = Reader()
    reader.read(request("r-1", n=3), here)
    reader.assembler.expire(DEADLINE_MS + GRACE_MS)
    assert reader.assembler.ends() == []
    reader.assembler.expire(DEADLINE_MS + GRACE_MS + 1)
    assert names(reader.assembler.ends()) == [
        ("r-1", 0, Fate.FATE_EXPIRED, "no_verdict"),
        ("r-1", 1, Fate.FATE_EXPIRED, "no_rollout"),
        ("r-1", 2, Fate.FATE_EXPIRED, "no_rollout"),
    ]
    reader.read(gone, verdict(gone))
    assert reader.assembler.counts == {"late_rollouts": 1, "late_verdicts": 1}
    assert reader.assembler.idle and reader.assembler.ends() == []


def test_a_group_whose_last_request_never_comes_closes_at_its_deadline():
    said = rollout("r-1")
    reader = Reader()
    reader.read(request("r-1", final=False), said, verdict(said))
    assert reader.assembler.closed() == []
    reader.assembler.expire(DEADLINE_MS + GRACE_MS + 1)
    assert len(reader.assembler.closed()) == 1


def test_a_drain_ends_what_is_there_and_what_arrives():
    one, two, three = rollout("r-1", 0), rollout("r-1", 1), rollout("r-2", 0)
    reader = Reader()
    reader.read(request("r-1", n=2), request("r-2", "h"), one, three, verdict(three))
    reader.assembler.drain("run_finished")
    assert reader.assembler.closed() == []
    reader.read(two)
    assert sorted(names(reader.assembler.ends())) == [
        ("r-1", 0, Fate.FATE_DROPPED, "run_finished"),
        ("r-1", 1, Fate.FATE_DROPPED, "run_finished"),
        ("r-2", 0, Fate.FATE_DROPPED, "run_finished"),
    ]
    assert reader.assembler.idle and sorted(reader.assembler.over()) == ["r-1", "r-2"]


def test_a_drain_hands_out_no_group_of_the_members_it_comes_to_last():
    """Ending the middle member, which has no verdict yet, completes the group for a moment."""
    members = [rollout("r-1", index) for index in range(3)]
    reader = Reader()
    reader.read(request("r-1", n=3), *members, verdict(members[0]), verdict(members[2]))
    reader.assembler.drain("drained")
    assert reader.assembler.closed() == [] and len(reader.assembler.ends()) == 3
    assert reader.assembler.idle


def test_what_was_trained_on_stays_trained_whatever_ends_it():
    said = rollout("r-1")
    reader = Reader()
    reader.read(request("r-1"), said, verdict(said))
    reader.assembler.used(("r-1", 0))
    reader.assembler.used(("r-1", 0))
    reader.assembler.drain("drained")
    (end,) = reader.assembler.ends()
    assert (end.fate, end.reason, end.uses, end.attempt) == (Fate.FATE_TRAINED, "", 2, 1)


def test_a_reused_rollout_comes_back_after_a_restart_with_its_next_use():
    said = rollout("r-1")
    reader = Reader()
    reader.read(request("r-1"), said, verdict(said))
    reader.assembler.used(("r-1", 0))
    again = Assembler()
    again.restore(reader.assembler.snapshot())
    assert again.low_offsets() == {("requests", 0): 0, ("rollouts", 0): 0, ("verdicts", 0): 0}
    Reader(again).read(request("r-1"), said, verdict(said))
    assert again.closed()[0].members[0].use == 2


def test_unreadable_records_fail_their_rollouts():
    reader = Reader()
    reader.read(request("r-1", n=2))
    reader.assembler.poison(("r-1", 1))
    reader.assembler.poison_request(request("r-9", "h", n=2, final=False, deadline_ms=1))
    reader.assembler.expire(DEADLINE_MS // 2)
    assert sorted(names(reader.assembler.ends())) == [
        ("r-1", 1, Fate.FATE_FAILED, "poison"),
        ("r-9", 0, Fate.FATE_FAILED, "poison"),
        ("r-9", 1, Fate.FATE_FAILED, "poison"),
    ]
    assert reader.assembler.over() == ["r-9"]


def test_rollouts_of_a_request_that_never_comes_are_held_for_a_while_and_counted():
    reader = Reader()
    reader.read(rollout("stray"))
    reader.assembler.expire(0)
    assert reader.assembler.low_offsets() == {("rollouts", 0): 0}
    reader.assembler.expire(GRACE_MS + 1)
    assert reader.assembler.low_offsets() == {("rollouts", 0): 1}
    assert reader.assembler.counts == {"orphaned": 1} and reader.assembler.idle


def test_a_rollout_is_a_stray_only_once_everything_written_before_it_was_read():
    """The clock of what was read jumps from 0 to the present when the slowest partition brings its first record."""
    written_ms = 5_000_000
    assembler = Assembler(grace_ms=GRACE_MS)
    assembler.add(rollout("r-1"), ("rollouts", 0, 0), written_ms)
    assembler.expire(0)
    assembler.expire(written_ms + GRACE_MS)
    assert not assembler.idle
    assembler.expire(written_ms + GRACE_MS + 1)
    assert assembler.idle and assembler.counts == {"orphaned": 1}


def test_early_records_are_bounded():
    reader = Reader()
    strays = [rollout(f"s-{number}") for number in range(3)]
    reader.read(*(strays[number % 3] for number in range(EARLY_KEPT + 1)))
    assert reader.assembler.standing()["early_records"] <= EARLY_KEPT


def test_redriven_requests_do_not_count_as_issued_ones():
    reader = Reader()
    reader.read(request("r-1"), request("d-1", "h", redrives="r-0"), request("r-1"))
    assert reader.assembler.requests_seen == 1


# Any interleaving, any number of redeliveries, a restart anywhere.

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
