"""A posterior topic with a gap, or of another estimate: found at a start, and mended from `verdicts` and `steps`.

Every record of the topic says how many outcomes all prompts together had seen when it was written. A restore that
comes to fewer lacks records: somebody deleted them, or a disk lost them. A movement of the policy is no outcome. So
where the estimate listens to movements the committed steps are read too: a prompt whose last decay is before the newest
step that moved it lacks a record. A lost record of a rewind alone is not noticed: no record counts those.

Every record names the estimate and the knobs that wrote it. Where those are not what the run file says now, the run's
own estimate has to say what it makes of the inputs: statistics of two estimates are never mixed.

In both cases every prompt is folded anew from the inputs that this service had committed, in the order of
their times. That is a right fold of the same inputs, and not always the one that was lost: the service takes all
verdicts of one transaction before its steps, so outcomes that it caught up on in one go were older to it than they are
here.

Refused: where retention has eaten a part of the inputs, and where the gate's own record is gone. A posterior or a gate
that is wrong without saying so is worse than a service that does not start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import Message

from pipeline import records
from pipeline.errors import Poison, UserError
from pipeline.evidence import movements
from pipeline.gate import Gate
from pipeline.log.api import Log, read_batches, read_in_time
from pipeline.topics import Names
from services.difficulty.scheduler import Scheduler
from sluice.v1 import training_pb2

log = logging.getLogger(__name__)

INPUTS = ("verdicts", "steps")
NEW_RUN = "accepted: the whole topic, from a backup, or a new run"
Committed = dict[str, dict[int, int]]
"""What the group has read: next offset by topic and partition."""


def close_gap(scheduler: Scheduler, log_: Log, names: Names, group: str) -> int:
    """Fold every prompt anew if records are missing, or another estimate wrote some; returns how many outcomes,
    movements or records that were. Raises `UserError`.

    `group`: full name of the group that reads the inputs.
    """
    committed = {names.topic(topic): log_.committed(group, names.topic(topic)) for topic in INPUTS}
    if not scheduler.gate_known and any(committed[names.topic("verdicts")].values()):
        raise UserError(f"the posterior topic lacks the gate's record and outcomes were observed; {NEW_RUN}")
    if scheduler.store.foreign:
        return _take_over(scheduler, log_, names, committed)
    missing, what = scheduler.outcomes_told - scheduler.store.outcomes, "outcomes"
    if missing <= 0:
        missing, what = _unmoved(scheduler, log_, names.topic("steps"), committed[names.topic("steps")]), "movements"
    if not missing:
        return 0
    if eaten := _eaten(log_, names, committed):
        raise UserError(f"the posterior topic lacks {missing} {what}, and {eaten}; {NEW_RUN}")
    scheduler.refold(_inputs(log_, committed))
    log.warning("the posterior topic lacked %d %s: every prompt was folded anew from verdicts and steps", missing, what)
    return missing


def _take_over(scheduler: Scheduler, log_: Log, names: Names, committed: Committed) -> int:
    """Fold anew by the run's estimate what another one wrote; returns how many records that were."""
    store = scheduler.store
    rows, writer = np.array(sorted(store.foreign)), store.foreign_writer
    if eaten := _eaten(log_, names, committed):
        accepted = f"{writer!r}, which wrote this run's posterior, or a new run"
        raise UserError(f"estimate is {store.writer!r}; accepted: {accepted} ({eaten})")
    scheduler.refold(_inputs(log_, committed))
    # Also those that this estimate says nothing of: a record of another writer would be met at every start.
    store.touch(rows)
    log.warning("%s wrote the posterior: every prompt was folded anew by %s", writer, store.writer)
    return len(rows)


def _eaten(log_: Log, names: Names, committed: Committed) -> str:
    """What retention has eaten of the inputs that were read; empty when nothing."""
    for topic, offsets in committed.items():
        for partition, (first, _) in log_.bounds(topic).items():
            if first and offsets.get(partition):
                held = f"what {names.short(topic)} held before offset {first} of partition {partition}"
                return f"retention has eaten {held}"
    return ""


def _unmoved(scheduler: Scheduler, log_: Log, topic: str, read: dict[int, int]) -> int:
    """Prompts that a step moved which their record does not know of; 0 where the estimate does not listen."""
    store = scheduler.store
    if store.estimate.moved(np.array([store.estimate.initial().values]), np.zeros(1)) is None:
        return 0
    # Without the topic's start it is not known which older epochs' steps a rewind made void: those are left out.
    eaten = any(first for first, _ in log_.bounds(topic).values())
    moved = _moved(log_, topic, read, Gate(0, 1, epoch=scheduler.gate.epoch if eaten else 0))
    if not moved:
        return 0
    rows_N, step_N = store.rows.find(list(moved)), np.array(list(moved.values()), np.int64)
    known_N = np.where(rows_N >= 0, store.columns["decayed"][np.maximum(rows_N, 0)], 0) if len(store) else 0
    # Every movement sets the last decay to its step, and nothing before that step can.
    return int((known_N < step_N).sum())


def _moved(log_: Log, topic: str, read: dict[int, int], gate: Gate) -> dict[str, int]:
    """The newest step that moved each prompt, of those that no rewind took back; `gate` tells which are void."""
    moved: dict[str, int] = {}
    for record in (record for batch in read_batches(log_, topic) for record in batch):
        if record.offset >= read.get(record.partition, 0):
            continue
        try:
            noun = records.decode(record)
        except Poison:  # it was a dead letter then, too
            continue
        if isinstance(noun, training_pb2.TrainStep) and gate.apply_step(noun):
            moved |= {prompt_id: noun.step for prompt_id, _ in movements(noun)}
        elif isinstance(noun, training_pb2.Rewind) and gate.rewind(noun):
            moved = {prompt_id: step for prompt_id, step in moved.items() if step <= noun.to_step}
    return moved


def _inputs(log_: Log, committed: Committed) -> Iterator[Message]:
    """What the group has read, in the order in which it was written."""
    # A step comes after the verdicts that it trained on, also where the clock does not tell them apart.
    for record in read_in_time(log_, list(committed)):
        if record.offset >= committed[record.topic].get(record.partition, 0):
            continue
        try:
            yield records.decode(record)
        except Poison:  # it was a dead letter then, too
            continue
