"""What of a run's facts stands, after everything that restarts took back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.audit.facts import Facts, Name
from pipeline.lineage import Lineage
from sluice.v1 import control_pb2, training_pb2


@dataclass
class Standing:
    """What of the facts stands after all rewinds."""

    facts: Facts
    lineage: Lineage = field(init=False)

    def __post_init__(self) -> None:
        self.lineage = Lineage.of(self.facts.rewinds)

    @cached_property
    def steps(self) -> dict[int, training_pb2.TrainStep]:
        """Steps that no restart took back, by number."""
        return {one.step: one for one in self.facts.steps if self.lineage.stands(one.epoch, one.step)}

    @cached_property
    def uses(self) -> dict[Name, list[tuple[int, int]]]:
        """(use number, step) of everything that standing steps trained on."""
        found: dict[Name, list[tuple[int, int]]] = defaultdict(list)
        for number, step in sorted(self.steps.items()):
            for use in step.uses:
                found[(use.key.request_id, use.key.index)].append((use.use, number))
        return found

    @cached_property
    def drops(self) -> set[Name]:
        """Rollouts that a standing step or notice dropped."""
        stand = self.lineage.stands
        notices = (one.drops for one in self.facts.notices if stand(one.epoch, one.after_step))
        told = [drop for drops in (*(step.drops for step in self.steps.values()), *notices) for drop in drops]
        return {(drop.key.request_id, drop.key.index) for drop in told}

    @cached_property
    def checkpoint(self) -> training_pb2.Checkpoint | None:
        """The newest named checkpoint that stands; of several of one step, the last on the log."""
        found = [one for one in reversed(self.facts.checkpoints) if self.lineage.stands(one.epoch, one.step)]
        return max(found, key=lambda one: (one.epoch, one.step), default=None)

    @cached_property
    def read_past(self) -> dict[int, int]:
        """Partition of `requests` -> offset at which that checkpoint reads on: what lies below has ended."""
        offsets = self.checkpoint.offsets if self.checkpoint else []
        return {one.partition: one.offset for one in offsets if one.topic.rpartition(".")[2] == "requests"}

    def outcomes(self, name: Name) -> list[training_pb2.Outcome]:
        """Its outcomes that no restart took back."""
        return [one for one in self.facts.outcomes.get(name, ()) if self.lineage.stands(one.epoch, one.step)]

    @property
    def finished(self) -> bool:
        """Has the run been declared finished?"""
        return self.facts.phase == control_pb2.PHASE_FINISHED

    def verified(self, name: Name) -> bool:
        """Is the attempt that counts on the log, with a verdict of its own?"""
        said = self.facts.rollouts.get(name)
        verdicts = self.facts.verdicts.get(name, ())
        return bool(said) and any(found.sha256 == said[0].sha256 or not said[0].sha256 for found in verdicts)
