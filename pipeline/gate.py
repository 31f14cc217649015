"""The admission gate: how many rollouts may be outstanding, so that work is paced and not thrown away.

    outstanding <= (max_lag + 1) * batch_rollouts

Every rollout asked for holds a place from its request to its end. A rollout ends once: at the step that first trains on
it, or that drops it, or at a drop notice between two steps. Until a named checkpoint covers that step the end is
tentative: a rewind to an earlier step voids it, and the place is held again (the learner reads that rollout again). So
after a rewind more may be outstanding than the bound allows; the gate then issues nothing until enough has ended.

Decisions only: no clock, no log. Its whole state is one record, `GateState`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import UserError
from sluice.v1 import posterior_pb2, rollout_pb2, training_pb2


@dataclass
class Open:
    """A request that holds places, or may again. `ended` maps the index of an ended rollout to the step of its end."""

    n: int
    first_index: int
    prompt_id: str
    deadline_ms: int
    ended: dict[int, int] = field(default_factory=dict)
    epoch: int = 0

    @property
    def places(self) -> int:
        """Rollouts that have not ended."""
        return self.n - len(self.ended)


@dataclass
class Gate:
    """Who may go in.

    `max_lag`: versions, >= 0; 0 is the synchronous algorithm. `batch_rollouts`: rollouts per optimiser step, >= 1.
    `drawn` and `rng_json` are the sampler's, kept here because they change with every issue.
    """

    max_lag: int
    batch_rollouts: int
    issued_requests: int = 0
    issued_rollouts: int = 0
    drawn: int = 0
    rng_json: str = ""
    epoch: int = 0
    step: int = 0
    version: int = 0
    checkpoint_step: int = 0
    outstanding: int = 0
    open: dict[str, Open] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_lag < 0:
            raise UserError(f"max_lag is {self.max_lag}; accepted: at least 0")
        if self.batch_rollouts < 1:
            raise UserError(f"batch_rollouts is {self.batch_rollouts}; accepted: at least 1")

    @property
    def capacity(self) -> int:
        """The bound, in rollouts."""
        return (self.max_lag + 1) * self.batch_rollouts

    @property
    def oldest_version(self) -> int:
        """The version with which the next rollout must be sampled at least, to be within `max_lag` at its turn.

        What is outstanding is trained before it, a batch for each version. Steps that drop rollouts come to it sooner.

        >>> gate = Gate(max_lag=2, batch_rollouts=8, version=5)
        >>> found = []
        >>> for number in range(3):
        ...     found.append(gate.oldest_version)
        ...     gate.issue(f"r{number}", 8, 0, "p", 0)
        >>> found
        [3, 4, 5]
        """
        return max(self.version + self.outstanding // self.batch_rollouts - self.max_lag, 0)

    def room(self, kept: int = 0) -> int:
        """Rollouts that may still be asked for, given what is out.

        With `kept` a request counts as so many places at least until it has ended whole: then its end makes that room.
        """
        short = sum(max(kept - request.places, 0) for request in self.open.values() if request.places) if kept else 0
        return max(self.capacity - self.outstanding - short, 0)

    def groups(self) -> int:
        """Requests that hold places: what the learner may train on without another issue."""
        return sum(request.places > 0 for request in self.open.values())

    def refuse_group_of(self, n: int) -> None:
        """Refuse a configuration whose groups could never pass."""
        if n > self.batch_rollouts:
            raise UserError(f"a group of {n} rollouts does not fit a batch; accepted: at most {self.batch_rollouts}")

    def next_ids(self) -> tuple[str, str]:
        """(request id, group id) of the next request."""
        number = f"{self.issued_requests + 1:08d}"
        return f"r-{number}", f"g-{number}"

    def issue(self, request_id: str, n: int, first_index: int, prompt_id: str, deadline_ms: int) -> None:
        """Hold `n` places. A caller that asks for more than `room()` has a bug: `ValueError`."""
        if not 1 <= n <= self.room():
            raise ValueError(f"a request of {n} rollouts with room for {self.room()}")
        if request_id in self.open:
            raise ValueError(f"request {request_id} was issued before")
        self.open[request_id] = Open(n, first_index, prompt_id, deadline_ms)
        self.outstanding += n
        self.issued_requests += 1
        self.issued_rollouts += n

    def ended(self, request_id: str, indices: Iterable[int], epoch: int, step: int) -> int:
        """Give places back at `step`; returns how many. What is unknown or has ended before gives none."""
        request = self.open.get(request_id)
        if request is None:
            return 0
        known = range(request.first_index, request.first_index + request.n)
        fresh = {index for index in indices if index in known and index not in request.ended}
        request.ended.update(dict.fromkeys(sorted(fresh), step))
        request.epoch = epoch if fresh else request.epoch
        self.outstanding -= len(fresh)
        self._forget(request_id)
        return len(fresh)

    def apply_step(self, step: training_pb2.TrainStep) -> bool:
        """Apply an optimiser step; False when it is void or was applied before."""
        if step.epoch < self.epoch or (step.epoch == self.epoch and step.step <= self.step):
            return False
        self.epoch, self.step, self.version = step.epoch, step.step, max(self.version, step.version)
        first_uses = [use.key for use in step.uses if use.use == 1]
        self._end(first_uses + [drop.key for drop in step.drops], step.epoch, step.step)
        for request_id in step.ended_requests:
            if request_id in self.open:
                request = self.open[request_id]
                indices = range(request.first_index, request.first_index + request.n)
                self.ended(request_id, indices, step.epoch, step.step)
        self.checkpointed(step.checkpoint_step)
        return True

    def apply_drops(self, notice: training_pb2.DropNotice) -> bool:
        """Apply a drop notice; False when it is void.

        Its ends count as of the step after the one it follows: a checkpoint of the step before it says nothing of it.
        """
        if notice.epoch < self.epoch:
            return False
        self._end([drop.key for drop in notice.drops], notice.epoch, notice.after_step + 1)
        return True

    def _end(self, keys: Iterable[rollout_pb2.RolloutKey], epoch: int, step: int) -> None:
        for key in keys:
            self.ended(key.request_id, (key.index,), epoch, step)

    def checkpointed(self, step: int) -> None:
        """What ended at or before `step` has ended for good."""
        if step > self.checkpoint_step:
            self.checkpoint_step = step
            for request_id in list(self.open):
                self._forget(request_id)

    def rewind(self, rewind: training_pb2.Rewind) -> bool:
        """Take back what ended after `to_step`; False when an epoch at least as new is known."""
        if rewind.epoch <= self.epoch and self.epoch:
            return False
        self.epoch, self.step = rewind.epoch, rewind.to_step
        self.version, self.checkpoint_step = max(self.version, rewind.version), rewind.to_step
        for request_id, request in list(self.open.items()):
            void = [index for index, step in request.ended.items() if step > rewind.to_step]
            for index in void:
                del request.ended[index]
            self.outstanding += len(void)
            self._forget(request_id)
        return True

    def _forget(self, request_id: str) -> None:
        """Drop a request that can never hold a place again."""
        request = self.open[request_id]
        if not request.places and max(request.ended.values()) <= self.checkpoint_step:
            del self.open[request_id]

    def to_record(self) -> posterior_pb2.GateState:
        """The whole state."""
        names = ("issued_requests", "issued_rollouts", "drawn", "rng_json", "epoch", "step", "version")
        record = posterior_pb2.GateState(**{name: getattr(self, name) for name in names})
        record.checkpoint_step = self.checkpoint_step
        for request_id, request in self.open.items():
            record.open.add(
                request_id=request_id,
                places=request.places,
                ended_at_step=request.ended,
                epoch=request.epoch,
                prompt_id=request.prompt_id,
                deadline_ms=request.deadline_ms,
                first_index=request.first_index,
            )
        return record

    def from_record(self, record: posterior_pb2.GateState) -> None:
        """Become what the record says; the bound stays the configuration's."""
        for name in ("issued_requests", "issued_rollouts", "drawn", "rng_json", "epoch", "step", "version"):
            setattr(self, name, getattr(record, name))
        self.checkpoint_step = record.checkpoint_step
        self.open = {
            row.request_id: Open(
                n=row.places + len(row.ended_at_step),
                first_index=row.first_index,
                prompt_id=row.prompt_id,
                deadline_ms=row.deadline_ms,
                ended={index: row.ended_at_step[index] for index in sorted(row.ended_at_step)},
                epoch=row.epoch,
            )
            for row in record.open
        }
        self.outstanding = sum(request.places for request in self.open.values())
