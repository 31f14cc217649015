"""Whether every posterior that was ever committed is the fold of the inputs that its record says it had, bit for bit.

The records are collected while the run goes on, before compaction forgets them. Each says which inputs it had applied:
those of one transaction lie between its offsets and those of the one before.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from google.protobuf.message import Message

from pipeline import records
from pipeline.log.api import Position, Record, read_all
from pipeline.rundir import RunDir
from services.difficulty.service import scheduler_of
from sluice.v1 import posterior_pb2, rollout_pb2


@dataclass
class Beliefs:
    """Every record of the posterior topic, in the order in which it was seen."""

    directory: Path
    seen: list[Record] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    whole: bool = False
    """Whether `follow` came to its end."""

    def follow(self) -> None:
        """Collect from the run's beginning until it ends, and what is there then."""
        while not (self.directory / "base").exists() and not self.ended.wait(0.1):
            pass
        run = RunDir.of(self.directory)
        log, topic = run.open_log(), run.names().topic("posterior")
        follower = log.follow({(topic, partition): 0 for partition in log.bounds(topic)})
        while True:
            ending = self.ended.is_set()
            found = follower.poll(0.2, 2000)
            self.seen += found
            if ending and not found:
                break
        follower.close()
        log.close()
        self.whole = True

    def transactions(self) -> list[tuple[dict[Position, int], list[posterior_pb2.PosteriorState]]]:
        """Inputs and prompts' states of every transaction that changed a prompt or the gate, in order."""
        found: dict[tuple, list[posterior_pb2.PosteriorState]] = defaultdict(list)
        for record in sorted(self.seen, key=lambda record: record.timestamp_ms):
            noun = records.decode(record)
            assert isinstance(noun, posterior_pb2.PosteriorState | posterior_pb2.GateState)
            read = tuple(((one.topic, one.partition), one.offset) for one in noun.applied)
            states = found[read]
            if isinstance(noun, posterior_pb2.PosteriorState):
                noun.ClearField("applied")
                states.append(noun)
        return [(dict(read), states) for read, states in found.items()]


@contextlib.contextmanager
def followed(directory: Path) -> Iterator[Beliefs]:
    """The records of a run that begins now, or soon."""
    beliefs = Beliefs(directory)
    thread = threading.Thread(target=beliefs.follow)
    thread.start()
    try:
        yield beliefs
    finally:
        beliefs.ended.set()
        thread.join(60)
    assert beliefs.whole, "the follower of the posterior topic died on the way"


def folded(beliefs: Beliefs, folder: Path) -> int:
    """Fold the run's inputs anew, transaction by transaction; how many states came out as they were committed."""
    run = RunDir.of(beliefs.directory)
    log = run.open_log()
    context = SimpleNamespace(run=run.run(), dir=SimpleNamespace(folder=lambda name: folder))
    scheduler, inputs = scheduler_of(context), defaultdict(list)  # type: ignore[arg-type]
    scheduler.observe(map(records.decode, read_all(log, run.names().topic("prompts"))))
    for topic in ("verdicts", "steps"):
        for record in read_all(log, run.names().topic(topic)):
            inputs[record.topic, record.partition].append(record)
    reached: dict[Position, int] = defaultdict(int)
    compared = 0
    for read, states in beliefs.transactions():
        new = []
        for position, end in read.items():
            assert end > reached[position], f"{position} was read twice: {reached[position]}, then {end}"
            new += [one for one in inputs[position] if reached[position] <= one.offset < end]
        reached |= read
        scheduler.observe(in_order(new))
        scheduler.changed()
        for state in states:
            assert scheduler.posterior(state.prompt_id) == state
        compared += len(states)
    held = {}
    for noun in map(records.decode, read_all(log, run.names().topic("posterior"))):
        if isinstance(noun, posterior_pb2.PosteriorState):
            noun.ClearField("applied")
            held[noun.prompt_id] = noun
    log.close()
    newest = {state.prompt_id: state for _, states in beliefs.transactions() for state in states}
    assert newest == held, "the follower has not seen all of the posterior topic"
    return compared


def in_order(new: list[Record]) -> list[Message]:
    """As a transaction applies its inputs: verdicts, then what the steps topic holds."""
    nouns = [records.decode(record) for record in new]
    return sorted(nouns, key=lambda noun: not isinstance(noun, rollout_pb2.Verdict))
