"""Every topic, declared once.

A topic's full name is `<prefix>.<run>.<name>`, so that several runs share one log. What is on a topic, who writes it,
who reads it and how long it is kept stand in the table below and nowhere else; each one's rights follow from it. Every
transactional id begins with the name of whom it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.log.api import Log, TopicConfig

HOUR = 3600.0
WEEK = 7 * 24 * HOUR

GENERATION, VERIFICATION, DIFFICULTY, LEARNING = "generation", "verification", "difficulty", "learning"
SERVICES = (GENERATION, VERIFICATION, DIFFICULTY, LEARNING)
OPERATOR = "operator"
"""The command line: makes topics, registers prompts, tells the run what to do, redrives, reads everything."""
GROUPS = (GENERATION, VERIFICATION, DIFFICULTY)
"""Who reads in a consumer group, of its own name; learning keeps its offsets in its checkpoints."""


@dataclass(frozen=True)
class Topic:
    """One topic.

    `writers`: the operator, where it puts dead letters back. `readers`: beside the operator, who reads all of them.
    `partitions`: on Kafka; on one machine `local_partitions`. `retention_s`: None keeps records until they are trimmed,
    by `trimmed_by`.
    """

    name: str
    nouns: tuple[str, ...]
    key: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    partitions: int = 1
    local_partitions: int = 1
    compacted: bool = False
    retention_s: float | None = WEEK
    trimmed_by: str = ""


TOPICS: tuple[Topic, ...] = (
    Topic("prompts", ("Prompt",), "prompt id", (OPERATOR,), (VERIFICATION, DIFFICULTY), 8, 1, True, None),
    Topic("requests", ("RolloutRequest",), "request id", (DIFFICULTY, OPERATOR), (GENERATION, LEARNING), 64, 4),
    Topic(
        "requests-retry", ("RolloutRequest",), "request id and attempt", (GENERATION, OPERATOR), (GENERATION,), 64, 4
    ),
    Topic("rollouts", ("Rollout",), "prompt id", (GENERATION, OPERATOR), (VERIFICATION, LEARNING), 64, 4),
    Topic("rollouts-retry", ("Rollout",), "prompt id", (VERIFICATION, OPERATOR), (VERIFICATION,), 64, 4),
    Topic("verdicts", ("Verdict",), "prompt id", (VERIFICATION, DIFFICULTY, OPERATOR), (LEARNING, DIFFICULTY), 64, 4),
    Topic("steps", ("TrainStep", "DropNotice", "Rewind"), "run", (LEARNING, OPERATOR), (DIFFICULTY, LEARNING)),
    Topic("weights", ("WeightChunk",), "policy id", (LEARNING,), (GENERATION,), retention_s=None, trimmed_by=LEARNING),
    Topic(
        "weights-manifest",
        ("WeightManifest",),
        "policy id",
        (LEARNING,),
        (GENERATION, DIFFICULTY, LEARNING),
        compacted=True,
        retention_s=None,
    ),
    Topic("checkpoints", ("Checkpoint",), "run", (LEARNING,), (LEARNING,), 1, 1, True, None),
    Topic("outcomes", ("Outcome",), "request id", (LEARNING,), (LEARNING,), 8, 1),
    Topic("posterior", ("PosteriorState", "GateState"), "prompt id", (DIFFICULTY,), (DIFFICULTY,), 1, 1, True, None),
    Topic("control", ("Control",), "name", (OPERATOR, LEARNING), SERVICES, 1, 1, True, None),
    Topic("workers", ("WorkerStatus",), "worker id and start", SERVICES, (LEARNING,), 1, 1, True, None),
    Topic("evals", ("Evaluation",), "run", (OPERATOR,), ()),
    Topic("dead-letters", ("DeadLetter",), "id", SERVICES, ()),
)

BY_NAME = {topic.name: topic for topic in TOPICS}


@dataclass(frozen=True)
class Names:
    """Full names of one run's topics, groups and transactional ids: all begin `<prefix>.<run>.`

    >>> Names("sluice", "demo").topic("rollouts")
    'sluice.demo.rollouts'
    """

    prefix: str
    run: str

    def topic(self, name: str) -> str:
        """Full name of a declared topic."""
        if name not in BY_NAME:
            raise UserError.choice("the topic", name, BY_NAME)
        return f"{self.prefix}.{self.run}.{name}"

    def own(self, name: str) -> str:
        """Full name of a group, or of a transactional id, which begins with whom it belongs to: see `rights`."""
        return f"{self.prefix}.{self.run}.{name}"

    def short(self, full: str) -> str:
        """A topic's short name.

        >>> Names("sluice", "demo").short("sluice.demo.rollouts")
        'rollouts'
        """
        return full.removeprefix(f"{self.prefix}.{self.run}.")


def create(log: Log, names: Names, local: bool, topics: Iterable[Topic] = TOPICS, replicas: int = 0) -> None:
    """Create a run's topics where they are missing; those that exist keep the replicas that they have."""
    log.create([config(topic, names, local, replicas) for topic in topics])


def config(topic: Topic, names: Names, local: bool, replicas: int = 0) -> TopicConfig:
    """What to create for a declared topic, on one machine or on a cluster."""
    partitions = topic.local_partitions if local else topic.partitions
    return TopicConfig(names.topic(topic.name), partitions, topic.compacted, topic.retention_s, replicas)


class Right(NamedTuple):
    """To do `operation` to the `kind` of thing of this full name; one that ends in * is a prefix."""

    operation: str
    kind: str
    name: str


def rights(service: str, names: Names) -> list[Right]:
    """The least rights of a service or the operator. Kafka lets who may read, write or delete describe too."""
    if service not in (*SERVICES, OPERATOR):
        raise UserError.choice("the service", service, (*SERVICES, OPERATOR))
    found = [Right(done, "topic", names.topic(topic.name)) for topic in TOPICS for done in _done_to(topic, service)]
    if service in GROUPS:
        found.append(Right("read", "group", names.own(service)))
    return [*found, Right("write", "transactional-id", names.own(f"{service}*"))]


def _done_to(topic: Topic, service: str) -> list[str]:
    does = {
        "read": service in (*topic.readers, OPERATOR),
        "write": service in topic.writers,
        "delete": service == topic.trimmed_by,
        "create": service == OPERATOR,
    }
    return [operation for operation, wanted in does.items() if wanted]
