"""The service over the real embedded log: rollouts in, verdicts out, failures of ours tried again, second looks."""

import threading
import time

import pytest

from pipeline import config, records, topics
from pipeline.life import Life, Phase
from pipeline.log.api import read_all
from pipeline.metrics import Meter
from pipeline.rundir import RunDir
from pipeline.serve import Context
from services.verification.service import VerificationService
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2

WAIT_S = 60.0
Outcome = rollout_pb2.VerdictOutcome


class Place:
    """A run's log with these prompts and rollouts on it, and the service at work on it."""

    def __init__(self, folder, **verification):
        self.run = config.parse({"run": "t", "verification": {"pool": 1, **verification}})
        self.dir = RunDir.make(folder / "run", self.run)
        self.log, self.names = self.dir.open_log(), self.dir.names()
        topics.create(self.log, self.names, local=True)
        self.meter = Meter("verification", "v")

    def write(self, topic, *nouns):
        writer = self.log.writer("test")
        with writer.transaction() as transaction:
            transaction.sends.extend(records.encode(self.names.topic(topic), n.prompt_id, n) for n in nouns)
        writer.close()

    def work(self, verdicts):
        """Let it run until it has given so many verdicts."""
        life = Life(phase=Phase.PHASE_RUNNING)
        service = VerificationService(self.context(life))
        watcher = threading.Thread(target=self._stop, args=(service, life, verdicts))
        watcher.start()
        service.run()
        watcher.join()
        service.close()
        return self.on("verdicts", rollout_pb2.Verdict)

    def context(self, life):
        return Context("verification", "v", self.run, self.dir, self.log, self.names, self.meter, life)

    def on(self, topic, noun):
        return [records.decode_as(noun, record) for record in read_all(self.log, self.names.topic(topic))]

    @staticmethod
    def _stop(service, life, verdicts):
        deadline = time.monotonic() + WAIT_S
        while service.verdicts < verdicts and time.monotonic() < deadline:
            time.sleep(0.02)
        life.stop()


@pytest.fixture
def place(tmp_path):
    made = []

    def start(**verification):
        made.append(Place(tmp_path, **verification))
        return made[-1]

    yield start
    for one in made:
        one.log.close()


def prompt(name="p", answer="42", check="exact", **fields):
    check = prompt_pb2.CheckSpec(check=check, answer=answer)
    return prompt_pb2.Prompt(prompt_id=name, check=check, **fields)


def rollout(text, index=0, name="p"):
    return rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id="r", index=index, attempt=1),
        sha256=bytes([index]) * 32,
        prompt_id=name,
        calls=[rollout_pb2.Call(tokens=[1], text=text)],
        ending=rollout_pb2.ENDING_STOP,
        purpose=prompt_pb2.PURPOSE_TRAIN,
    )


def test_what_fails_on_our_side_goes_round_by_rollouts_retry_a_bounded_number_of_times_and_is_no_reward(place):
    here = place(tries=3)
    here.write("rollouts", rollout("42", name="unknown"))
    (verdict,) = here.work(verdicts=1)
    assert verdict.outcome == Outcome.VERDICT_OUTCOME_INFRA_ERROR
    assert (verdict.reason, verdict.attempt, list(verdict.rewards)) == ("unknown_prompt", 3, [])
    assert [one.failed_checks for one in here.on("rollouts-retry", rollout_pb2.Rollout)] == [1, 2]
    assert here.meter.values()['sluice_verification_retries_total{reason="unknown_prompt"}'] == 2


def test_a_prompt_defined_again_is_a_dead_letter_that_names_it_and_rollouts_are_checked_against_the_first(place):
    here = place()
    here.write("prompts", prompt(digest=b"one"), prompt(answer="7", digest=b"two"))
    here.write("rollouts", rollout("42"))
    (verdict,) = here.work(verdicts=1)
    assert verdict.outcome == Outcome.VERDICT_OUTCOME_CORRECT
    (letter,) = here.on("dead-letters", control_pb2.DeadLetter)
    assert (letter.service, letter.topic, letter.key) == ("verification", "prompts", b"p")
    assert "prompt 'p' is registered with another content; accepted: the same, or a new id" in letter.reason


def test_a_dead_letter_of_a_prompt_is_told_until_it_is_committed_and_then_no_more(place):
    here = place()
    here.write("prompts", prompt(digest=b"one"), prompt(digest=b"two"))
    service = VerificationService(here.context(Life(phase=Phase.PHASE_RUNNING)))
    told = [len(service([], {}))]
    service.restore()  # it did not commit
    told += [len(service([], {})), len(service([], {}))]
    service.close()
    assert told == [1, 1, 0]


def test_the_runs_knobs_of_a_check_are_in_force(place):
    here = place(checks={"exact": {"case": "fold"}})
    here.write("prompts", prompt(answer="ab"))
    here.write("rollouts", rollout("AB"))
    (verdict,) = here.work(verdicts=1)
    assert verdict.outcome == Outcome.VERDICT_OUTCOME_CORRECT


def test_a_second_look_stands_on_the_verdict_and_in_the_metrics(place):
    here = place(second_look={"share": 1.0, "check": {"name": "exact"}})
    here.write("prompts", prompt(check="regex", answer=".*4.*", hidden=prompt_pb2.CheckSpec(answer="42")))
    here.write("rollouts", *(rollout(text, index) for index, text in enumerate(("42", "14", "7"))))
    found = sorted(here.work(verdicts=3), key=lambda one: one.key.index)
    assert [one.accuracy for one in found] == [1, 1, 0]
    assert [Outcome.Name(one.hidden_outcome)[16:] for one in found] == ["CORRECT", "WRONG", "WRONG"]
    values = here.meter.values()
    counted = 'sluice_verification_second_looks_total{{check="regex",found="{}"}}'.format
    assert [values[counted(one)] for one in ("true_positive", "false_positive", "true_negative")] == [1, 1, 1]


def test_what_is_counted_by_the_batch_is_what_was_handled(place):
    here = place()
    here.write("prompts", prompt())
    here.write("rollouts", *(rollout(text, index) for index, text in enumerate(("42", "14", "42"))))
    here.work(verdicts=3)
    values = here.meter.values()
    counted = 'sluice_verification_verdicts_total{{check="exact",outcome="{}"}}'.format
    assert (values[counted("correct")], values[counted("wrong")]) == (2, 1)
    assert (values[counted("violation")], values[counted("infra_error")]) == (0, 0)
    assert values['sluice_verification_seconds_count{check="exact"}'] == 3
    assert values['sluice_stage_records_total{result="dead_lettered",topic="rollouts"}'] == 0
    assert values['sluice_stage_records_total{result="dead_lettered",topic="rollouts-retry"}'] == 0
    assert values['sluice_stage_records_total{result="handled",topic="rollouts"}'] == 3
