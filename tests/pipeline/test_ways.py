"""The one loop, on a real embedded log: what becomes of good, poisonous, failing and refused records."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipeline import records
from pipeline.errors import Fenced, Lost, OwnFault, Poison, Retryable
from pipeline.life import Life
from pipeline.log import Log, Send
from pipeline.log.api import read_all
from pipeline.metrics import Meter
from pipeline.stage import Output, Stage
from pipeline.topics import Names
from pipeline.ways import run_batch, run_concurrent, run_follow
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2

NAMES = Names("sluice", "test")


def stage_on(log: Log) -> Stage:
    return Stage("verification", "worker-0", log, NAMES, Meter("verification", "worker-0"), Life())


def put(log: Log, *sends: Send) -> None:
    writer = log.writer("test.put")
    with writer.transaction() as transaction:
        transaction.sends.extend(sends)
    writer.close()


def rollout(request_id: str) -> Send:
    noun = rollout_pb2.Rollout(key=rollout_pb2.RolloutKey(request_id=request_id, attempt=1), prompt_id="p")
    return records.encode(NAMES.topic("rollouts"), "p", noun)


def nouns(log: Log, topic: str) -> list:
    return [records.decode(record) for record in read_all(log, NAMES.topic(topic))]


def until(stage: Stage, condition: Callable[[], bool], run: Callable[[], None], seconds: float = 20.0) -> None:
    """Run the stage in a thread until the condition holds, then end it."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    deadline = time.monotonic() + seconds
    while not condition() and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    stage.life.stop()
    thread.join(10)
    assert not thread.is_alive()
    if failures:
        raise failures[0]
    assert condition()


@dataclass
class Verifier:
    """Answers every rollout; fails as told, by request id."""

    fail: dict[str, list[Exception]] = field(default_factory=dict)
    tick_s: float = 0.05
    restores: int = 0
    ended: list[str] = field(default_factory=list)

    def restore(self) -> None:
        self.restores += 1

    def __call__(self, nouns, offsets) -> list[Output]:
        out = []
        for noun in nouns:
            failures = self.fail.get(noun.key.request_id, [])
            if failures:
                raise failures.pop(0)
            out.append(Output("verdicts", "p", rollout_pb2.Verdict(key=noun.key)))
        return out

    def poison(self, ids, reason) -> list[Output]:
        self.ended.append(ids.get("request_id", ""))
        return []

    def waiting_for(self) -> str:
        return "rollouts"

    def idle(self) -> bool:
        return True


def run_verifier(log: Log, verifier: Verifier, expected: int, **kwargs) -> Stage:
    stage = stage_on(log)
    until(
        stage,
        lambda: len(nouns(log, "verdicts")) + len(nouns(log, "dead-letters")) >= expected,
        lambda: run_batch(stage, verifier, ["rollouts"], "verification", "verification.0"),
        **kwargs,
    )
    return stage


def answered(log: Log) -> list[str]:
    return sorted(verdict.key.request_id for verdict in nouns(log, "verdicts"))


def test_every_record_of_a_batch_is_answered_once(log):
    put(log, *(rollout(f"r{i}") for i in range(20)))
    run_verifier(log, Verifier(), 20)
    assert answered(log) == sorted(f"r{i}" for i in range(20))
    assert log.backlog(NAMES.own("verification"), NAMES.topic("rollouts")) == 0


def test_a_record_that_does_not_decode_is_dead_lettered_with_its_bytes_and_ended_by_its_ids(log):
    broken = rollout("broken")
    put(log, rollout("good"), Send(broken.topic, broken.key, b"\xff\xff\xff", broken.headers))
    verifier = Verifier()
    run_verifier(log, verifier, 2)
    (letter,) = nouns(log, "dead-letters")
    assert letter.value == b"\xff\xff\xff" and "does not decode" in letter.reason and letter.service == "verification"
    assert answered(log) == ["good"] and verifier.ended == ["broken"]


def test_a_record_of_a_newer_major_version_is_refused(log):
    send = rollout("newer")
    headers = tuple((k, b"Rollout/2.0" if k == "schema" else v) for k, v in send.headers)
    put(log, Send(send.topic, send.key, send.value, headers))
    run_verifier(log, Verifier(), 1)
    (letter,) = nouns(log, "dead-letters")
    assert "'2.0'" in letter.reason


def test_one_poisonous_record_costs_only_itself(log):
    put(log, *(rollout(f"r{i}") for i in range(5)))
    run_verifier(log, Verifier(fail={"r3": [Poison("no")] * 9}), 5)
    assert answered(log) == ["r0", "r1", "r2", "r4"]


def test_a_failure_that_passes_is_tried_again(log):
    put(log, rollout("r0"), rollout("r1"))
    run_verifier(log, Verifier(fail={"r1": [Retryable("later"), Retryable("later")]}), 2)
    assert answered(log) == ["r0", "r1"] and not nouns(log, "dead-letters")


def test_a_failure_that_does_not_pass_is_dead_lettered_after_a_bound(log):
    put(log, rollout("r0"))
    run_verifier(log, Verifier(fail={"r0": [Retryable("never")] * 99}), 1)
    (letter,) = nouns(log, "dead-letters")
    assert letter.reason == "never" and letter.attempts == 5


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOSPC, "no room"), MemoryError(), OwnFault("a sampler's bug")],
    ids=["disk", "memory", "own"],
)
def test_what_ails_the_machine_or_the_service_ends_the_process_and_costs_no_record(log, fault):
    put(log, rollout("r0"), rollout("r1"))
    with pytest.raises(type(fault)):
        run_verifier(log, Verifier(fail={"r1": [fault] * 9}), 2)
    assert not nouns(log, "dead-letters") and not answered(log)
    run_verifier(log, Verifier(), 2)
    assert answered(log) == ["r0", "r1"]


def test_a_file_that_only_one_record_needs_is_that_records_dead_letter(log):
    put(log, rollout("r0"), rollout("r1"))
    run_verifier(log, Verifier(fail={"r0": [FileNotFoundError(errno.ENOENT, "no such file")] * 9}), 2)
    assert answered(log) == ["r1"] and len(nouns(log, "dead-letters")) == 1


def test_a_bug_that_one_record_sets_off_is_that_records_dead_letter(log):
    put(log, rollout("r0"), rollout("r1"))
    run_verifier(log, Verifier(fail={"r0": [KeyError("bug")] * 9}), 2)
    (letter,) = nouns(log, "dead-letters")
    assert letter.error == "KeyError" and answered(log) == ["r1"]


def test_a_transaction_that_is_fenced_is_handled_again_and_answered_once(log):
    class FencedOnce:
        def __init__(self, writer):
            self.writer, self.left = writer, 1

        def transaction(self):
            if self.left:
                self.left -= 1
                raise Fenced("another member holds the partition")
            return self.writer.transaction()

        def close(self):
            self.writer.close()

    put(log, rollout("r0"))
    stage, verifier = stage_on(log), Verifier()
    open_writer = stage.open

    def open_fenced(name):
        stage.writer = FencedOnce(open_writer(name))
        return stage.writer

    stage.open = open_fenced
    until(stage, lambda: len(nouns(log, "verdicts")) == 1, lambda: run_batch(stage, verifier, ["rollouts"], "g", "w"))
    assert answered(log) == ["r0"] and verifier.restores == 2


@dataclass
class Sampler:
    """Finishes requests in the order it is told; keeps `slots` at most."""

    order: Callable[[list], list]
    slots: int = 100
    waiting: list = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    @dataclass
    class Done:
        token: tuple
        outputs: list[Output]

    def room(self) -> int:
        return self.slots - len(self.waiting)

    def take(self, request, token) -> None:
        self.waiting.append((request, token))
        self.taken.append(request.request_id)

    def done(self, timeout) -> list:
        ready = self.order(self.waiting)
        self.waiting = [one for one in self.waiting if one not in ready]
        time.sleep(0.001)
        return [self.Done(token, [Output("rollouts", "p", self._said(request))]) for request, token in ready]

    def _said(self, request):
        return rollout_pb2.Rollout(key=rollout_pb2.RolloutKey(request_id=request.request_id, attempt=1), prompt_id="p")

    def poison(self, ids, reason) -> list[Output]:
        return [Output("rollouts", "p", rollout_pb2.Rollout(key=rollout_pb2.RolloutKey(request_id=ids["request_id"])))]

    def waiting_for(self) -> str:
        return "requests"

    def drain(self, end_now: bool) -> None:
        pass


def request(name: str) -> Send:
    return records.encode(NAMES.topic("requests"), name, prompt_pb2.RolloutRequest(request_id=name, n=1))


def test_requests_that_finish_out_of_order_are_all_committed(log):
    put(log, *(request(f"r{i}") for i in range(40)))
    stage, sampler = stage_on(log), Sampler(order=lambda waiting: waiting[-3:], slots=10)
    until(
        stage,
        lambda: len(nouns(log, "rollouts")) == 40 and log.backlog(NAMES.own("g"), NAMES.topic("requests")) == 0,
        lambda: run_concurrent(stage, sampler, ["requests"], "g", "w"),
    )
    assert sorted(r.key.request_id for r in nouns(log, "rollouts")) == sorted(f"r{i}" for i in range(40))


def test_an_unfinished_request_is_not_committed_and_comes_again_in_the_next_process(log):
    put(log, *(request(f"r{i}") for i in range(8)))
    stuck = Sampler(order=lambda waiting: [one for one in waiting if one[0].request_id != "r0"])
    stage = stage_on(log)
    until(stage, lambda: len(nouns(log, "rollouts")) == 7, lambda: run_concurrent(stage, stuck, ["requests"], "g", "w"))
    again = Sampler(order=lambda waiting: list(waiting))
    stage = stage_on(log)
    until(
        stage,
        lambda: "r0" in {r.key.request_id for r in nouns(log, "rollouts")},
        lambda: run_concurrent(stage, again, ["requests"], "g", "w"),
    )
    assert "r0" in again.taken


def test_a_request_that_does_not_decode_is_answered_from_its_headers(log):
    good = request("r0")
    put(log, Send(good.topic, good.key, b"\xff", good.headers))
    stage, sampler = stage_on(log), Sampler(order=lambda waiting: list(waiting))
    until(stage, lambda: bool(nouns(log, "rollouts")), lambda: run_concurrent(stage, sampler, ["requests"], "g", "w"))
    assert nouns(log, "rollouts")[0].key.request_id == "r0" and len(nouns(log, "dead-letters")) == 1


def test_a_request_that_the_handler_refuses_is_dead_lettered_and_the_others_go_on(log):
    class Choosy(Sampler):
        def take(self, request, token) -> None:
            if request.request_id == "r1":
                raise Poison("not for me")
            super().take(request, token)

    put(log, *(request(f"r{i}") for i in range(3)))
    stage, sampler = stage_on(log), Choosy(order=lambda waiting: list(waiting))
    until(
        stage, lambda: len(nouns(log, "rollouts")) == 3, lambda: run_concurrent(stage, sampler, ["requests"], "g", "w")
    )
    (letter,) = nouns(log, "dead-letters")
    assert letter.reason == "not for me" and sorted(sampler.taken) == ["r0", "r2"]


class Learner:
    """Says of every verdict where it was written, to show that a generator is told."""

    def __init__(self, log: Log, offsets: dict) -> None:
        self.log, self.where, self.finished = log, offsets, False
        self.written: list = []

    def start(self):
        self.written += yield [records.encode(NAMES.topic("control"), "a", control_pb2.Control(by="start"))]

    def offsets(self):
        return self.where

    def __call__(self, found, now_ms):
        for _ in found:
            self.written += yield [records.encode(NAMES.topic("control"), "a", control_pb2.Control(by="one"))]

    def poison(self, ids, reason) -> None:
        self.written.append(ids["request_id"])

    def waiting_for(self) -> str:
        return "verdicts"


def test_a_follower_is_told_where_each_transaction_was_written(log):
    put(log, rollout("r0"), rollout("r1"))
    learner = Learner(log, {(NAMES.topic("rollouts"), p): 0 for p in range(log.partitions(NAMES.topic("rollouts")))})
    stage = stage_on(log)
    until(stage, lambda: len(learner.written) == 3, lambda: run_follow(stage, learner, "learning", lambda: 0.05))
    assert [offset for _, _, offset in learner.written] == sorted(offset for _, _, offset in learner.written)


def test_a_follower_below_retention_is_an_error_that_says_so(log):
    put(log, *(rollout(f"r{i}") for i in range(5)))
    partition = read_all(log, NAMES.topic("rollouts"))[0].partition
    log.trim(NAMES.topic("rollouts"), partition, 3)
    learner = Learner(log, {(NAMES.topic("rollouts"), partition): 0})
    stage = stage_on(log)
    with pytest.raises(Lost, match="rollouts"):
        until(stage, lambda: False, lambda: run_follow(stage, learner, "learning", lambda: 0.05), seconds=5)
