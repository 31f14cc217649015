"""Groups from requests, rollouts and verdicts, one rule at a time."""

import pytest

from services.learning.assembler import EARLY_KEPT, Assembler
from services.learning.ledger import Ledger
from tests.services.learning.assembling import (
    DEADLINE_MS,
    GRACE_MS,
    Ending,
    Fate,
    Reader,
    Verdict,
    names,
    request,
    rollout,
    verdict,
)  # fmt: skip


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
        (Ending.ENDING_ABORTED, "pruned", Fate.FATE_DROPPED, "pruned"),
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


def test_drops_are_counted_by_reason_and_by_what_was_believed_of_their_prompt():
    reader, ledger = Reader(), Ledger()
    for name, mean in (("a", 0.1), ("b", 0.25), ("c", 0.5), ("d", 0.9)):
        one = request(name, group_id=name)
        one.belief.mean = mean
        reader.read(one)
    nothing = request("e", group_id="e")
    nothing.ClearField("belief")
    assembler = reader.read(nothing)
    assembler.expire(DEADLINE_MS + GRACE_MS + 1)
    ledger.enter(assembler.ends())
    assert ledger.dropped == {
        ("no_rollout", "hard"): 2,
        ("no_rollout", "medium"): 1,
        ("no_rollout", "easy"): 1,
        ("no_rollout", "unknown"): 1,
    }
    assert [round(drop.difficulty, 2) for drop in ledger.tell()] == [0.1, 0.25, 0.5, 0.9, 0.0]


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
