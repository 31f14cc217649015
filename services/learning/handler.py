"""The learner on the log: groups in; steps, weights, checkpoints and outcomes out. The edge around pure parts.

    assembler -> buffer -> replay -> trainer -> [chunks] -> [TrainStep, WeightManifest] -> [Checkpoint, Outcomes]

Each [..] is one transaction. A generator yields its records and is sent where they were written; a process killed
between any two of them begins again at the newest checkpoint that the log names: `start` opens a new epoch there, and
what older epochs did after it is void.

Versions count from 1: the first is the policy before any step, and 0 means that there is none yet.

    who waits          for what                             unblocked by
    the learner        a batch of groups                    generation and verification; deadlines
    a drain            every requested rollout's end        deadlines, at the latest
    the final record   a disk that takes the checkpoint     an operator; tried again every few seconds
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message

from pipeline.errors import LogUnavailable, Retryable, UserError
from pipeline.failpoint import reach
from pipeline.log.api import Log, Position, Send
from pipeline.stage import Decoded
from pipeline.topics import Names
from services.learning import checkpoint, outgoing, restore
from services.learning.assembler import Assembler
from services.learning.ended import counted, named_later
from services.learning.ends import drop_of
from services.learning.ledger import Ledger
from services.learning.publish import Plan, Publisher
from services.learning.read_clock import ReadClock
from services.learning.replay import Held, Replay
from services.learning.settle import settle, take_unreadable
from services.learning.trainer_api import StepResult, Trainer
from sluice.v1 import learning_pb2, training_pb2

logger = logging.getLogger(__name__)

Transactions = Generator[list[Send], list[tuple[str, int, int]], None]

FOLLOWED = ("requests", "rollouts", "verdicts")
LEARNER = "learner"
"""The checkpoint's shard that is ours; the others are the trainer's."""
TRY_AGAIN_S = 5.0
"""Between two tries at a checkpoint that the disk did not take."""
OUTCOMES_AT_MOST = 20_000
"""So many outcomes wait for the next checkpoint at most, also when every group is dropped and no step is made."""


@dataclass(frozen=True)
class Settings:
    """`steps`: optimiser steps to do. `batch_groups`: groups of a step. `max_lag`: hard bound at first use, versions.

    `checkpoint_every`, `publish_every`: steps between two. `keep_checkpoints`: named ones kept on disk.
    `notice_every_ms`: least time between two drop notices. `weights`: how versions travel.
    """

    steps: int
    batch_groups: int
    max_lag: int
    checkpoint_every: int = 10
    publish_every: int = 1
    keep_checkpoints: int = 2
    notice_every_ms: int = 200
    policy_id: str = "policy"
    weights: Plan = Plan()


class LearningHandler:
    """See the module. Used by one thread; `stop`, `drained`, `save_soon` and `progress` may be called by others."""

    def __init__(
        self,
        log: Log,
        names: Names,
        root: Path,
        trainer: Trainer,
        replay: Replay,
        assembler: Assembler,
        settings: Settings,
    ) -> None:
        self.log, self.names, self.root = log, names, root
        self.trainer, self.replay, self.assembler, self.settings = trainer, replay, assembler, settings
        self.ledger = Ledger()
        self.publisher = Publisher(names.topic("weights"), settings.policy_id, settings.weights)
        self.buffer: list[Held] = []
        self.epoch = self.step = self.version = 0
        self.checkpoint = training_pb2.Checkpoint()
        self.draining = ""
        self.finished = False
        self.held = False
        """The run is paused: it may not be ended now, even with every step done."""
        self.trouble = ""
        """What keeps a checkpoint from being written, one sentence; empty when nothing does."""
        self.metrics: dict[str, float] = {}
        self._named: list[str] = []
        self._offsets: dict[Position, int] = {}
        self._clock = ReadClock(())
        self._standing: dict[str, float] = {}
        self._noticed_ms = 0
        self._ready_since = time.monotonic()
        self._try_again_at = 0.0
        self._issued: int | None = None
        self._stop_wanted = self._save_wanted = self._may_not_trim = False

    # The stage's contract.

    def start(self) -> Transactions:
        """Open an epoch at the newest checkpoint that verifies, or at step 0; publish the policy if it went back."""
        beginning = restore.find(self.log, self.names, self.root)
        for sentence in beginning.damaged:
            logger.warning("%s; falling back to the checkpoint of step %d", sentence, beginning.checkpoint.step)
        self.epoch = beginning.epoch
        self._offsets = self._first_offsets()
        if beginning.manifest is not None:
            self.publisher.heard(beginning.manifest)
        if beginning.checkpoint is None:
            self.ledger.begin(self.epoch, self.step)
            self.checkpoint = self._save()
        else:
            self._load(beginning)
        self._named = list(dict.fromkeys([self.checkpoint.uri, *beginning.named]))
        self._clock = ReadClock(self._offsets)
        rewind = training_pb2.Rewind(epoch=self.epoch, to_step=self.step, version=self.version)
        again = training_pb2.DropNotice(epoch=self.epoch, after_step=self.step, drops=self.ledger.noticed)
        yield self._encode([rewind, self.checkpoint, *([again] if again.drops else [])])
        if not self.version or self.version != self.publisher.version:
            yield from self._publish([])

    def offsets(self) -> dict[Position, int]:
        """Where to follow from: full topic names."""
        return dict(self._offsets)

    def __call__(self, found: Sequence[Decoded], now_ms: int) -> Transactions:
        """Take what was read; then at most one step."""
        for record, noun in found:
            place = (self.names.short(record.topic), record.partition, record.offset)
            self.assembler.add(noun, place, record.timestamp_ms)
        self.assembler.expire(self._clock.read((record for record, _ in found), now_ms))
        if not (self.draining or self.held) and (self._stop_wanted or self.step >= self.settings.steps):
            self._drain("run_finished" if self.step >= self.settings.steps else "drained")
        self._collect()
        batch = self._sweep()
        if batch:
            yield from self._train(batch, now_ms)
        if self.publisher.anchor_wanted:
            yield from self._publish([], again=True)
        yield from self._notice(now_ms)
        if self._wants_checkpoint():
            yield from self._checkpoint()
        if self.draining and not self.finished:
            yield from self._finish()
        numbers = {**self.assembler.standing(), **self.assembler.counts, "groups_ready": len(self.buffer)}
        self._standing = {name: float(number) for name, number in numbers.items()}

    def poison(self, ids: dict[str, str], reason: str) -> None:
        """A record that could not be read: what its headers say has failed."""
        take_unreadable(self.assembler, ids, reason)

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        if self.draining:
            return "drain"
        standing = self.assembler.standing()
        if standing["verdicts_missing"] > standing["rollouts_missing"]:
            return "verdicts"
        return "rollouts" if standing["rollouts_missing"] else "requests"

    # What others tell it, and ask.

    def stop(self) -> None:
        """End everything that is in flight and write the final checkpoint, wherever the run stands."""
        self._stop_wanted = True

    def drained(self, issued_requests: int) -> None:
        """The difficulty service issues no more; so many requests it issued in all."""
        self._issued = issued_requests

    def save_soon(self) -> None:
        """Write a checkpoint after the current step."""
        self._save_wanted = True

    @property
    def saved(self) -> bool:
        """Is the newest step in a checkpoint?"""
        return self.checkpoint is not None and self.checkpoint.step == self.step

    def progress(self) -> learning_pb2.ProgressResponse:
        """Where it is."""
        return learning_pb2.ProgressResponse(
            epoch=self.epoch,
            step=self.step,
            steps=self.settings.steps,
            version=self.version,
            checkpoint=self.checkpoint,
            metrics=self.metrics,
            buffer=self._standing,
        )

    # Deciding what to train on.

    def _collect(self) -> None:
        """Take groups and ends from the assembler."""
        for group in self.assembler.closed():
            reason = self.trainer.refuses(group)
            if reason:
                self._end((member.name for member in group.members), reason)
            else:
                self.buffer.append(Held.of(group))
        self.ledger.enter(self.assembler.ends())

    def _sweep(self) -> list[Held]:
        """End what is too old or spent; returns the next batch, taken out of the buffer, or nothing."""
        choice = self.replay.choose(self.buffer, self.version, self.settings.batch_groups, self.settings.max_lag)
        for held in (*choice.stale, *choice.retired):
            self._end((member.name for member in held.group.members), "stale")
        for held in choice.refilled:
            self._end((member.name for member in held.group.members), "degenerate_group")
        self.ledger.enter(self.assembler.ends())
        self.buffer = list(choice.kept)
        return list(choice.batch)

    def _end(self, members: Iterable[tuple[str, int]], reason: str) -> None:
        for name in members:
            self.assembler.end(name, reason)

    def _drain(self, reason: str) -> None:
        logger.info("draining at step %d: what is in flight ends as %r", self.step, reason)
        self.draining = reason
        self.buffer = []
        self.assembler.drain(reason)

    # Training.

    def _train(self, batch: list[Held], now_ms: int) -> Transactions:
        waited_s = time.monotonic() - self._ready_since
        begun = time.monotonic()
        result = self.trainer.step([held.next_use() for held in batch], self.version)
        self.step = self.ledger.step = self.step + 1
        reach("learning.after_step", step=self.step)
        self._settle(batch, result)
        noun = training_pb2.TrainStep(
            epoch=self.epoch,
            step=self.step,
            version=self.version,
            uses=result.uses,
            drops=self.ledger.tell(),
            shifts=result.shifts,
            metrics=result.metrics,
            checkpoint_step=self.checkpoint.step,
            waited_s=waited_s,
            computed_s=time.monotonic() - begun,
            ended_ms=int(time.time() * 1000),
            ended_requests=self.assembler.over(),
        )
        self.metrics, self._noticed_ms = dict(result.metrics), now_ms
        last = self.step >= self.settings.steps
        if result.skipped or (self.step % self.settings.publish_every and not last):
            yield self._encode([noun])
        else:
            yield from self._publish([noun])
        reach("learning.after_publish", step=self.step)
        if self.step % self.settings.checkpoint_every == 0:
            yield from self._checkpoint()
        self._ready_since = time.monotonic()

    def _settle(self, batch: list[Held], result: StepResult) -> None:
        """Every member of the batch was used or left out; groups go back to the buffer for reuse, or end."""
        self.buffer += settle(self.assembler, batch, result)
        choice = self.replay.choose(self.buffer, self.version, self.settings.batch_groups, self.settings.max_lag)
        spent = {id(held) for held in choice.retired}
        self.buffer = [held for held in self.buffer if id(held) not in spent]
        for held in choice.retired:
            self._end((member.name for member in held.group.members), "spent")
        self.ledger.enter(self.assembler.ends())

    def _publish(self, steps: list[training_pb2.TrainStep], again: bool = False) -> Transactions:
        """Chunks, then their manifest in one transaction with the step that made them."""
        publication = self.publisher.begin(self.epoch, again)
        yield from publication.write(self.trainer.weights())
        reach("learning.after_chunks", step=self.step)
        for step in steps:
            step.version = publication.version
        manifest = publication.manifest(self.step, int(time.time() * 1000))
        yield self._encode([*steps, manifest])
        self.version = publication.version
        below = self.publisher.announced(manifest)
        if below is not None:
            self._trim(*below)
        self.publisher.sweep()

    def _trim(self, topic: str, partition: int, before: int) -> None:
        """Forget weights that no chain begins with. Who may not is told so once, and the topic grows."""
        try:
            with suppress(LogUnavailable):  # it is trimmed after the next version instead
                self.log.trim(topic, partition, before)
        except UserError as error:
            if not self._may_not_trim:
                logger.warning("old weights stay: %s; `sluice topics --acls` prints the right to delete them", error)
            self._may_not_trim = True

    def _notice(self, now_ms: int) -> Transactions:
        if self.ledger.untold and now_ms - self._noticed_ms >= self.settings.notice_every_ms:
            self._noticed_ms = now_ms
            yield self._encode([self.ledger.notice()])

    # Coming back.

    def _wants_checkpoint(self) -> bool:
        """Between steps: because somebody asked, the last try failed, or too much waits to be named."""
        wanted = self._save_wanted or self.trouble or len(self.ledger.outcomes) >= OUTCOMES_AT_MOST
        return bool(wanted) and time.monotonic() >= self._try_again_at

    def _checkpoint(self) -> Transactions:
        """Files first, then the record that makes them count, with every outcome since the last."""
        self.ledger.enter(self.assembler.ends())
        if self.ledger.untold:
            yield self._encode([self.ledger.notice()])
        try:
            noun = self._save()
        except Retryable as error:
            logger.warning("%s", error)
            self.trouble, self._try_again_at = str(error), time.monotonic() + TRY_AGAIN_S
            return
        reach("learning.before_checkpoint_named", step=self.step)
        yield self._encode([noun, *self.ledger.named(noun.serial)])
        self.checkpoint, self.trouble, self._save_wanted = noun, "", False
        self._named.insert(0, noun.uri)
        reach("learning.after_checkpoint", step=self.step)
        checkpoint.prune(self.root, self._named, self.settings.keep_checkpoints)

    def _save(self) -> training_pb2.Checkpoint:
        low = {(self.names.topic(topic), p): at for (topic, p), at in self.assembler.low_offsets().items()}
        offsets = self._offsets | low
        learner = {
            "step": self.step,
            "noticed": [json_format.MessageToDict(drop) for drop in self.ledger.noticed],
            "assembler": self.assembler.snapshot(),
        }
        saved = checkpoint.save(self.root, self.epoch, self.step, {**self.trainer.state(), LEARNER: learner})
        return training_pb2.Checkpoint(
            epoch=self.epoch,
            step=self.step,
            version=self.version,
            uri=saved.name,
            sha256=saved.sha256,
            offsets=[training_pb2.Offset(topic=t, partition=p, offset=at) for (t, p), at in sorted(offsets.items())],
            size_bytes=saved.size_bytes,
            serial=self.checkpoint.serial + 1,
            ended=counted(self.checkpoint.ended, self.ledger.outcomes),
        )

    def _load(self, beginning: restore.Beginning) -> None:
        assert beginning.checkpoint is not None and beginning.state is not None
        state = dict(beginning.state)
        learner = state.pop(LEARNER)
        self.trainer.load_state(state)
        self.assembler.restore(learner["assembler"])
        for outcome in beginning.taken:
            self.assembler.take_as_ended((outcome.request_id, outcome.index))
        self.step = learner["step"]
        noticed = [json_format.ParseDict(drop, training_pb2.Drop()) for drop in learner["noticed"]]
        noticed += [drop_of(outcome) for outcome in beginning.taken if outcome.step == self.step and not outcome.uses]
        self.ledger.begin(self.epoch, self.step, noticed)
        self.version = beginning.checkpoint.version
        self.checkpoint.CopyFrom(beginning.checkpoint)
        self.checkpoint.epoch = self.epoch
        later = named_later(self.checkpoint, beginning.taken)
        self.checkpoint.ended.CopyFrom(counted(self.checkpoint.ended, later))
        self.checkpoint.serial = max((one.checkpoint_serial for one in later), default=self.checkpoint.serial)
        self._offsets |= {(one.topic, one.partition): one.offset for one in beginning.checkpoint.offsets}

    def _first_offsets(self) -> dict[Position, int]:
        topics = [self.names.topic(topic) for topic in FOLLOWED]
        return {(topic, p): first for topic in topics for p, (first, _) in self.log.bounds(topic).items()}

    def _finish(self) -> Transactions:
        """Once everything that was ever requested has ended, name it all in a last checkpoint."""
        everything_read = self._issued is not None and self.assembler.requests_seen >= self._issued
        if not everything_read or not self.assembler.idle or time.monotonic() < self._try_again_at:
            return
        self._collect()
        if self.ledger.outcomes or self.ledger.untold or self.checkpoint.step != self.step:
            yield from self._checkpoint()
        self.finished = not self.trouble

    def _encode(self, nouns: Sequence[Message]) -> list[Send]:
        return outgoing.sends(self.names, nouns)
