"""The law of conservation: a good run is clean, and whatever is taken from it, or added to it, is named."""

import sqlite3
from collections import Counter

import pytest

from pipeline import records
from pipeline.audit import Facts, account, audit_log, render
from pipeline.audit.facts import READ
from pipeline.claiming import HEADER
from pipeline.log.api import read_all
from pipeline.log.embedded_database import row_id
from pipeline.log.embedded_records import pack_headers
from services.learning.handler import Settings
from services.learning.replay.fifo import Fifo
from sluice.v1 import control_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2
from tests.services.learning.world import NAMES, World

SETTINGS = Settings(steps=5, batch_groups=2, max_lag=2, checkpoint_every=2, notice_every_ms=0)
NOW_MS = 10**9
LONG_AGO_MS, SOON_MS = 1, 2 * 10**9


def good_run(folder, **changes):
    return World(folder, seed=5, open_requests=6, settings=SETTINGS, **changes).run()


def rows_of(world):
    """Every (topic, place, noun) that the audit reads."""
    return [
        (topic, (record.partition, record.offset), records.decode(record))
        for topic in READ
        for record in read_all(world.log, NAMES.topic(topic))
        if record.value
    ]


def facts_of(rows, bounds=None):
    facts = Facts(bounds=bounds or {})
    for topic, place, noun in rows:
        facts.take(topic, place, noun)
    return facts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    world = good_run(tmp_path_factory.mktemp("good"))
    return rows_of(world), world


def test_a_good_run_is_clean_and_adds_up(run):
    rows, world = run
    audit = account(facts_of(rows), world.now_ms)
    assert audit.clean and audit.finished, audit.problems
    ended = audit.trained + sum(audit.dropped.values()) + audit.expired + sum(audit.failed.values())
    assert audit.requested == ended > 0 and audit.in_flight == audit.lost == 0
    assert "clean" in render(audit)
    assert audit_log(world.log, NAMES, world.now_ms) == audit


def excused(rows, noun):
    """Records that may go without a trace: older versions of a key, and verdicts on what had ended before them."""
    if noun.DESCRIPTOR.name == "GateState":
        return noun != next(other for _, _, other in reversed(rows) if isinstance(other, posterior_pb2.GateState))
    if noun.DESCRIPTOR.name == "WeightManifest":
        return noun.version == 1
    if noun.DESCRIPTOR.name == "Verdict":
        name = (noun.key.request_id, noun.key.index)
        outcomes = [o for _, _, o in rows if isinstance(o, training_pb2.Outcome) and (o.request_id, o.index) == name]
        counted = outcomes[0].attempt == noun.key.attempt
        return not counted or outcomes[0].reason in ("run_finished", "aborted") or outcomes[0].fate >= 3
    return isinstance(noun, control_pb2.Control)


def test_whatever_record_is_taken_away_the_audit_is_not_clean(run):
    rows, world = run
    named = Counter()
    for at, (topic, place, noun) in enumerate(rows):
        audit = account(facts_of(rows[:at] + rows[at + 1 :]), world.now_ms)
        assert not audit.clean or excused(rows, noun), (topic, place, noun)
        named[noun.DESCRIPTOR.name] += not audit.clean
    assert set(named) == {noun.DESCRIPTOR.name for _, _, noun in rows}
    assert all(named[kind] for kind in named if kind != "Control"), named


def named_id(noun):
    """What the audit's sentence about a missing record must contain."""
    kind = noun.DESCRIPTOR.name
    if kind == "RolloutRequest":
        return f"{noun.request_id} "
    if kind in ("Rollout", "Verdict"):
        return f"{noun.key.request_id}/{noun.key.index}"
    if kind == "Outcome":
        return f"{noun.request_id}/{noun.index}"
    return f"version {noun.version} " if kind == "WeightManifest" else f"step {noun.step}"


CHOSEN = {
    "RolloutRequest": lambda noun: True,
    "Rollout": lambda noun: noun.key.attempt == 1,
    "Verdict": lambda noun: True,
    "TrainStep": lambda noun: noun.step == 3,
    "Outcome": lambda noun: noun.fate == training_pb2.FATE_TRAINED,
    "Checkpoint": lambda noun: noun.step == 2,
    "WeightManifest": lambda noun: noun.version == 4,
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_a_record_deleted_from_the_log_is_named(tmp_path, kind):
    world = good_run(tmp_path)
    topic = next(topic for topic, _, noun in rows_of(world) if noun.DESCRIPTOR.name == kind)
    for record in read_all(world.log, NAMES.topic(topic)):
        noun = records.decode(record)
        if noun.DESCRIPTOR.name == kind and CHOSEN[kind](noun):
            break
    delete(world, record)
    audit = audit_log(world.log, NAMES, world.now_ms)
    assert not audit.clean
    said = [*audit.problems, *(f"{name} {why}" for name, why in audit.lost_names.items())]
    assert any(named_id(noun) in sentence for sentence in said), (named_id(noun), said)
    assert "NOT CLEAN" in render(audit)


def delete(world, record):
    connection = sqlite3.connect(world.root / "log.sqlite")
    query = "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ? AND p.partition = ?"
    (partition,) = connection.execute(query, (record.topic, record.partition)).fetchone()
    with connection:
        connection.execute("DELETE FROM records WHERE id = ?", (row_id(partition, record.offset),))
    connection.close()


# By hand: one request of one rollout.


def request(deadline_ms=SOON_MS, request_id="r-00000001"):
    return ("requests", (0, 0), prompt_pb2.RolloutRequest(request_id=request_id, n=1, deadline_ms=deadline_ms))


def said(attempt=1, sha=b"a"):
    key = rollout_pb2.RolloutKey(request_id="r-00000001", attempt=attempt)
    return ("rollouts", (0, attempt), rollout_pb2.Rollout(key=key, sha256=sha, ending=rollout_pb2.ENDING_STOP))


def checked(sha=b"a"):
    key = rollout_pb2.RolloutKey(request_id="r-00000001", attempt=1)
    return ("verdicts", (0, 0), rollout_pb2.Verdict(key=key, rollout_sha256=sha, outcome=1))


def rewind(epoch, to_step=0):
    return ("steps", (0, epoch), training_pb2.Rewind(epoch=epoch, to_step=to_step))


def step(number, epoch=1, use=1, names=("r-00000001",)):
    uses = [training_pb2.Use(key=rollout_pb2.RolloutKey(request_id=name, attempt=1), use=use) for name in names]
    return ("steps", (0, 10 * epoch + number), training_pb2.TrainStep(epoch=epoch, step=number, uses=uses))


def checkpoint(number, epoch=1, reads_from=0):
    offsets = [training_pb2.Offset(topic="sluice.x.requests", offset=reads_from)]
    return ("checkpoints", (0, number), training_pb2.Checkpoint(epoch=epoch, step=number, offsets=offsets))


def outcome(fate=training_pb2.FATE_TRAINED, uses=1, number=1, epoch=1, reason=""):
    noun = training_pb2.Outcome(
        request_id="r-00000001", attempt=1, fate=fate, uses=uses, epoch=epoch, step=number, reason=reason
    )
    return ("outcomes", (0, number), noun)


BEGUN = [rewind(1), checkpoint(0)]


def audited(*rows, bounds=None):
    return account(facts_of([*BEGUN, *rows], bounds), NOW_MS)


def test_what_waits_is_in_flight_and_says_where():
    assert audited(request()).in_flight_by == {"out": 1}
    assert audited(request(LONG_AGO_MS), said(), checked()).in_flight_by == {"ready": 1}
    assert audited(request(LONG_AGO_MS), said(), checked(), step(1)).in_flight_by == {"decided": 1}
    assert all(audited(request(), *more).clean for more in ([], [said()], [said(), checked()]))


def test_a_request_past_its_deadline_and_grace_is_lost_by_name():
    audit = audited(request(LONG_AGO_MS), said())
    assert audit.lost_names["r-00000001/0"].startswith("its deadline passed")
    assert (audit.requested, audit.lost, audit.in_flight) == (1, 1, 0)


def test_below_a_checkpoints_offset_nothing_is_in_flight():
    audit = audited(request(), said(), checked(), step(1), checkpoint(1, reads_from=1))
    assert "reads on behind its request" in audit.lost_names["r-00000001/0"]


def test_after_the_end_of_the_run_nothing_is_in_flight():
    over = ("control", (0, 0), control_pb2.Control(phase=control_pb2.PHASE_FINISHED))
    assert audited(request(), over).lost == 1


def test_one_use_in_two_steps_that_stand_is_trained_twice():
    rows = [request(), said(), checked(), step(1), step(2), checkpoint(2, reads_from=1)]
    audit = audited(*rows, outcome(uses=2, number=2))
    assert audit.trained_twice_names == {"r-00000001/0": "use 1 by steps 1, 2"} and not audit.clean


def test_reuse_is_not_training_twice():
    rows = [request(), said(), checked(), step(1), step(2, use=2), checkpoint(2, reads_from=1)]
    audit = audited(*rows, outcome(uses=2, number=2))
    assert audit.clean and audit.reused == 1, audit.problems


def test_a_step_that_a_restart_took_back_does_not_count():
    rows = [request(), said(), checked(), step(1), rewind(2), checkpoint(0, epoch=2), step(1, epoch=2)]
    audit = audited(*rows, checkpoint(1, epoch=2, reads_from=1), outcome(epoch=2))
    assert audit.clean and (audit.trained, audit.voided_steps, audit.epochs) == (1, 1, 2), audit.problems


def test_contradictions_are_named():
    rows = [request(), said(), checked(), step(1), checkpoint(1, reads_from=1)]
    assert "r-00000001/0 has 2 outcomes" in audited(*rows, outcome(), outcome()).problems
    dropped = audited(*rows, outcome(training_pb2.FATE_DROPPED, uses=0, reason="stale")).problems
    assert dropped == ("step 1 trained on r-00000001/0, and its outcome says FATE_DROPPED",)
    twice = audited(*rows, outcome(), step(1)).problems
    assert twice == ("step 1 of epoch 1 is on the log 2 times",)
    stranger = ("outcomes", (0, 9), training_pb2.Outcome(request_id="r-9", fate=training_pb2.FATE_EXPIRED))
    assert any("request r-9 is not on the log" in one for one in audited(*rows, outcome(), stranger).problems)


def test_training_on_a_later_attempt_is_named():
    second = step(1)
    second[2].uses[0].key.attempt = 2
    audit = audited(request(), said(), said(2, b"b"), checked(), second)
    assert any("trained on attempt 2 of r-00000001/0; the first on the log is attempt 1" in p for p in audit.problems)


def test_superseded_and_late_rollouts_are_counted():
    rows = [request(), said(), said(2, b"b"), checked(), step(1), checkpoint(1, reads_from=1), outcome()]
    assert audited(*rows).superseded == 1
    gone = outcome(training_pb2.FATE_EXPIRED, uses=0, number=0, reason="no_rollout")
    gone[2].attempt = 0
    assert audited(request(), said(), checked(), checkpoint(0, reads_from=1), gone).late == 1


def test_what_retention_removed_is_not_called_lost():
    """The request is gone with the beginning of its partition; its outcome is older than what is held of the steps."""
    held = {"requests": {0: (7, 9)}, "steps": {0: (0, 99)}}
    audit = audited(said(), checked(), step(1), checkpoint(1, reads_from=9), outcome(), bounds=held)
    assert audit.clean and audit.below_retention == {"requests": 7}, audit.problems
    assert "below retention: requests 7 records; 0 rollouts" in render(audit)
    whole = audited(
        said(), checked(), step(1), checkpoint(1, reads_from=9), outcome(), bounds={"requests": {0: (0, 9)}}
    )
    assert any("request r-00000001 is not on the log" in problem for problem in whole.problems)


def test_what_retention_removed_is_carried_forward_by_the_checkpoints_count(tmp_path):
    """A whole run, audited; then all but the last few records are trimmed away, and it is audited again."""
    world = good_run(tmp_path)
    whole = audit_log(world.log, NAMES, world.now_ms)
    assert whole.clean and whole.carried == 0, whole.problems
    for topic in ("requests", "rollouts", "verdicts", "outcomes"):
        for partition, (_, end) in world.log.bounds(NAMES.topic(topic)).items():
            world.log.trim(NAMES.topic(topic), partition, max(0, end - 2))
    left = audit_log(world.log, NAMES, world.now_ms)
    assert left.clean and left.carried > 0 and left.below_retention["outcomes"] > 0, left.problems
    same = ("requested", "trained", "dropped", "expired", "failed", "in_flight", "lost")
    assert [getattr(left, name) for name in same] == [getattr(whole, name) for name in same]


def test_an_outcome_that_the_checkpoint_counts_and_nobody_holds_is_named():
    counted = checkpoint(1, reads_from=1)
    counted[2].ended.trained = 2
    audit = audited(request(), said(), checked(), step(1), counted, outcome())
    assert "the checkpoint of step 1 counts 2 outcomes, and the log holds 1" in audit.problems


def test_the_gate_tells_of_a_request_that_nobody_else_has_heard_of():
    gate = ("posterior", (0, 0), posterior_pb2.GateState(issued_requests=2))
    audit = audited(request(request_id="r-00000002"), gate)
    assert audit.problems == ("the gate issued 2 requests and the log holds 1; missing: r-00000001",)


def test_an_unreadable_request_still_counts_by_its_headers():
    facts = facts_of(BEGUN)
    facts.take_unreadable("requests", {"request_id": "r-1", "n": "2"}, (0, 0))
    audit = account(facts, NOW_MS)
    assert (audit.requested, audit.unreadable, audit.lost) == (2, 1, 2)


def test_a_rollout_whose_body_lies_in_a_store_out_of_reach_counts_by_its_headers(tmp_path):
    world = good_run(tmp_path)
    whole = audit_log(world.log, NAMES, world.now_ms)
    trained = next(
        use.key for _, _, noun in rows_of(world) if isinstance(noun, training_pb2.TrainStep) for use in noun.uses
    )
    for record in read_all(world.log, NAMES.topic("rollouts")):
        if records.decode(record).key == trained:
            swap_for_claim(world, record)
    audit = audit_log(world.log, NAMES, world.now_ms)
    assert audit.clean and audit.unreadable == 1, audit.problems
    assert (audit.requested, audit.trained, audit.rollouts) == (whole.requested, whole.trained, whole.rollouts)


def swap_for_claim(world, record):
    connection = sqlite3.connect(world.root / "log.sqlite")
    query = "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ? AND p.partition = ?"
    (partition,) = connection.execute(query, (record.topic, record.partition)).fetchone()
    claim = prompt_pb2.Claim(uri="s3://elsewhere/payload", sha256=bytes(32), size_bytes=10**6).SerializeToString()
    headers = pack_headers((*record.headers, (HEADER, b"1")))
    with connection:
        update = "UPDATE records SET value = ?, headers = ? WHERE id = ?"
        connection.execute(update, (claim, headers, row_id(partition, record.offset)))
    connection.close()


def test_reuse_in_a_whole_run_is_clean(tmp_path):
    world = good_run(tmp_path, replay=Fifo(max_uses=2))
    audit = audit_log(world.log, NAMES, world.now_ms)
    assert audit.clean and audit.reused > 0, audit.problems
