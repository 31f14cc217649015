"""What a run looks like from outside: a fold over `workers`, `steps`, `evals` and `control`.

Pure: nouns in, a `View` that the live display, the summary and the report read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pipeline import records
from pipeline.log.api import Follower, Log, Position
from pipeline.topics import Names
from sluice.v1 import control_pb2, training_pb2

TOPICS = ("workers", "steps", "evals", "control")


@dataclass
class View:
    """The run so far. `steps` holds the surviving steps in order; what a rewind voided is gone."""

    workers: dict[str, control_pb2.WorkerStatus] = field(default_factory=dict)
    """The newest status of each worker, by its id."""
    lives: dict[tuple[str, int], control_pb2.WorkerStatus] = field(default_factory=dict)
    """The last status of each process that was ever one of them, by worker id and start."""
    steps: list[training_pb2.TrainStep] = field(default_factory=list)
    evals: list[control_pb2.Evaluation] = field(default_factory=list)
    control: control_pb2.Control = field(default_factory=control_pb2.Control)
    drops: Counter[str] = field(default_factory=Counter)
    rewinds: int = 0
    voided_steps: int = 0

    def add(self, noun: Message) -> None:
        """Fold in one noun."""
        if isinstance(noun, control_pb2.WorkerStatus):
            self.workers[noun.worker_id] = noun
            self.lives[noun.worker_id, noun.started_ms] = noun
        elif isinstance(noun, training_pb2.TrainStep):
            self._step(noun)
        elif isinstance(noun, training_pb2.DropNotice):
            self.drops.update(drop.reason for drop in noun.drops)
        elif isinstance(noun, training_pb2.Rewind):
            self._rewind(noun)
        elif isinstance(noun, control_pb2.Evaluation):
            self.evals.append(noun)
        elif isinstance(noun, control_pb2.Control):
            self.control = noun

    def of(self, service: str) -> list[control_pb2.WorkerStatus]:
        """The newest status of each of a service's workers, in name order."""
        return [status for _, status in sorted(self.workers.items()) if status.service == service]

    def lives_of(self, service: str) -> list[control_pb2.WorkerStatus]:
        """The last status of every process of a service, those that ended among them, in name order."""
        return [status for _, status in sorted(self.lives.items()) if status.service == service]

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.steps[-1].step if self.steps else 0

    def evaluation(self, name: str, step: int | None = None) -> control_pb2.Evaluation | None:
        """The newest evaluation of that name (made by that step)."""
        found = [one for one in self.evals if one.name == name and step in (None, one.step)]
        return found[-1] if found else None

    def lag_histogram(self, last: int = 20) -> Counter[int]:
        """Trained rollouts of the last steps by mean lag, rounded down to versions."""
        return Counter(int(use.lag) for step in self.steps[-last:] for use in step.uses)

    def _step(self, step: training_pb2.TrainStep) -> None:
        if not self.steps or step.step > self.steps[-1].step:
            self.steps.append(step)
            self.drops.update(drop.reason for drop in step.drops)

    def _rewind(self, rewind: training_pb2.Rewind) -> None:
        self.rewinds += 1
        before = len(self.steps)
        self.steps = [step for step in self.steps if step.step <= rewind.to_step]
        self.voided_steps += before - len(self.steps)


class Watcher:
    """Follows those topics and keeps a view current."""

    def __init__(self, log: Log, names: Names) -> None:
        self.view = View()
        first = {}
        for name in TOPICS:
            full = names.topic(name)
            first |= {(full, partition): low for partition, (low, _) in log.bounds(full).items()}
        self._follower: Follower = log.follow(first)

    def look(self, timeout: float = 0.2) -> View:
        """Fold in what is new."""
        for record in self._follower.poll(timeout, 2000):
            self.view.add(records.decode(record))
        return self.view

    def reached(self, ends: dict[Position, int]) -> bool:
        """Has it read everything below these offsets?"""
        here = self._follower.positions()
        return all(here.get(position, 0) >= end for position, end in ends.items())

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
