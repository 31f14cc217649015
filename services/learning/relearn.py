"""The learner on a recorded stream: the same assembler, replay, trainer and ledger as in a run, without the run.

    stream -> assembler -> [shuffle] -> buffer -> replay -> trainer -> [TrainStep] ... -> [Checkpoint, Outcomes]

One process, one pass. Every group is offered as soon as it closes in the recorded order, so a step sees what it could
have seen; what is left when the stream or the steps end is dropped ("run_finished"). Weights stay in memory until the
end: nobody samples from them. See `pipeline/relearn.py` for what staleness means here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import Message

from pipeline import parts, records, relearn
from pipeline.errors import Poison
from pipeline.log.api import Log, Record
from pipeline.recipe import compose
from pipeline.rundir import RunDir
from pipeline.scalars import Scalars
from pipeline.view import View
from services.learning import checkpoint, outgoing
from services.learning.assembler import Assembler
from services.learning.ended import counted
from services.learning.export import export
from services.learning.ledger import Ledger
from services.learning.replay import Held, Replay
from services.learning.service import trainer_of
from services.learning.settle import settle, take_unreadable
from services.learning.trainer_api import Trainer
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2, training_pb2

NO_BOUND = 1 << 60
"""As a lag and as a time: what was recorded is never too old to be used once, and every deadline has passed."""
BLOCK = 4
"""Batches that a seed shuffles together."""


@dataclass(frozen=True)
class Found:
    """What came of it. `metrics`: of the last step."""

    steps: int
    seconds: float
    metrics: dict[str, float]


@dataclass
class Relearner:
    """Records in, nouns out. `steps`: optimiser steps at most. `order`: None keeps the recorded order of groups."""

    trainer: Trainer
    replay: Replay
    assembler: Assembler
    batch_groups: int
    steps: int
    order: random.Random | None = None
    version: int = 0
    """The record's clock: the newest version that the stream has shown."""
    step: int = 0
    ledger: Ledger = field(default_factory=lambda: Ledger(epoch=1))
    buffer: list[Held] = field(default_factory=list)
    block: list[Held] = field(default_factory=list)

    def take(self, noun: Message, record: Record, topic: str) -> Iterator[training_pb2.TrainStep]:
        """One record of the stream; the steps that it makes possible."""
        if isinstance(noun, prompt_pb2.RolloutRequest):
            noun.deadline_ms = noun.deadline_ms or 1  # what never came is known at the end of the stream
        elif isinstance(noun, rollout_pb2.Rollout):
            seen = (span.version for call in noun.calls for span in call.spans)
            self.version = max([self.version, *seen])
        self.assembler.add(noun, (topic, record.partition, record.offset), record.timestamp_ms)
        yield from self._learn(flush=False)

    def end(self) -> Iterator[training_pb2.TrainStep]:
        """The stream is over: what never came has expired, what is left and cannot fill a batch is dropped."""
        self.assembler.expire(NO_BOUND)
        yield from self._learn(flush=True)
        self._stop()
        self.ledger.enter(self.assembler.ends())

    def _learn(self, flush: bool) -> Iterator[training_pb2.TrainStep]:
        self._collect(flush)
        while self.step < self.steps and (batch := self._sweep()):
            yield self._train(batch)
        if self.step >= self.steps:
            self._stop()

    def _stop(self) -> None:
        self.buffer, self.block = [], []
        self.assembler.drain("run_finished")

    def _collect(self, flush: bool) -> None:
        for group in self.assembler.closed():
            reason = self.trainer.refuses(group)
            if reason:
                self._end([Held.of(group)], reason)
            else:
                self.block.append(Held.of(group))
        if self.order is None or flush or len(self.block) >= BLOCK * self.batch_groups:
            if self.order is not None:
                self.order.shuffle(self.block)
            self.buffer += self.block
            self.block = []
        self.ledger.enter(self.assembler.ends())

    def _sweep(self) -> list[Held]:
        choice = self.replay.choose(self.buffer, self.version, self.batch_groups, NO_BOUND)
        self._end([*choice.stale, *choice.retired], "stale")
        self._end(choice.refilled, "degenerate_group")
        self.ledger.enter(self.assembler.ends())
        self.buffer = list(choice.kept)
        return list(choice.batch)

    def _end(self, ended: Sequence[Held], reason: str) -> None:
        for held in ended:
            for member in held.group.members:
                self.assembler.end(member.name, reason)

    def _train(self, batch: list[Held]) -> training_pb2.TrainStep:
        begun = time.monotonic()
        result = self.trainer.step([held.next_use() for held in batch], self.version)
        self.step = self.ledger.step = self.step + 1
        self.buffer += settle(self.assembler, batch, result)
        self.ledger.enter(self.assembler.ends())
        # No token was sampled by the policy that is trained, so there is no gap between engine and trainer to measure.
        metrics = {name: value for name, value in result.metrics.items() if not name.startswith("logprob_gap")}
        return training_pb2.TrainStep(
            epoch=1,
            step=self.step,
            uses=result.uses,
            drops=self.ledger.tell(),
            metrics=metrics | {"stream_version": float(self.version)},
            computed_s=time.monotonic() - begun,
            ended_ms=int(time.time() * 1000),
        )


def train(directory: RunDir) -> Found:
    """Relearn as `directory` says (`pipeline.relearn.prepare` made it): its steps, outcomes, metrics and model."""
    begun = time.monotonic()
    origin, run = relearn.origin_of(directory), directory.run()
    assert origin is not None, "no relearn"
    recipe, base = compose(run), directory.folder("base")
    source = relearn.source_of(directory, origin)
    log = source.open_log()
    try:
        stream = relearn.stream(log, source.names())
    finally:
        log.close()
    relearn.write(directory, replace(origin, sha256=stream.sha256, records=stream.counts))
    trainer = trainer_of(run, recipe, base)
    relearner = Relearner(
        trainer,
        parts.load("learning.replay", recipe.replay.name, **recipe.replay.knobs),
        Assembler(min_group=recipe.min_group),
        run.learning.batch_groups,
        origin.steps or NO_BOUND,
        None if origin.seed is None else random.Random(origin.seed),
    )
    account = Account(directory, base)
    try:
        account.open()
        for record in stream.records:
            account.steps(_steps(relearner, record, source.names().short(record.topic)))
        account.steps(relearner.end())
        account.close(relearner, export(trainer.model, base, directory.folder("model")), stream.ends)
    finally:
        account.log.close()
    return Found(relearner.step, time.monotonic() - begun, account.metrics)


def _steps(relearner: Relearner, record: Record, topic: str) -> Iterator[training_pb2.TrainStep]:
    try:
        noun = records.decode(record)
    except Poison as error:
        take_unreadable(relearner.assembler, records.ids(record), str(error))
        return
    yield from relearner.take(noun, record, topic)


class Account:
    """What a relearn writes: steps as they are made, one checkpoint with every outcome at the end, metrics.jsonl."""

    def __init__(self, directory: RunDir, base: Path) -> None:
        self.base, self.names = base, directory.names()
        self.log: Log = directory.open_log()
        self.writer = self.log.writer(self.names.own("relearn"))
        self.scalars, self.view = Scalars(directory), View()
        self.metrics: dict[str, float] = {}

    def open(self) -> None:
        """The epoch begins at the model before the first step."""
        start = training_pb2.Checkpoint(epoch=1, serial=1, uri="base", sha256=checkpoint.digest(self.base))
        self._write(training_pb2.Rewind(epoch=1), start)

    def steps(self, steps: Iterator[training_pb2.TrainStep]) -> None:
        """Each step as it is made."""
        for step in steps:
            self._write(step)
            self.view.add(step)
            self.scalars.write(self.view)
            self.metrics = dict(step.metrics)

    def close(self, relearner: Relearner, model: Path, ends: dict[tuple[str, int], int]) -> None:
        """Name the model, with every outcome, and say that it has finished."""
        ledger = relearner.ledger
        notices = [ledger.notice()] if ledger.untold else []
        offsets = [training_pb2.Offset(topic=t, partition=p, offset=at) for (t, p), at in sorted(ends.items())]
        final = training_pb2.Checkpoint(
            epoch=1,
            serial=2,
            step=relearner.step,
            uri=model.name,
            sha256=checkpoint.digest(model),
            offsets=offsets,
            ended=counted(training_pb2.EndedCounts(), ledger.outcomes),
        )
        self._write(*notices, final, *ledger.named(final.serial))
        said = control_pb2.Control(
            phase=control_pb2.PHASE_FINISHED, reason="relearned", by="relearn", written_ms=int(time.time() * 1000)
        )
        with self.writer.transaction() as transaction:
            transaction.sends.append(records.encode(self.names.topic("control"), "run", said))
        self.scalars.close()
        self.writer.close()

    def _write(self, *nouns: Message) -> None:
        with self.writer.transaction() as transaction:
            transaction.sends += outgoing.sends(self.names, nouns)
