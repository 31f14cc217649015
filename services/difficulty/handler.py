"""What the stage calls: nouns in, records out. Called with no nouns on ticks, so that freed places are used at once.

    [Verdict | TrainStep | DropNotice | Rewind | Prompt]  ->  requests, and the state that must be committed with them

Given the same nouns and clock it gives the same records, however a poll mixed its topics: in one call verdicts come
before steps, so that the offsets in a record say all that it takes to fold it again. The door reads the same scheduler
from other threads, so both hold one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pipeline import dead_letters
from pipeline.data import prompts
from pipeline.data.prompt import GATE_KEY
from pipeline.errors import OwnFault
from services.difficulty import gauges
from services.difficulty.scheduler import Scheduler
from services.difficulty.seen import DIVERSITY_OUT_OF_RANGE, UNKNOWN, Versions, diversities
from sluice.v1 import control_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2

Sent = tuple[str, str, Message]
"""(short topic name, key, noun)."""


@dataclass
class Handler:
    """The difficulty service's craft, as the stage sees it.

    `now_ms`: the wall clock, milliseconds since the Unix epoch. `announced`: which versions may be observed, given the
    highest that somebody claims; None accepts all.
    """

    scheduler: Scheduler
    now_ms: Callable[[], int]
    announced: Callable[[int], Versions | None] | None = None
    ready: bool = True
    """False while the state is being rebuilt: the door answers NOT_READY and nothing is issued."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, nouns: Iterable[Message]) -> list[Sent]:
        """Observe, issue, and say what changed. A call says that the records of the one before are committed."""
        with self.lock:
            self.scheduler.committed()
            nouns = sorted(nouns, key=_rank)
            self.look(max((noun.max_version for noun in nouns if isinstance(noun, rollout_pb2.Verdict)), default=0))
            self.scheduler.observe(nouns)
            requests = self._issued() if self.ready else []
            sent: list[Sent] = [("requests", request.request_id, request) for request in requests]
            for noun, why in self.scheduler.refusals():
                letter = dead_letter(noun, why, self.scheduler.versions, self.now_ms())
                sent.append(("dead-letters", letter.key.decode(), letter))
            for record in self.scheduler.changed():
                key = record.prompt_id if isinstance(record, posterior_pb2.PosteriorState) else GATE_KEY
                sent.append(("posterior", key, record))
            return sent

    def _issued(self) -> list[prompt_pb2.RolloutRequest]:
        try:
            return self.scheduler.issue(self.now_ms())
        except Exception as error:  # a sampler or budget that fails: the records observed before it are innocent
            raise OwnFault(f"choosing what to try next failed with {type(error).__name__}: {error}") from error

    def look(self, highest: int) -> Versions | None:
        """Versions that may be observed, looked up again when somebody claims one as high as this."""
        if self.announced is not None:
            self.scheduler.versions = self.announced(highest)
        return self.scheduler.versions

    def read_up_to(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Say which inputs the next call completes, as next offsets by (topic, partition); the records carry it."""
        self.scheduler.applied = [
            training_pb2.Offset(topic=topic, partition=partition, offset=offset)
            for (topic, partition), offset in sorted(offsets.items())
        ]

    def undo(self) -> None:
        """The latest call failed or was not committed: take its effect back, so that its inputs can come again."""
        with self.lock:
            self.scheduler.undo()

    def drain(self) -> None:
        """Issue nothing new from now on."""
        with self.lock:
            self.scheduler.draining = True

    def gauges(self) -> dict[str, float]:
        """Momentary values for metrics."""
        with self.lock:
            return gauges.gauges(self.scheduler, self.now_ms())


def _rank(noun: Message) -> int:
    """Prompts, then verdicts, then what the steps topic holds; each in its order."""
    return {prompt_pb2.Prompt: 0, rollout_pb2.Verdict: 1}.get(type(noun), 2)


def dead_letter(noun: Message, reason: str, versions: Versions | None, now_ms: int) -> control_pb2.DeadLetter:
    """A verdict or prompt that cannot be right, for people to look at: its content and why."""
    if isinstance(noun, prompt_pb2.Prompt):
        return prompts.dead_letter(noun, reason, "difficulty", now_ms)
    assert isinstance(noun, rollout_pb2.Verdict)
    if reason.startswith("version"):
        said = f"versions are {noun.min_version} to {noun.max_version}; accepted: {versions}"
    elif reason == UNKNOWN:
        said = f"prompt {noun.prompt_id!r} is not registered to train on; accepted: an id of the prompts topic"
    elif reason == DIVERSITY_OUT_OF_RANGE:
        said = f"diversity is {', '.join(map(str, diversities(noun)))}; accepted: 0 to 1"
    else:
        said = f"accuracy is {noun.accuracy}; accepted: 0 to 1"
    return dead_letters.refused("verdicts", noun.prompt_id, noun, f"{reason}: {said}", "difficulty", now_ms)
