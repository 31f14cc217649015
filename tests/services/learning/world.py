"""A small run on a real embedded log: difficulty, generation and verification as one seeded actor, and a plain trainer.

The learner is the real one. `World.run` drives it as the stage does and may kill it before or after any transaction.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline import records, topics
from pipeline.digest import rollout_sha256
from pipeline.gate import Gate
from pipeline.log.api import read_all
from pipeline.log.embedded import EmbeddedLog
from pipeline.stage import Decoded
from pipeline.topics import Names
from services.learning.assembler import Assembler
from services.learning.handler import LearningHandler, Settings
from services.learning.replay.fifo import Fifo
from sluice.v1 import control_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2, weights_pb2

NAMES = Names("sluice", "world")
Ending, Verdict = rollout_pb2.Ending, rollout_pb2.VerdictOutcome


class Killed(Exception):
    """The learner's process died here."""


@dataclass
class Result:
    """What a plain step did."""

    uses: list
    dropped: list
    metrics: dict = field(default_factory=dict)
    shifts: list = field(default_factory=list)
    skipped: str = ""


@dataclass
class PlainTrainer:
    """Weights that count what was trained on. Leaves out members whose last token is 13; refuses groups of all 0."""

    policy: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.float32))
    steps: int = 0
    skip_at: int = -1
    seen: list = field(default_factory=list)
    """(rollout, verdict) pairs trained on in this process."""

    def refuses(self, group):
        return "degenerate_group" if all(member.rollout.calls[0].tokens[0] == 0 for member in group.members) else ""

    def step(self, groups, version):
        members = [member for group in groups for member in group.members]
        if self.steps + 1 == self.skip_at:
            self.skip_at = -1
            return Result([], [(member, "nan_step") for member in members], skipped="nan_step")
        self.steps += 1
        left_out = [member for member in members if member.rollout.calls[0].tokens[-1] == 13]
        used = [member for member in members if member not in left_out]
        self.seen += [(member.rollout, member.verdict) for member in used]
        self.policy = self.policy + np.float32(len(used))
        uses = [training_pb2.Use(key=m.rollout.key, use=m.use, lag=version - m.min_version, weight=1.0) for m in used]
        return Result(uses, [(member, "selected_out") for member in left_out], {"loss": 1.0 / self.steps})

    def state(self):
        return {"model": {"policy": self.policy}, "trainer": {"steps": self.steps}}

    def load_state(self, state):
        self.policy, self.steps = state["model"]["policy"], state["trainer"]["steps"]

    def weights(self):
        yield "policy", self.policy


@dataclass
class World:
    """The log, and everybody but the learner. `seed` decides what they do; `open_requests` bounds what is in flight."""

    root: Path
    seed: int = 0
    open_requests: int = 12
    grace_ms: int = 5_000
    deadline_ms: int = 20_000
    settings: Settings = Settings(steps=8, batch_groups=3, max_lag=2, checkpoint_every=3, notice_every_ms=0)
    replay: Fifo = field(default_factory=Fifo)
    now_ms: int = field(init=False)
    issued: int = field(init=False, default=0)
    kills: int = field(init=False, default=0)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.log = EmbeddedLog(str(self.root / "log.sqlite"))
        topics.create(self.log, NAMES, local=True)
        self.writer = self.log.writer(NAMES.own("others"))
        self.now_ms = int(1e12)
        self.written_ms: dict = {}
        self.todo: deque = deque()
        self.unchecked: deque = deque()
        self.trainer = PlainTrainer()
        self.handler: LearningHandler | None = None

    # The others.

    def write(self, *nouns):
        """One transaction of nouns: (topic, key, noun)."""
        with self.writer.transaction() as transaction:
            transaction.sends += [records.encode(NAMES.topic(topic), key, noun) for topic, key, noun in nouns]
        self.written_ms |= dict.fromkeys(transaction.written, self.now_ms)

    def held(self, topic):
        """Nouns of a topic."""
        return [records.decode(record) for record in read_all(self.log, NAMES.topic(topic)) if record.value]

    def places(self):
        """Places that the real gate still holds after it has followed the whole run."""
        gate = Gate(max_lag=1000, batch_rollouts=1000)
        for request in self.held("requests"):
            gate.issue(request.request_id, request.n, request.first_index, request.prompt_id, request.deadline_ms)
        apply = {
            training_pb2.TrainStep: gate.apply_step,
            training_pb2.DropNotice: gate.apply_drops,
            training_pb2.Rewind: gate.rewind,
        }
        for noun in self.held("steps"):
            apply[type(noun)](noun)
        return gate.outstanding

    def issue(self):
        """Difficulty asks for one group, of one or two requests."""
        sizes = self.random.choice([[2], [3], [1, 2], [1]])
        group = f"g-{self.issued:04d}"
        for number, n in enumerate(sizes):
            self.issued += 1
            request = prompt_pb2.RolloutRequest(
                request_id=f"r-{self.issued:08d}",
                group_id=group,
                prompt_id=f"p-{self.random.randrange(6)}",
                n=n,
                first_index=sum(sizes[:number]),
                final=number == len(sizes) - 1,
                deadline_ms=self.now_ms + self.deadline_ms,
                belief=prompt_pb2.Belief(mean=0.5),
            )
            gate = posterior_pb2.GateState(issued_requests=self.issued)
            self.write(("requests", request.request_id, request), ("posterior", "gate", gate))
            self.todo.append(request)

    def generate(self):
        """Generation does one request: maybe twice, maybe not at all, maybe badly."""
        if not self.todo:
            return
        request = self.todo.popleft()
        for attempt in range(1, self.random.choice([0, 1, 1, 1, 1, 1, 2, 3]) + 1):
            said = [self.say(request, request.first_index + number, attempt) for number in range(request.n)]
            self.write(*(("rollouts", one.prompt_id, one) for one in said))
            self.unchecked += said

    def say(self, request, index, attempt):
        manifests = self.held("weights-manifest")
        version = max(1, (manifests[-1].version if manifests else 1) - self.random.choice([0, 0, 0, 1, 1, 4]))
        ending = self.random.choice([Ending.ENDING_STOP] * 9 + [Ending.ENDING_FAILED, Ending.ENDING_ABORTED])
        tokens = [self.random.randrange(6), attempt, self.random.choice([7] * 9 + [13])]
        said = rollout_pb2.Rollout(
            key=rollout_pb2.RolloutKey(request_id=request.request_id, index=index, attempt=attempt),
            prompt_id=request.prompt_id,
            calls=[rollout_pb2.Call(tokens=tokens, spans=[rollout_pb2.Span(version=version)])],
            ending=ending,
            reason="engine" if ending == Ending.ENDING_FAILED else "",
        )
        said.sha256 = rollout_sha256(said)
        return said

    def verify(self):
        """Verification checks one rollout."""
        if not self.unchecked:
            return
        said = self.unchecked.popleft()
        outcome = self.random.choice([1, 1, 1, 2, 2, 4, 7])
        if said.ending != Ending.ENDING_STOP:
            outcome = Verdict.VERDICT_OUTCOME_NOT_RUN
        found = rollout_pb2.Verdict(key=said.key, rollout_sha256=said.sha256, prompt_id=said.prompt_id, outcome=outcome)
        self.write(("verdicts", said.prompt_id, found))

    def others(self, draining):
        """A moment of everybody else's work."""
        standing = self.handler.assembler.standing() if self.handler else {}
        fresh = sum(not held.uses for held in self.handler.buffer)
        if not draining and standing.get("groups_waiting", 0) + fresh < self.open_requests:
            self.issue()
        for _ in range(self.random.randrange(4)):
            self.generate()
        for _ in range(self.random.randrange(8)):
            self.verify()
        self.now_ms += 500

    # The learner.

    def born(self):
        """A new learner process. Its trainer remembers nothing but what it was trained on."""
        self.trainer = PlainTrainer(seen=self.trainer.seen, skip_at=self.trainer.skip_at)
        self.handler = LearningHandler(
            self.log,
            NAMES,
            self.root / "checkpoints",
            self.trainer,
            self.replay,
            Assembler(min_group=1, grace_ms=self.grace_ms),
            self.settings,
        )
        self.learner = self.log.writer(NAMES.own("learning"))

    def commit(self, transactions, kill: Callable[[list], str]):
        """Write what the learner yields; `kill` says "before" or "after" to die around a transaction."""
        written = None
        while True:
            try:
                sends = next(transactions) if written is None else transactions.send(written)
            except StopIteration:
                return
            word = kill(sends)
            if word == "before":
                raise Killed
            with self.learner.transaction() as transaction:
                transaction.sends += sends
            written = transaction.written
            if word == "after":
                raise Killed

    def run(self, kill=lambda sends: "", stop_at=None, moments=3000):
        """Let the run go to its end. Killed learners are born again at once."""
        for _ in range(moments):
            try:
                if self.live(kill, stop_at):
                    return self
            except Killed:
                self.kills += 1
        raise AssertionError(f"not finished: {self.handler.assembler.standing()}, step {self.handler.step}")

    def live(self, kill, stop_at):
        """One life of the learner; True when the run has finished."""
        self.born()
        handler = self.handler
        self.commit(handler.start(), kill)
        follower = self.log.follow(handler.offsets())
        try:
            for _ in range(3000):
                self.others(bool(handler.draining))
                if handler.draining:
                    handler.drained(self.issued)
                if stop_at is not None and handler.step >= stop_at:
                    handler.stop()
                found = [self.on_time(record) for record in follower.poll(0.0, self.random.choice([3, 50, 500]))]
                nouns = [Decoded(record, records.decode(record)) for record in found]
                self.commit(handler(nouns, self.now_ms), kill)
                if handler.finished:
                    phase = control_pb2.Control(phase=control_pb2.PHASE_FINISHED)
                    self.write(("control", "run", phase))
                    return True
        finally:
            follower.close()
        return False

    def on_time(self, record):
        """The record as if it had been written by the world's clock."""
        place = (record.topic, record.partition, record.offset)
        return record._replace(timestamp_ms=self.written_ms[place])


def kinds(sends):
    """Which nouns a transaction writes, in order, each once.

    >>> kinds([])
    []
    """
    return list(dict.fromkeys(dict(send.headers)["schema"].decode().partition("/")[0] for send in sends))


__all__ = ["NAMES", "Killed", "PlainTrainer", "Result", "World", "kinds", "weights_pb2"]
