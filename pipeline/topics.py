"""Every topic, declared once.

A topic's full name is `<prefix>.<run>.<name>`, so that several runs share one log. What is on a topic, who writes it,
who reads it and how long it is kept stand in the table below and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.log.api import Log, TopicConfig

HOUR = 3600.0
WEEK = 7 * 24 * HOUR

GENERATION, VERIFICATION, DIFFICULTY, LEARNING = "generation", "verification", "difficulty", "learning"
SERVICES = (GENERATION, VERIFICATION, DIFFICULTY, LEARNING)
OPERATOR = "operator"
"""The command line: registers prompts, tells the run what to do, reads everything."""


@dataclass(frozen=True)
class Topic:
    """One topic.

    `partitions`: on Kafka; on one machine `local_partitions`. `retention_s`: None keeps records until they are trimmed.
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


TOPICS: tuple[Topic, ...] = (
    Topic("prompts", ("Prompt",), "prompt id", (OPERATOR,), (VERIFICATION, LEARNING, DIFFICULTY), 8, 1, True, None),
    Topic("requests", ("RolloutRequest",), "request id", (DIFFICULTY,), (GENERATION, LEARNING), 64, 4),
    Topic("requests-retry", ("RolloutRequest",), "request id and attempt", (GENERATION,), (GENERATION,), 64, 4),
    Topic("rollouts", ("Rollout",), "prompt id", (GENERATION,), (VERIFICATION, LEARNING), 64, 4),
    Topic("rollouts-retry", ("Rollout",), "prompt id", (VERIFICATION,), (VERIFICATION,), 64, 4),
    Topic("verdicts", ("Verdict",), "prompt id", (VERIFICATION,), (LEARNING, DIFFICULTY), 64, 4),
    Topic("steps", ("TrainStep", "DropNotice", "Rewind"), "run", (LEARNING,), (DIFFICULTY, OPERATOR)),
    Topic("weights", ("WeightChunk",), "policy id", (LEARNING,), (GENERATION,), retention_s=None),
    Topic(
        "weights-manifest", ("WeightManifest",), "policy id", (LEARNING,), (GENERATION, DIFFICULTY), 1, 1, True, None
    ),
    Topic("checkpoints", ("Checkpoint",), "run", (LEARNING,), (LEARNING, OPERATOR), 1, 1, True, None),
    Topic("outcomes", ("Outcome",), "request id", (LEARNING,), (OPERATOR,), 8, 1),
    Topic("posterior", ("PosteriorState", "GateState"), "prompt id", (DIFFICULTY,), (DIFFICULTY,), 1, 1, True, None),
    Topic("control", ("Control",), "name", (OPERATOR, LEARNING), (*SERVICES, OPERATOR), 1, 1, True, None),
    Topic("workers", ("WorkerStatus",), "worker id and start", SERVICES, (*SERVICES, OPERATOR), 1, 1, True, None),
    Topic("evals", ("Evaluation",), "run", (OPERATOR,), (OPERATOR,)),
    Topic("dead-letters", ("DeadLetter",), "id", SERVICES, (OPERATOR,)),
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
        """Full name of a group or a transactional id."""
        return f"{self.prefix}.{self.run}.{name}"

    def short(self, full: str) -> str:
        """A topic's short name.

        >>> Names("sluice", "demo").short("sluice.demo.rollouts")
        'rollouts'
        """
        return full.removeprefix(f"{self.prefix}.{self.run}.")


def create(log: Log, names: Names, local: bool, topics: Iterable[Topic] = TOPICS) -> None:
    """Create a run's topics where they are missing."""
    log.create([config(topic, names, local) for topic in topics])


def config(topic: Topic, names: Names, local: bool) -> TopicConfig:
    """What to create for a declared topic, on one machine or on a cluster."""
    partitions = topic.local_partitions if local else topic.partitions
    return TopicConfig(names.topic(topic.name), partitions, topic.compacted, topic.retention_s)


def rights(service: str) -> list[tuple[str, str]]:
    """The least rights a service needs: (topic, "read" or "write"), in topic order."""
    if service not in (*SERVICES, OPERATOR):
        raise UserError.choice("the service", service, (*SERVICES, OPERATOR))
    return [
        (topic.name, right)
        for topic in TOPICS
        for right, who in (("read", topic.readers), ("write", topic.writers))
        if service in who
    ]
