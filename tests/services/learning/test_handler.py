"""The learner on a real log: whatever it is killed between, every requested rollout ends once."""

import random
from dataclasses import replace

import pytest

from pipeline import records, weights
from pipeline.audit import audit_log
from pipeline.errors import UserError
from pipeline.stage import Decoded
from services.learning import checkpoint
from services.learning.checkpoint import Damaged
from services.learning.replay.fifo import Fifo
from sluice.v1 import control_pb2, training_pb2
from tests.services.learning.world import NAMES, Killed, World, kinds


def audited(world):
    """The run's account; once it has finished, every place at the gate came back too."""
    audit = audit_log(world.log, NAMES, world.now_ms)
    assert not audit.finished or world.places() == 0
    return audit


def test_a_run_ends_with_every_rollout_accounted_for(tmp_path):
    world = World(tmp_path).run()
    audit = audited(world)
    assert audit.clean, audit
    assert audit.in_flight == 0 and audit.finished and audit.steps == 8
    assert audit.requested == sum(request.n for request in world.held("requests"))
    assert audit.trained and audit.superseded


def killer(chances, limit=25):
    """Dies around every transaction with chance one in `chances`, `limit` times at most."""
    dice, left = random.Random(1), [limit]

    def kill(sends):
        if left[0] and dice.randrange(chances) == 0:
            left[0] -= 1
            return dice.choice(["before", "after"])
        return ""

    return kill


def once(kind, when, number=1):
    """Dies around the `number`-th transaction that writes such a noun."""
    left = [number]

    def kill(sends):
        if kind in kinds(sends):
            left[0] -= 1
            return when if left[0] == 0 else ""
        return ""

    return kill


@pytest.mark.parametrize("seed", range(4))
def test_killed_between_any_two_transactions_nothing_is_lost_or_trained_twice(tmp_path, seed):
    world = World(tmp_path, seed=seed).run(killer(4))
    audit = audited(world)
    assert audit.clean, audit
    assert audit.in_flight == 0 and world.kills >= audit.epochs - 1 > 5
    for said, found in world.trainer.seen:
        assert said.sha256 == found.rollout_sha256


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["Rewind", "WeightChunk", "WeightManifest", "TrainStep", "DropNotice", "Checkpoint"])
@pytest.mark.parametrize("number", [1, 3])
def test_killed_around_a_noun(tmp_path, kind, when, number):
    world = World(tmp_path, seed=number).run(once(kind, when, number))
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0, audit
    assert audit.steps == 8
    versions = [manifest.version for manifest in world.held("weights-manifest")]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("kill", [killer(5), once("Outcome", "after", 1), once("Outcome", "after", 2)])
def test_reuse_and_kills_together_train_no_use_twice(tmp_path, kill):
    settings = replace(World.settings, max_lag=9)
    world = World(tmp_path, seed=4, settings=settings, replay=Fifo(max_uses=3, reuse_max_lag=9)).run(kill)
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0, audit
    assert audit.reused > 0


def corrupting(world, number, deaths):
    """At the `number`-th checkpoint with outcomes: damage its files, then die; and die again in the next lives."""
    left, dying = [number], [0]

    def kill(sends):
        if "Outcome" in kinds(sends) and left[0]:
            left[0] -= 1
            if left[0] == 0:
                newest = max((world.root / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)
                (newest / "model.safetensors").write_bytes(b"damaged")
                dying[0] = deaths
                return "after"
        if dying[0] and "TrainStep" in kinds(sends):
            dying[0] -= 1
            return "after"
        return ""

    return kill


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("number", "deaths"), [(1, 0), (2, 0), (3, 0), (2, 1), (2, 3)])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, seed, number, deaths):
    world = World(tmp_path, seed=seed)
    world.run(corrupting(world, number, deaths))
    assert "is damaged" in caplog.text and "falling back to the checkpoint of step" in caplog.text
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0, audit
    assert audit.voided_steps or audit.steps == 8


def test_when_no_checkpoint_verifies_the_learner_refuses_to_start(tmp_path):
    world = World(tmp_path).run()
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"damaged")
    world.born()
    with pytest.raises(Damaged, match="no checkpoint of this run can be loaded"):
        list(world.handler.start())


def test_a_stopped_run_ends_everything_and_a_second_run_goes_on_to_the_end(tmp_path):
    world = World(tmp_path).run(stop_at=3)
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0 and audit.steps == 3, audit
    assert audit.dropped["drained"]
    world.write(("control", "run", control_pb2.Control(phase=control_pb2.PHASE_RUNNING)))
    audit = audited(world.run())
    assert audit.clean and audit.in_flight == 0 and audit.steps == 8, audit
    assert "run_finished" in audit.dropped and audit.voided_steps == 0


def test_a_finished_run_that_is_started_again_trains_nothing_more(tmp_path):
    world = World(tmp_path).run()
    trained = len(world.trainer.seen)
    audit = audited(world.run())
    assert audit.clean and audit.steps == 8 and len(world.trainer.seen) == trained


def test_a_skipped_step_drops_its_rollouts_and_publishes_nothing(tmp_path):
    world = World(tmp_path)
    world.trainer.skip_at = 4
    audit = audited(world.run())
    assert audit.clean and audit.dropped["nan_step"] > 0
    skipped = next(step for step in world.held("steps") if isinstance(step, training_pb2.TrainStep) and step.step == 4)
    before = next(step for step in world.held("steps") if isinstance(step, training_pb2.TrainStep) and step.step == 3)
    assert not skipped.uses and skipped.version == before.version


def test_versions_count_from_one_one_for_each_step_and_old_weights_are_trimmed(tmp_path):
    world = World(tmp_path).run()
    versions = [manifest.version for manifest in world.held("weights-manifest")]
    assert versions == list(range(1, 10))
    assert {chunk.version for chunk in world.held("weights")} == {8, 9}


def test_publishing_every_second_step_keeps_the_version_in_between(tmp_path):
    settings = replace(World.settings, publish_every=2)
    world = World(tmp_path, settings=settings).run()
    steps = [step for step in world.held("steps") if isinstance(step, training_pb2.TrainStep)]
    assert [step.version for step in steps] == [1, 2, 2, 3, 3, 4, 4, 5]
    assert audited(world).clean


def test_no_trained_rollout_is_older_than_the_bound(tmp_path):
    world = World(tmp_path, settings=replace(World.settings, max_lag=1)).run(killer(6))
    lags = [use.lag for step in world.held("steps") if isinstance(step, training_pb2.TrainStep) for use in step.uses]
    assert max(lags) <= 1
    assert audited(world).dropped["stale"] > 0


def test_a_disk_that_is_full_keeps_the_run_going_and_the_last_good_checkpoint(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("services.learning.handler.TRY_AGAIN_S", 0.0)
    folder = tmp_path / "checkpoints"
    blocked = tmp_path / "blocked"
    world = World(tmp_path)

    def fill_up_then_free(sends):
        steps = world.handler.step
        if steps == 2 and folder.is_dir():
            folder.rename(blocked)
            folder.touch()  # where a folder must be, a file lies: nothing can be written
        if steps == 5 and blocked.is_dir():
            folder.unlink()
            blocked.rename(folder)
        return ""

    audit = audited(world.run(fill_up_then_free))
    assert audit.clean and audit.steps == 8, audit
    assert "cannot be written" in caplog.text and not world.handler.trouble


def test_records_that_cannot_be_read_fail_their_rollouts(tmp_path):
    world = World(tmp_path, settings=replace(World.settings, steps=2))
    world.born()
    world.commit(world.handler.start(), lambda sends: "")
    world.handler.poison({"request_id": "r-77", "group_id": "g-77", "n": "2"}, "poison")
    world.handler.poison({"version": "7"}, "poison")
    world.commit(world.handler([], world.now_ms), lambda sends: "")
    notices = [noun for noun in world.held("steps") if isinstance(noun, training_pb2.DropNotice)]
    assert [(drop.key.request_id, drop.key.index, drop.reason) for drop in notices[0].drops] == [
        ("r-77", 0, "poison"),
        ("r-77", 1, "poison"),
    ]


def test_it_says_what_it_waits_for_and_where_it_is(tmp_path):
    world = World(tmp_path)
    world.born()
    world.commit(world.handler.start(), lambda sends: "")
    assert world.handler.waiting_for() == "requests"
    progress = world.handler.progress()
    assert (progress.epoch, progress.step, progress.steps, progress.version) == (1, 0, 8, 1)
    assert progress.checkpoint.uri == "step-000000000000-epoch-1"
    world.handler.stop()
    world.commit(world.handler([], world.now_ms), lambda sends: "")
    assert world.handler.waiting_for() == "drain"


def test_rollouts_that_lay_on_the_log_while_the_learner_was_away_are_not_expired(tmp_path):
    """Their deadlines passed long ago; they were there in time. Polls bring little, and nothing now and then."""
    world = World(tmp_path, seed=2, settings=replace(World.settings, steps=1, max_lag=9))
    for _ in range(8):
        world.issue()
    while world.todo:
        world.generate()
    while world.unchecked:
        world.verify()
    world.now_ms += 10 * world.deadline_ms
    world.born()
    world.commit(world.handler.start(), lambda sends: "")
    follower = world.log.follow(world.handler.offsets())
    for moment in range(300):
        found = [world.on_time(record) for record in follower.poll(0.0, 2)] if moment % 3 else []
        nouns = [Decoded(record, records.decode(record)) for record in found]
        world.commit(world.handler(nouns, world.now_ms), lambda sends: "")
        world.now_ms += 100
    follower.close()
    arrived = {(one.key.request_id, one.key.index) for one in world.held("rollouts")}
    requested = {
        (one.request_id, one.first_index + number) for one in world.held("requests") for number in range(one.n)
    }
    drops = [drop for noun in world.held("steps") if not isinstance(noun, training_pb2.Rewind) for drop in noun.drops]
    missing = {(drop.key.request_id, drop.key.index) for drop in drops if drop.reason in ("no_rollout", "no_verdict")}
    assert missing == requested - arrived != set()


def test_after_a_rewind_the_weights_of_the_checkpoint_are_published_anew_and_reading_resumes_where_it_says(tmp_path):
    """Killed after step 5; the newest checkpoint is of step 3, made with version 4. Versions 5 and 6 are taken back."""
    world = World(tmp_path, seed=3)
    world.born()
    with pytest.raises(Killed):
        world.live(once("TrainStep", "after", 5), None)
    newest = world.held("checkpoints")[-1]
    assert (newest.step, newest.version, world.held("weights-manifest")[-1].version) == (3, 4, 6)
    world.born()
    world.commit(world.handler.start(), lambda sends: "")
    manifest = world.held("weights-manifest")[-1]
    assert (manifest.version, manifest.epoch, manifest.step, world.handler.version) == (7, 2, 3, 7)
    chunk = next(chunk for chunk in world.held("weights") if (chunk.version, chunk.epoch) == (7, 2))
    saved = checkpoint.load(tmp_path / "checkpoints", newest.uri, newest.sha256)
    assert weights.decode(chunk)[1].tobytes() == saved["model"]["policy"].tobytes()
    assert world.handler.offsets() == {(one.topic, one.partition): one.offset for one in newest.offsets}
    rewind = next(noun for noun in reversed(world.held("steps")) if isinstance(noun, training_pb2.Rewind))
    assert (rewind.epoch, rewind.to_step, rewind.version) == (2, 3, 4)


def test_where_nothing_was_taken_back_no_version_is_spent(tmp_path):
    world = World(tmp_path).run(once("Outcome", "after", 1))
    assert [manifest.version for manifest in world.held("weights-manifest")] == list(range(1, 10))
    assert audited(world).epochs == 2


def test_drops_that_nobody_was_told_of_are_told_with_the_checkpoint(tmp_path):
    world = World(tmp_path, settings=replace(World.settings, notice_every_ms=10**9)).run()
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0, audit


def test_outcomes_are_named_also_when_no_step_is_ever_made(tmp_path, monkeypatch):
    monkeypatch.setattr("services.learning.handler.OUTCOMES_AT_MOST", 40)
    world = World(tmp_path)
    world.born()
    world.trainer.refuses = lambda group: "degenerate_group"
    world.commit(world.handler.start(), lambda sends: "")
    follower = world.log.follow(world.handler.offsets())
    for _ in range(120):
        world.others(draining=False)
        nouns = [Decoded(world.on_time(record), records.decode(record)) for record in follower.poll(0.0)]
        world.commit(world.handler(nouns, world.now_ms), lambda sends: "")
    follower.close()
    assert world.handler.step == 0 and len(world.handler.ledger.outcomes) < 60
    assert len(world.held("outcomes")) > 40 and audited(world).clean


def test_a_run_directory_with_steps_is_refused_on_a_log_that_never_saw_them(tmp_path):
    World(tmp_path).run()
    (tmp_path / "log.sqlite").unlink()
    another = World(tmp_path)
    with pytest.raises(UserError, match="a checkpoint of step 8 and the log names none: it is not the log of this run"):
        another.run()
    assert another.held("checkpoints") == another.held("weights-manifest") == []


def test_a_learner_that_may_not_trim_goes_on_and_says_so_once(tmp_path, monkeypatch, caplog):
    def refuse(self, topic, partition, before):
        tried.append(before)
        raise UserError("log kafka://k:1 refuses this user: TopicAuthorizationFailedError: it asked for DeleteRecords")

    tried: list[int] = []
    monkeypatch.setattr("pipeline.log.embedded.EmbeddedLog.trim", refuse)
    world = World(tmp_path).run()
    assert world.handler.finished and len(tried) > 1
    assert len([one for one in caplog.records if "old weights stay" in one.message]) == 1
