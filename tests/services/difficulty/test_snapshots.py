"""While a snapshot is on its way to the disk the door's readers do not wait, and what it says is what was copied."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pipeline import topics
from pipeline.data.prompt import GATE_KEY
from pipeline.gate import Gate
from pipeline.log import open_log
from pipeline.topics import Names
from services.difficulty import snapshot, snapshots
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from sluice.v1 import difficulty_pb2, prompt_pb2, rollout_pb2

NAMES = Names("test", "run")
WAIT_S = 10.0


def build(folder):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    return Scheduler(Beta(), Uniform(), Fixed(2), Gate(1, 4), sampling, texts_path=folder / "prompts.bin")


def verdict(prompt_id):
    return rollout_pb2.Verdict(prompt_id=prompt_id, outcome=1, accuracy=1.0, purpose=1)


class Place:
    """Ten prompts, one of them tried; a stage that only counts what it commits."""

    def __init__(self, folder):
        self.folder, self.log, self.committed = folder, open_log(str(folder / "log.db")), []
        topics.create(self.log, NAMES, local=True)
        scheduler = build(folder)
        scheduler.observe([prompt_pb2.Prompt(prompt_id=f"p{i}", digest=b"d") for i in range(10)])
        self.handler = Handler(scheduler, now_ms=lambda: 0)
        self.handler([verdict("p0")])
        stage = SimpleNamespace(encode=list, commit=lambda sends, offsets, reader: self.committed.append(sends))
        context = SimpleNamespace(log=self.log, names=NAMES, stage=stage)
        self.snapshots = snapshots.Snapshots(folder / "snapshot.bin", context, self.handler)

    def tick(self):
        self.snapshots.tick(lambda: {0: 10})

    def read(self):
        again = build(self.folder)
        return again, snapshot.read(self.snapshots.path, again, {0: 0, 1: 0, 2: 0, 3: 0})


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.log.close()


@pytest.fixture
def slow_disk(monkeypatch):
    """The disk takes what is written only when `go` is set; `waits` says that somebody waits for it."""
    disk, fsync = SimpleNamespace(waits=threading.Event(), go=threading.Event()), os.fsync

    def slowly(descriptor):
        disk.waits.set()
        assert disk.go.wait(WAIT_S)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slowly)
    yield disk
    disk.go.set()


def test_next_answers_while_the_disk_has_not_taken_the_snapshot(place, slow_disk):
    place.snapshots._due = 0.0
    door = Door(place.handler, lambda sent: None)
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(place.tick)
        assert slow_disk.waits.wait(WAIT_S)
        asked = threads.submit(door.Next, difficulty_pb2.NextRequest(n=10), None)
        assert len(asked.result(WAIT_S).choices) == 10 and not writing.done()
        assert not place.snapshots.path.exists() and place.committed == []
        slow_disk.go.set()
        writing.result(WAIT_S)
    assert [output.key for sends in place.committed for output in sends] == [GATE_KEY]
    assert place.read()[1].prompts == {0: 10}


def test_outcomes_that_come_while_it_is_written_are_not_in_it(place, slow_disk):
    place.snapshots._due = 0.0
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(place.tick)
        assert slow_disk.waits.wait(WAIT_S)
        place.handler([verdict("p0"), verdict("p1")])
        slow_disk.go.set()
        writing.result(WAIT_S)
    again, _ = place.read()
    assert [place.handler.scheduler.store.get(name).visits for name in ("p0", "p1")] == [2, 1]
    assert [again.store.get(name).visits for name in ("p0", "p1")] == [1, 0]
    assert again.store.outcomes == again.gate_record().outcomes == 1


def test_who_asks_while_one_is_written_gets_the_next_one(place, slow_disk):
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(place.snapshots.ask)
        while not place.snapshots._askers:
            pass
        writing = threads.submit(place.tick)
        assert slow_disk.waits.wait(WAIT_S)
        place.handler.scheduler.observe([prompt_pb2.Prompt(prompt_id="new", digest=b"d")])
        second = threads.submit(place.snapshots.ask)
        while len(place.snapshots._askers) < 2:
            pass
        slow_disk.go.set()
        writing.result(WAIT_S)
        assert first.result(WAIT_S).prompts == 10 and not second.done()
        place.tick()
        assert second.result(WAIT_S).prompts == 11
    place.tick()
    assert len(place.committed) == 2, "nobody asks any more, and the next is due in a minute"
