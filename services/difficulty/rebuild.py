"""A posterior topic with a gap: found at a start, and closed from `verdicts` and `steps`.

Every record of the topic says how many outcomes all prompts together had seen when it was written. A restore that
comes to fewer lacks records: somebody deleted them, or a disk lost them. Then every prompt is folded anew from the
inputs that this service had committed, in the order of their times. That is a right fold of the same inputs; where a
verdict and a step came within moments of each other their order, and so the last digits, may differ from what was lost.

Refused: where retention has eaten a part of the inputs, and where the gate's own record is gone. A posterior or a gate
that is wrong without saying so is worse than a service that does not start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from google.protobuf.message import Message

from pipeline import records
from pipeline.errors import Poison, UserError
from pipeline.log.api import Log, read_in_time
from pipeline.topics import Names
from services.difficulty.scheduler import Scheduler

log = logging.getLogger(__name__)

INPUTS = ("verdicts", "steps")
NEW_RUN = "accepted: the whole topic, from a backup, or a new run"


def close_gap(scheduler: Scheduler, log_: Log, names: Names, group: str) -> int:
    """Fold every prompt anew if records are missing; returns how many outcomes were. Raises `UserError`.

    `group`: full name of the group that reads the inputs.
    """
    committed = {names.topic(topic): log_.committed(group, names.topic(topic)) for topic in INPUTS}
    if not scheduler.gate_known and any(committed[names.topic("verdicts")].values()):
        raise UserError(f"the posterior topic lacks the gate's record and outcomes were observed; {NEW_RUN}")
    missing = scheduler.outcomes_told - scheduler.store.outcomes
    if missing <= 0:
        return 0
    for topic, offsets in committed.items():
        for partition, (first, _) in log_.bounds(topic).items():
            if first and offsets.get(partition):
                raise UserError(
                    f"the posterior topic lacks {missing} outcomes, and retention has eaten what {names.short(topic)} "
                    f"held before offset {first} of partition {partition}; {NEW_RUN}"
                )
    scheduler.refold(_inputs(log_, committed))
    log.warning("the posterior topic lacked %d outcomes: every prompt was folded anew from verdicts and steps", missing)
    return missing


def _inputs(log_: Log, committed: dict[str, dict[int, int]]) -> Iterator[Message]:
    """What the group has read, in the order in which it was written."""
    # A step comes after the verdicts that it trained on, also where the clock does not tell them apart.
    for record in read_in_time(log_, list(committed)):
        if record.offset >= committed[record.topic].get(record.partition, 0):
            continue
        try:
            yield records.decode(record)
        except Poison:  # it was a dead letter then, too
            continue
