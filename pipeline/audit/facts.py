"""What a run's topics hold, indexed for the account. Bodies are not kept: a rollout is its key, digest and ending."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pipeline import claiming, records
from pipeline.errors import Poison
from pipeline.log.api import Log, Record, partition_of, read_batches
from pipeline.topics import Names
from sluice.v1 import control_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2, weights_pb2

Name = tuple[str, int]
"""(request id, index)."""
Place = tuple[int, int]
"""(partition, offset)."""

READ = (
    "control", "posterior", "outcomes", "checkpoints", "weights-manifest", "steps", "verdicts", "rollouts-retry",
    "rollouts", "requests", "dead-letters",
)  # fmt: skip
"""What is read: of a run at work what tells of something before what it tells of."""
TOGETHER = ("outcomes", "checkpoints", "weights-manifest", "steps", "requests")
"""Topics of which one transaction writes several: their ends are of one moment."""
LOOKS = 20
"""A run that never rests for the length of a look is read as it was at the last."""


def shown(name: Name) -> str:
    """A rollout's name as people read it.

    >>> shown(("r-00000007", 3))
    'r-00000007/3'
    """
    return f"{name[0]}/{name[1]}"


@dataclass(frozen=True, slots=True)
class Request:
    """A RolloutRequest."""

    request_id: str
    prompt_id: str
    first_index: int
    n: int
    deadline_ms: int
    place: Place
    redriven: bool

    def asks_for(self, index: int) -> bool:
        """Is this one of its indices?"""
        return self.first_index <= index < self.first_index + self.n

    def names(self) -> Iterator[Name]:
        """The rollouts that it asks for."""
        return ((self.request_id, index) for index in range(self.first_index, self.first_index + self.n))


@dataclass(frozen=True, slots=True)
class Said:
    """A Rollout. `version`: highest among its tokens. `sha256` is empty when its body could not be read."""

    attempt: int
    prompt_id: str
    sha256: bytes
    ending: int
    version: int
    place: Place


@dataclass(frozen=True, slots=True)
class Found:
    """A Verdict."""

    sha256: bytes
    prompt_id: str
    outcome: int


@dataclass
class Facts:
    """Everything the account goes by. `bounds`: short topic -> partition -> (first offset held, next offset)."""

    bounds: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    requests_twice: list[str] = field(default_factory=list)
    rollouts: dict[Name, list[Said]] = field(default_factory=lambda: defaultdict(list))
    verdicts: dict[Name, list[Found]] = field(default_factory=lambda: defaultdict(list))
    retried: set[bytes] = field(default_factory=set)
    steps: list[training_pb2.TrainStep] = field(default_factory=list)
    notices: list[training_pb2.DropNotice] = field(default_factory=list)
    rewinds: list[training_pb2.Rewind] = field(default_factory=list)
    checkpoints: list[training_pb2.Checkpoint] = field(default_factory=list)
    outcomes: dict[Name, list[training_pb2.Outcome]] = field(default_factory=lambda: defaultdict(list))
    manifests: list[weights_pb2.WeightManifest] = field(default_factory=list)
    gate: posterior_pb2.GateState | None = None
    phase: int = control_pb2.PHASE_UNSPECIFIED
    dead: set[tuple[str, int, int]] = field(default_factory=set)
    unreadable: Counter[str] = field(default_factory=Counter)

    def take(self, topic: str, place: Place, noun: Message) -> None:
        """A noun that lies at `place` of a topic (short name). Each partition in offset order."""
        if topic == "rollouts-retry":
            self.retried.add(noun.sha256)  # type: ignore[attr-defined]
            return
        taker = _TAKERS.get(type(noun))
        if taker is not None:
            taker(self, noun, place)

    def take_unreadable(self, topic: str, ids: dict[str, str], place: Place) -> None:
        """A record without a noun: its headers still say what it was about."""
        self.unreadable[topic] += 1
        if topic == "rollouts" and "index" in ids:
            said = Said(int(ids.get("attempt", 0)), ids.get("prompt_id", ""), b"", 0, 0, place)
            self.rollouts[(ids["request_id"], int(ids["index"]))].append(said)
        if topic == "requests" and "n" in ids:
            first, n = int(ids.get("first_index", 0)), int(ids["n"])
            prompt_id = ids.get("prompt_id", "")
            self._request(prompt_pb2.RolloutRequest(request_id=ids["request_id"], first_index=first, n=n,
                                                    prompt_id=prompt_id, deadline_ms=1), place)  # fmt: skip

    def cut(self, topic: str, key: str | None = None) -> bool:
        """Is the beginning gone of the partition where a record with this key would lie (without a key: of any)?"""
        bounds = self.bounds.get(topic, {})
        if key is None:
            return any(first > 0 for first, _ in bounds.values())
        return bool(bounds) and bounds[partition_of(key.encode(), len(bounds))][0] > 0

    def _request(self, noun: prompt_pb2.RolloutRequest, place: Place) -> None:
        if noun.request_id in self.requests:
            self.requests_twice.append(noun.request_id)
            return
        self.requests[noun.request_id] = Request(
            noun.request_id, noun.prompt_id, noun.first_index, noun.n, noun.deadline_ms, place, bool(noun.redrives)
        )

    def _rollout(self, noun: rollout_pb2.Rollout, place: Place) -> None:
        version = max((span.version for call in noun.calls for span in call.spans), default=0)
        said = Said(noun.key.attempt, noun.prompt_id, noun.sha256, noun.ending, version, place)
        self.rollouts[(noun.key.request_id, noun.key.index)].append(said)

    def _verdict(self, noun: rollout_pb2.Verdict, place: Place) -> None:
        found = Found(noun.rollout_sha256, noun.prompt_id, noun.outcome)
        self.verdicts[(noun.key.request_id, noun.key.index)].append(found)

    def _outcome(self, noun: training_pb2.Outcome, place: Place) -> None:
        self.outcomes[(noun.request_id, noun.index)].append(noun)

    def _gate(self, noun: posterior_pb2.GateState, place: Place) -> None:
        self.gate = noun

    def _control(self, noun: control_pb2.Control, place: Place) -> None:
        self.phase = noun.phase

    def _letter(self, noun: control_pb2.DeadLetter, place: Place) -> None:
        self.dead.add((noun.topic.rpartition(".")[2], noun.partition, noun.offset))


_TAKERS = {
    prompt_pb2.RolloutRequest: Facts._request,
    rollout_pb2.Rollout: Facts._rollout,
    rollout_pb2.Verdict: Facts._verdict,
    training_pb2.TrainStep: lambda facts, noun, _: facts.steps.append(noun),
    training_pb2.DropNotice: lambda facts, noun, _: facts.notices.append(noun),
    training_pb2.Rewind: lambda facts, noun, _: facts.rewinds.append(noun),
    training_pb2.Checkpoint: lambda facts, noun, _: facts.checkpoints.append(noun),
    training_pb2.Outcome: Facts._outcome,
    weights_pb2.WeightManifest: lambda facts, noun, _: facts.manifests.append(noun),
    posterior_pb2.GateState: Facts._gate,
    control_pb2.Control: Facts._control,
    control_pb2.DeadLetter: Facts._letter,
}


def read(log: Log, names: Names) -> Facts:
    """Read a run's topics, record by record. A record that does not decode is counted, by its headers."""
    facts = Facts(bounds=_bounds(log, names))
    for topic in READ:
        batches = read_batches(log, names.topic(topic), bounds=facts.bounds[topic])
        for record in (record for batch in batches for record in batch if record.value):
            place = (record.partition, record.offset)
            noun = _decoded(record)
            if noun is None:
                facts.take_unreadable(topic, records.ids(record), place)
            else:
                facts.take(topic, place, noun)
    return facts


def _bounds(log: Log, names: Names) -> dict[str, dict[int, tuple[int, int]]]:
    """What each topic holds, so that whatever is told of something that is held is told of something held.

    A log tells of one topic at a time, and a run at work writes meanwhile. So what tells is asked for before what it
    tells of, and all again until no transaction over several topics has come between.
    """
    found = {}
    for _ in range(LOOKS):
        before = {topic: log.bounds(names.topic(topic)) for topic in TOGETHER}
        found = {topic: log.bounds(names.topic(topic)) for topic in READ}
        if all(found[topic] == before[topic] for topic in TOGETHER):
            break
    return found


def _decoded(record: Record) -> Message | None:
    """The noun; None when it cannot be read, or lies in a store that this log does not reach."""
    if record.header(claiming.HEADER) is not None:
        return None
    try:
        return records.decode(record)
    except Poison:
        return None
