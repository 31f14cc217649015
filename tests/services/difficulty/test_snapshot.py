"""The local snapshot over the real embedded log: a restart from it knows what the whole topic says, bit for bit."""

import hashlib
import json

import pytest

from pipeline import records, topics
from pipeline.errors import UserError
from pipeline.gate import Gate
from pipeline.log import open_log
from pipeline.log.api import read_batches
from pipeline.topics import Names
from services.difficulty import snapshot
from services.difficulty.budget.fixed import Fixed
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.ema import Ema
from services.difficulty.handler import Handler
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

NAMES = Names("test", "run")


def build(folder, estimate=None):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    path = folder / "prompts.bin"
    return Scheduler(estimate or Beta(), VadeThompson(), Fixed(4), Gate(1, 16), sampling, texts_path=path)


def prompt(number):
    part = prompt_pb2.Part(text=f"question {number}")
    messages = [prompt_pb2.Message(role="user", parts=[part])]
    return prompt_pb2.Prompt(prompt_id=f"p{number}", digest=b"d", messages=messages, domain=f"d{number % 3}")


class Place:
    """A scheduler, the log that it writes to, and a snapshot in mid-run."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / "snapshot.bin"
        self.log = open_log(str(folder / "log.db"))
        topics.create(self.log, NAMES, local=True)
        self.writer = self.log.writer("difficulty")
        self.scheduler = build(folder)
        self.handler = Handler(self.scheduler, now_ms=lambda: 0)
        self.number = 0

    def play(self, nouns):
        sent = self.handler(nouns)
        with self.writer.transaction() as transaction:
            transaction.sends.extend(records.encode(NAMES.topic(topic), key, noun) for topic, key, noun in sent)
        self.scheduler.committed()
        return [noun for topic, _, noun in sent if topic == "requests"]

    def step(self, requests):
        self.number += 1
        seen = [
            rollout_pb2.Verdict(prompt_id=r.prompt_id, accuracy=((self.number + i) % 4) / 3, outcome=1, purpose=1)
            for r in requests
            for i in range(4)
        ]
        ended = [r.request_id for r in requests]
        done = training_pb2.TrainStep(epoch=1, step=self.number, version=self.number, ended_requests=ended)
        return self.play([*seen, done])

    def covers(self):
        return {p: end for p, (_, end) in self.log.bounds(NAMES.topic("posterior")).items()}

    def snapshot(self):
        (written,) = list(snapshot.write(self.path, self.copy()))
        return written

    def copy(self):
        return snapshot.take(self.scheduler, self.covers(), {0: 7})

    def newer(self, since=None):
        found = read_batches(self.log, NAMES.topic("posterior"), since)
        return [records.decode(record) for batch in found for record in batch]


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    requests = place.play([prompt(number) for number in range(40)])
    for _ in range(3):
        requests = place.step(requests)
    place.written = place.snapshot()
    for _ in range(3):
        requests = place.step(requests)
    yield place
    place.writer.close()
    place.log.close()


def everything(scheduler):
    known = {prompt_id: scheduler.posterior(prompt_id).SerializeToString(deterministic=True) for prompt_id in
             sorted(scheduler.store.rows)}  # fmt: skip
    return known, scheduler.gate.to_record()


def test_from_the_snapshot_and_what_came_after_it_is_what_the_whole_topic_says(place):
    again = build(place.folder)
    found = snapshot.read(place.path, again, place.covers())
    newer = place.newer(found.covers)
    again.replay(newer)
    (place.folder / "other").mkdir()
    whole = build(place.folder / "other")
    whole.observe([prompt(number) for number in range(40)])
    whole.restore(place.newer())
    assert everything(again) == everything(whole) == everything(place.scheduler)
    assert 0 < len(newer) < len(place.newer()) and found.prompts == {0: 7}
    assert again.prompts["p7"].messages == prompt(7).messages and len(again.prompts) == 40
    assert again.issue(0) == place.scheduler.issue(0)
    assert (again.view().all().history.domain_P == place.scheduler.view().all().history.domain_P).all()


def test_what_is_written_says_how_much_it_is(place):
    assert (place.written.prompts, place.written.size_bytes) == (40, place.path.stat().st_size)
    assert place.path.read_bytes()[-32:] == place.written.sha256


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "ahead", "texts", "other", "knobs"])
def test_a_snapshot_that_cannot_be_trusted_is_left_alone(place, harm):
    content, ends = bytearray(place.path.read_bytes()), place.covers()
    scheduler = build(place.folder, {"other": Ema(), "knobs": Beta(prior_alpha=0.1)}.get(harm))
    if harm == "flip":
        content[len(content) // 2] ^= 1
    if harm == "cut":
        del content[-100:]
    if harm == "empty":
        content.clear()
    if harm == "ahead":
        ends = dict.fromkeys(ends, 0)
    if harm == "texts":
        (place.folder / "prompts.bin").write_bytes(b"")
    place.path.write_bytes(bytes(content))
    assert snapshot.read(place.path, scheduler, ends) is None
    assert len(scheduler.store) == 0


def test_no_byte_of_its_head_may_be_another(place, caplog):
    caplog.set_level("ERROR")
    content, scheduler, ends = place.path.read_bytes(), build(place.folder), place.covers()
    head = content.index(b"\n") + 1
    assert content[:11] == b'{"schema": ' and head > 500
    for at in range(head):
        for bits in (3, 8):  # "estimate" becomes "estimatf", schema "1.0" becomes "9.0"
            changed = bytes([content[at] ^ bits])
            place.path.write_bytes(content[:at] + changed + content[at + 1 :])
            assert snapshot.read(place.path, scheduler, ends) is None, (at, changed)
    assert len(scheduler.store) == 0
    place.path.write_bytes(content)
    assert snapshot.read(place.path, scheduler, ends).prompts == {0: 7}


def test_a_newer_major_version_is_refused(place):
    head, _, rest = place.path.read_bytes().partition(b"\n")
    newer = json.dumps(json.loads(head) | {"schema": "2.0"}).encode() + b"\n" + rest[:-32]
    place.path.write_bytes(newer + hashlib.sha256(newer).digest())
    with pytest.raises(UserError, match="has schema '2.0'; accepted: major 1 or older"):
        snapshot.read(place.path, build(place.folder), place.covers())


def test_what_comes_after_the_copy_is_not_in_the_snapshot(place):
    place.scheduler.store.checkpoint_step = -1  # every outcome from here on is written down in a journal
    requests = place.step(place.step(list(place.scheduler.issue(0))))
    known, copied = everything(place.scheduler), place.copy()
    journals = {row: list(journal.changes) for row, journal in place.scheduler.store.journals.items()}
    assert journals
    place.play([prompt(40)])
    place.step(requests)
    assert everything(place.scheduler) != known
    assert [written.prompts for written in snapshot.write(place.path, copied)] == [40]
    again = build(place.folder)
    assert snapshot.read(place.path, again, place.covers()).covers == copied.covers
    # Step and outcomes are the service's own and come with the gate's record, as they were at the copy.
    assert everything(again) == known
    assert {row: journal.changes for row, journal in again.store.journals.items()} == journals
    assert len(again.prompts) == 40 and again.prompts["p39"].messages == prompt(39).messages


def test_a_writer_that_stops_before_the_rename_leaves_the_old_one(place):
    before = place.path.read_bytes()
    writing = snapshot.write(place.path, place.copy())
    next(writing)
    writing.close()
    assert place.path.read_bytes() == before
    assert snapshot.read(place.path, build(place.folder), place.covers()).prompts == {0: 7}
