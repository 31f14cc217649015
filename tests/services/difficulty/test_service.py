"""The service over the real embedded log: what it refuses, what it says, what a restart takes over."""

import dataclasses
import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import config, records, topics, ways
from pipeline.errors import LogUnavailable, NotReady, OwnFault, UserError
from pipeline.life import Life, Phase
from pipeline.log.api import read_all
from pipeline.metrics import Meter
from pipeline.rundir import RunDir
from pipeline.serve import Context
from services.difficulty import snapshot
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.service import DifficultyService
from sluice.v1 import control_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2, weights_pb2

RUN = config.parse({"run": "t", "max_lag": 0, "learning": {"batch_groups": 2}, "data": {"held_out": 0}})


class Place:
    """A run's log, and services that are started on it one after the other."""

    def __init__(self, folder):
        self.dir = RunDir.make(folder / "run", RUN)
        self.log, self.names = self.dir.open_log(), self.dir.names()
        topics.create(self.log, self.names, local=True)
        self.services = []

    def write(self, topic, *nouns):
        writer = self.log.writer("test")
        with writer.transaction() as transaction:
            transaction.sends.extend(records.encode(self.names.topic(topic), n.prompt_id, n) for n in nouns)
        writer.close()

    def start(self, run=RUN):
        life = Life(phase=Phase.PHASE_RUNNING)
        meter = Meter("difficulty", "d")
        service = DifficultyService(Context("difficulty", "d", run, self.dir, self.log, self.names, meter, life))
        self.services.append(service)
        service.context.stage.open("difficulty")
        service.restore()
        return service

    def turn(self, service, *nouns):
        """One turn of the loop: handle, and commit what came of it."""
        outputs = service(list(nouns), {})
        service.context.stage.commit(service.context.stage.encode(outputs), {}, None)
        return outputs


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    for service in place.services:
        service.close()
        service.context.stage.writer.close()
    place.log.close()


def prompt(name, digest=b"one"):
    return prompt_pb2.Prompt(prompt_id=name, digest=digest, split="train")


def verdict(name, right=1.0, version=0):
    outcome = rollout_pb2.VERDICT_OUTCOME_CORRECT if right else rollout_pb2.VERDICT_OUTCOME_WRONG
    return rollout_pb2.Verdict(prompt_id=name, accuracy=right, outcome=outcome, purpose=1, max_version=version)


def test_an_empty_prompt_set_is_refused(place):
    with pytest.raises(UserError, match="the prompts topic holds no prompt to train on; accepted: at least one"):
        place.start()


def test_a_prompt_that_is_defined_again_with_another_text_is_a_dead_letter_that_names_it(place):
    place.write("prompts", prompt("p0"), prompt("p1"))
    service = place.start()
    place.turn(service)
    place.write("prompts", prompt("p1"), prompt("p0", b"two"))
    letters = [output.noun for output in place.turn(service) if output.topic == "dead-letters"]
    assert [(letter.topic, letter.key) for letter in letters] == [("prompts", b"p0")]
    assert "prompt 'p0' is registered with another content" in letters[0].reason
    assert service.scheduler.prompts["p0"].digest == b"one"


class Broken(Uniform):
    """A sampler with a bug."""

    def __call__(self, states, n, rng):
        raise ValueError("cannot convert float NaN to integer")


def test_a_sampler_that_fails_ends_the_process_with_its_reason_and_no_verdict_is_a_dead_letter(place):
    place.write("prompts", prompt("p0"))
    place.write("verdicts", verdict("p0"), verdict("p0"))
    service = place.start()
    service.scheduler.sampler = Broken()
    with pytest.raises(OwnFault, match="choosing what to try next failed with ValueError: cannot convert float NaN"):
        service.run()
    assert letters(place) == []
    assert place.log.backlog(place.names.own("difficulty"), place.names.topic("verdicts")) == 2


def letters(place):
    return [records.decode(record) for record in read_all(place.log, place.names.topic("dead-letters"))]


def test_a_redefinition_that_is_read_at_the_start_is_a_dead_letter_once(place):
    place.write("prompts", prompt("p0"), prompt("p1"), prompt("p0", b"two"))
    service = place.start()
    place.turn(service)
    place.turn(service)
    service.restore()
    place.turn(service)
    assert [(letter.topic, letter.key) for letter in letters(place)] == [("prompts", b"p0")]


def test_a_redefinition_is_not_lost_with_a_transaction_that_did_not_commit(place):
    place.write("prompts", prompt("p0"))
    service = place.start()
    place.turn(service)
    place.write("prompts", prompt("p0", b"two"))
    service([], {})  # and the commit fails
    service.restore()
    place.turn(service)
    assert [letter.key for letter in letters(place)] == [b"p0"]


def test_news_of_prompts_wait_for_a_log_that_answers(place):
    place.write("prompts", prompt("p0"))
    service = place.start()
    place.turn(service)
    place.write("prompts", prompt("p1"))
    announced = service.handler.announced

    def down(_):
        raise LogUnavailable("the log does not answer")

    service.handler.announced = down
    with pytest.raises(LogUnavailable):
        service([], {})
    service.handler.announced = announced
    service.restore()
    place.turn(service)
    assert "p1" in service.scheduler.prompts


def test_a_verdict_of_a_prompt_that_nobody_registered_is_a_dead_letter_and_makes_no_posterior(place):
    place.write("prompts", prompt("p0"), prompt_pb2.Prompt(prompt_id="held", digest=b"h", split="test"))
    service = place.start()
    outputs = place.turn(service, verdict("ghost"), verdict("p0"), verdict("held"))
    accepted = "is not registered to train on; accepted: an id of the prompts topic"
    assert [letter.reason for letter in letters(place)] == [
        f"prompt_not_registered: prompt 'ghost' {accepted}",
        f"prompt_not_registered: prompt 'held' {accepted}",
    ]
    assert [o.key for o in outputs if o.topic == "posterior"] == ["p0", "__gate__"]
    assert "ghost" not in service.scheduler.store.rows and service.scheduler.store.get("p0").visits == 1


def test_an_evaluation_of_a_held_out_prompt_is_left_out_and_no_dead_letter(place):
    place.write("prompts", prompt("p0"), prompt_pb2.Prompt(prompt_id="held", digest=b"h", split="test"))
    service = place.start()
    evaluated = verdict("held")
    evaluated.purpose = prompt_pb2.PURPOSE_EVALUATE
    place.turn(service, evaluated)
    service.scheduler.committed()
    assert letters(place) == [] and service.scheduler.ignored["evaluation"] == 1


def test_before_a_verdict_is_refused_news_of_its_prompt_is_looked_for_to_the_end(place):
    place.write("prompts", prompt("p0"))
    service = place.start()
    place.write("prompts", *[prompt(f"q{number}") for number in range(2500)])
    place.turn(service, verdict("q2499"))
    assert letters(place) == [] and service.scheduler.store.get("q2499").visits == 1


def test_it_is_not_ready_before_all_prompts_are_read(place, monkeypatch):
    place.write("prompts", prompt("p0"))
    service = place.start()
    place.write("prompts", prompt("p1"))
    monkeypatch.setattr("pipeline.data.prompts.CATCH_UP_S", -1.0)
    monkeypatch.setattr(service.prompts._follower, "poll", lambda *_: [])
    with pytest.raises(LogUnavailable, match="the prompts topic was read to offset . of . and no more came in time"):
        service.restore()
    assert not service.handler.ready


def test_when_every_prompt_is_solved_it_says_so_and_still_issues(place):
    place.write("prompts", prompt("p0"), prompt("p1"))
    service = place.start()
    place.turn(service, *[verdict(f"p{n}") for n in (0, 1) for _ in range(40)])
    status = control_pb2.WorkerStatus()
    service.status(status)
    assert status.reason.startswith("every prompt is believed solved or hopeless")
    assert status.gauges["share_solved"] == 1.0 and status.counters["requests"] == 2


def test_a_rollout_of_a_version_whose_manifest_is_on_the_log_counts_and_a_later_one_does_not(place):
    place.write("prompts", prompt("p0"))
    service = place.start()
    place.turn(service)
    writer = place.log.writer("learning")
    with writer.transaction() as transaction:
        manifest = weights_pb2.WeightManifest(policy_id="main", version=3)
        transaction.sends.append(records.encode(place.names.topic("weights-manifest"), "main", manifest))
    writer.close()
    outputs = place.turn(service, verdict("p0", version=3), verdict("p0", version=4))
    assert [o.noun.reason.split(":")[0] for o in outputs if o.topic == "dead-letters"] == ["version_not_announced"]
    assert service.scheduler.store.get("p0").visits == 1


def full_disk(service, monkeypatch):
    """Every snapshot is due, and no file can be written."""

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(snapshot.os, "fsync", no_space)
    service.snapshots._due = 0.0


def test_on_a_full_disk_verdicts_count_and_none_is_a_dead_letter(place, monkeypatch, caplog):
    place.write("prompts", prompt("p0"), prompt("p1"))
    service = place.start()
    stage, names = service.context.stage, place.names
    reader = place.log.group(names.own("difficulty"), [names.topic("verdicts")], "d")
    full_disk(service, monkeypatch)
    for round_ in range(2):
        place.write("verdicts", verdict("p0"), verdict("p1", 0.0))
        found = [record for _ in range(4) for record in reader.poll(0.5)]
        ways._handle(stage, service, reader, found)
        assert service.snapshots._due > time.monotonic()
        service.snapshots._due = 0.0
        assert [service.scheduler.store.get(name).visits for name in ("p0", "p1")] == [round_ + 1] * 2
    assert read_all(place.log, names.topic("dead-letters")) == []
    assert [record.message for record in caplog.records if "cannot be written" in record.message] == [
        "the snapshot 'snapshot.bin' cannot be written (No space left on device): a restart will take longer; "
        "tried again every 60 s"
    ]
    reader.close()


def test_a_snapshot_that_cannot_be_written_says_so_and_leaves_nothing_behind(place, monkeypatch):
    place.write("prompts", prompt("p0"))
    service = place.start()
    full_disk(service, monkeypatch)
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(service.snapshots.ask)
        while not service.snapshots._askers:
            time.sleep(0.001)
        place.turn(service)
        with pytest.raises(
            NotReady, match="'snapshot.bin' cannot be written .No space left on device.; accepted: a disk"
        ):
            asked.result(10)
    status = control_pb2.WorkerStatus()
    service.status(status)
    assert status.gauges["snapshot_failed"] == 1.0 and "cannot be written" in status.reason
    assert [path.name for path in service.snapshots.path.parent.iterdir()] == ["prompts.bin"]
    monkeypatch.undo()
    service.snapshots._due = 0.0
    place.turn(service)
    assert service.snapshots.failed == "" and service.snapshots.path.is_file()


def test_a_start_removes_what_a_killed_writer_left(place):
    place.write("prompts", prompt("p0"))
    folder = place.start().snapshots.path.parent
    (folder / ".snapshot.bin.4711").write_bytes(b"half")
    place.start()
    assert [path.name for path in folder.iterdir()] == ["prompts.bin"]


def test_a_restart_knows_what_the_one_before_it_wrote(place):
    place.write("prompts", prompt("p0"), prompt("p1"))
    first = place.start()
    place.turn(first, verdict("p0"), verdict("p1", 0.0), verdict("p1", 0.5))
    second = place.start()
    assert second.scheduler.store.get("p1") == first.scheduler.store.get("p1")
    held = [records.decode(record) for record in read_all(place.log, place.names.topic("posterior"))]
    assert max(noun.outcomes for noun in held if isinstance(noun, posterior_pb2.PosteriorState)) == 3
    assert dataclasses.asdict(second.scheduler.gate) == dataclasses.asdict(first.scheduler.gate)


def test_a_gauge_has_no_value_before_it_is_known(place):
    place.write("prompts", prompt("p0"))
    service = place.start()
    service.status(control_pb2.WorkerStatus())
    found = service.context.meter.values()
    assert found["sluice_difficulty_prompts"] == 1
    assert not [name for name in found if "brier" in name or "calibration" in name or "informative_share" in name]
    place.turn(service, verdict("p0"))
    place.turn(service)
    service._shown_at = 0.0
    service.status(control_pb2.WorkerStatus())
    found = service.context.meter.values()
    assert found["sluice_difficulty_brier_ratio"] == 0.25
    assert found['sluice_difficulty_pass_rate_ratio{bin="5",of="predicted"}'] == 0.5
    assert found['sluice_difficulty_pass_rate_ratio{bin="5",of="observed"}'] == 1.0
    assert not [name for name in found if "informative_share" in name]


def test_how_many_versions_behind_an_outcome_was_is_observed(place):
    place.write("prompts", prompt("p"))
    service = place.start()
    place.turn(service, *(training_pb2.TrainStep(epoch=1, step=each, version=each) for each in range(1, 8)))
    told = [verdict("p", version=7), verdict("p", version=4)]
    told[0].min_version, told[1].min_version = 7, 3
    lost = rollout_pb2.Verdict(prompt_id="p", outcome=rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, purpose=1)
    place.turn(service, *told, lost)
    values, name = service.context.meter.values(), "sluice_difficulty_lag_versions"
    assert (values[f"{name}_count"], values[f"{name}_sum"]) == (2, 0 + 4)
