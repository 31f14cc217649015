"""A posterior topic with a gap, over the real embedded log: rebuilt from the inputs, or refused."""

import time

import pytest

from pipeline import records, topics
from pipeline.data.prompt import GATE_KEY
from pipeline.errors import UserError
from pipeline.gate import Gate
from pipeline.log import open_log
from pipeline.log.api import read_all
from pipeline.topics import Names
from services.difficulty.budget.fixed import Fixed
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.spo_tracker import SpoTracker
from services.difficulty.handler import Handler
from services.difficulty.rebuild import close_gap
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

NAMES = Names("test", "run")
GROUP = NAMES.own("difficulty")
PROMPTS = [prompt_pb2.Prompt(prompt_id=f"p{number}", digest=b"d") for number in range(5)]


def build(estimate=None):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    scheduler = Scheduler(estimate or Beta(), Uniform(), Fixed(2), Gate(0, 4), sampling)
    scheduler.observe(PROMPTS)
    return scheduler


def verdict(prompt_id, right):
    outcome = rollout_pb2.VERDICT_OUTCOME_CORRECT if right else rollout_pb2.VERDICT_OUTCOME_WRONG
    return rollout_pb2.Verdict(prompt_id=prompt_id, accuracy=right, outcome=outcome, purpose=1)


class Place:
    """A run's log as its service left it: three steps, five outcomes after each, one bad record, two unread."""

    def __init__(self, folder, estimate=None):
        self.log = open_log(str(folder / "log.db"))
        topics.create(self.log, NAMES, local=True)
        self.writer = self.log.writer("everybody")
        self.reader = self.log.group(GROUP, [NAMES.topic("verdicts"), NAMES.topic("steps")], "one")
        self.scheduler = build(estimate)
        self.handler = Handler(self.scheduler, now_ms=lambda: 0)
        self.sent = list(self.handler([]))
        for step in range(1, 4):
            told = [("verdicts", f"p{n}", verdict(f"p{n}", (n + step) % 2)) for n in range(5)]
            self.write([*told, ("steps", "run", training_pb2.TrainStep(epoch=1, step=step, version=step))])
            self.handle()
        self.write([("verdicts", "p0", verdict("p0", 1)), ("verdicts", "p1", verdict("p1", 1))])

    def write(self, sent):
        time.sleep(0.003)  # two writes of one millisecond have no order in time, and then the last digits may differ
        with self.writer.transaction() as transaction:
            transaction.sends.extend(records.encode(NAMES.topic(topic), key, noun) for topic, key, noun in sent)

    def handle(self):
        found = self.reader.poll(1.0)
        nouns = [records.decode(record) for record in found]
        nouns.sort(key=lambda noun: isinstance(noun, training_pb2.TrainStep))
        self.sent += self.handler(nouns)
        with self.writer.transaction() as transaction:
            offsets = {(record.topic, record.partition): record.offset + 1 for record in found}
            transaction.commit_offsets(self.reader, offsets)

    def restored(self, lost=()):
        """A new process; records of the topic with these keys are lost."""
        scheduler = build()
        scheduler.restore(noun for topic, key, noun in self.sent if topic == "posterior" and key not in lost)
        return scheduler

    def close_gap(self, scheduler):
        return close_gap(scheduler, self.log, NAMES, GROUP)


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.reader.close()
    place.writer.close()
    place.log.close()


def believed(scheduler):
    return {f"p{number}": scheduler.store.get(f"p{number}") for number in range(5)}


def test_a_whole_topic_is_taken_as_it_is(place):
    scheduler = place.restored()
    assert place.close_gap(scheduler) == 0
    assert believed(scheduler) == believed(place.scheduler) and scheduler.changed() == []


def test_lost_records_are_folded_anew_from_what_was_read_and_no_further(place):
    scheduler = place.restored(lost=("p2", "p4"))
    assert place.close_gap(scheduler) == 6
    assert believed(scheduler) == believed(place.scheduler)
    assert scheduler.gate.to_record() == place.scheduler.gate.to_record()
    written = [record.prompt_id for record in scheduler.changed()]
    assert written == [f"p{number}" for number in range(5)]


def test_a_record_that_was_lost_after_it_was_written_over_is_noticed_too(place):
    scheduler = build()
    posterior = [noun for topic, key, noun in place.sent if topic == "posterior"]
    newest = max(place for place, noun in enumerate(posterior) if getattr(noun, "prompt_id", "") == "p3")
    scheduler.restore(posterior[:newest] + posterior[newest + 1 :])
    assert scheduler.store.get("p3").visits == 2
    assert place.close_gap(scheduler) == 1 and believed(scheduler) == believed(place.scheduler)


def step(number, prompt_ids, epoch=1, nats=0.01):
    shifts = [training_pb2.PromptShift(prompt_id=one, mean_abs_logprob_change=nats) for one in prompt_ids]
    return "steps", "run", training_pb2.TrainStep(epoch=epoch, step=number, version=number, shifts=shifts)


@pytest.fixture
def moving(tmp_path):
    """An estimate that listens to movements, and a step that moved three prompts and brought no outcome of them."""
    place = Place(tmp_path, SpoTracker())
    place.write([step(4, ["p2", "p3", "p4"])])
    place.handle()
    yield place
    place.reader.close()
    place.writer.close()
    place.log.close()


def without_newest(place, prompt_id):
    posterior = [noun for topic, key, noun in place.sent if topic == "posterior"]
    newest = max(at for at, noun in enumerate(posterior) if getattr(noun, "prompt_id", "") == prompt_id)
    scheduler = build(SpoTracker())
    scheduler.restore(posterior[:newest] + posterior[newest + 1 :])
    return scheduler


def test_a_lost_record_that_held_only_a_movement_is_noticed(moving):
    scheduler = without_newest(moving, "p3")
    assert scheduler.outcomes_told == scheduler.store.outcomes
    assert moving.close_gap(scheduler) == 1 and believed(scheduler) == believed(moving.scheduler)
    assert moving.close_gap(scheduler) == 0


def test_movements_that_a_rewind_took_back_are_no_gap_and_those_after_it_are(moving):
    rewind = training_pb2.Rewind(epoch=2, to_step=3, version=5)
    moving.write([("steps", "run", rewind), step(4, ["p1"], epoch=1), step(4, ["p1"], epoch=2)])
    moving.handle()
    whole = build(SpoTracker())
    whole.restore(noun for topic, key, noun in moving.sent if topic == "posterior")
    assert moving.close_gap(whole) == 0 and believed(whole) == believed(moving.scheduler)
    assert moving.close_gap(without_newest(moving, "p1")) == 1


def test_a_movement_that_was_not_read_yet_is_no_gap(moving):
    moving.write([step(5, ["p1"])])
    whole = build(SpoTracker())
    whole.restore(noun for topic, key, noun in moving.sent if topic == "posterior")
    assert moving.close_gap(whole) == 0


def test_a_lost_movement_is_refused_where_retention_has_eaten_the_inputs(moving):
    topic = NAMES.topic("verdicts")
    moving.log.trim(topic, read_all(moving.log, topic)[0].partition, 1)
    with pytest.raises(UserError, match="lacks 1 movements, and retention has eaten what verdicts held"):
        moving.close_gap(without_newest(moving, "p3"))


def test_it_is_refused_where_retention_has_eaten_the_inputs(place):
    topic = NAMES.topic("verdicts")
    partition = read_all(place.log, topic)[0].partition
    place.log.trim(topic, partition, 1)
    with pytest.raises(UserError) as caught:
        place.close_gap(place.restored(lost=("p2",)))
    said = f"retention has eaten what verdicts held before offset 1 of partition {partition}"
    assert "lacks 3 outcomes" in str(caught.value) and said in str(caught.value) and "a new run" in str(caught.value)


def test_retention_alone_is_no_gap(place):
    place.log.trim(NAMES.topic("verdicts"), read_all(place.log, NAMES.topic("verdicts"))[0].partition, 1)
    assert place.close_gap(place.restored()) == 0


def test_without_the_gates_record_it_is_refused(place):
    with pytest.raises(UserError, match="lacks the gate's record and outcomes were observed"):
        place.close_gap(place.restored(lost=(GATE_KEY,)))


def test_a_new_run_has_no_gap(tmp_path):
    log = open_log(str(tmp_path / "new.db"))
    topics.create(log, NAMES, local=True)
    assert close_gap(build(), log, NAMES, GROUP) == 0
    log.close()
