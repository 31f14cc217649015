"""The admission gate: how many rollouts may be outstanding, so that work is paced and not thrown away.

    outstanding <= (max_lag + 1) * batch_rollouts        groups <= (max_lag + 1) * batch_groups

The second is what keeps the lag: a step trains so many groups, so what waits behind many small groups gets as old as
what waits behind many rollouts. Where all groups have one size the two are the same bound.

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
    `group_rollouts`, `kept`: as `groups_of` says them; until then each rollout may be a group.
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
    groups: int = 0
    """Requests that hold places: what the learner may train on without another issue."""
    group_rollouts: int = 1
    kept: int = 0
    open: dict[str, Open] = field(default_factory=dict)
    _short: int = 0
    """Places that requests out count as above what they hold, up to `kept` each."""

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
    def batch_groups(self) -> int:
        """Groups per optimiser step."""
        return self.batch_rollouts // self.group_rollouts

    @property
    def free_groups(self) -> int:
        """Groups that may still be asked for."""
        return max((self.max_lag + 1) * self.batch_groups - self.groups, 0)

    @property
    def free(self) -> int:
        """Places that are free.

        After a rewind large groups of several steps may be out together, and fewer of them than a step trains: then
        only more groups make room, so each that is missing has `kept` places, above the bound.
        """
        bound = self.capacity - self.outstanding - self._short
        return max(bound, self.kept * (self.batch_groups - self.groups), 0)

    @property
    def oldest_version(self) -> int:
        """The version with which the next rollout must be sampled at least, to be within `max_lag` at its turn.

        The groups that are out are trained before it, a batch for each version. Steps that drop some come to it sooner.

        >>> gate = Gate(max_lag=2, batch_rollouts=8, version=5, group_rollouts=8)
        >>> found = []
        >>> for number in range(3):
        ...     found.append(gate.oldest_version)
        ...     gate.issue(f"r{number}", 8, 0, "p", 0)
        >>> found
        [3, 4, 5]
        """
        return max(self.version + self.groups // self.batch_groups - self.max_lag, 0)

    def room(self) -> int:
        """Rollouts that may still be asked for, in groups of `group_rollouts` on the average."""
        return min(self.free, self.free_groups * self.group_rollouts)

    def groups_of(self, n: int, kept: int) -> None:
        """Groups have `n` rollouts on the average; each counts as `kept` places at least until it has ended whole.

        So its end makes room for another of `kept`. `UserError` when such groups could never pass.
        """
        if n > self.batch_rollouts:
            raise UserError(f"a group of {n} rollouts does not fit a batch; accepted: at most {self.batch_rollouts}")
        self.group_rollouts, self.kept = n, kept

    def next_ids(self) -> tuple[str, str]:
        """(request id, group id) of the next request."""
        number = f"{self.issued_requests + 1:08d}"
        return f"r-{number}", f"g-{number}"

    def issue(self, request_id: str, n: int, first_index: int, prompt_id: str, deadline_ms: int) -> None:
        """Hold `n` places. A caller that asks for more than there are has a bug: `ValueError`."""
        if not 1 <= n <= self.free or not self.free_groups:
            raise ValueError(f"a request of {n} rollouts with room for {self.free} in {self.free_groups} groups")
        if request_id in self.open:
            raise ValueError(f"request {request_id} was issued before")
        self.open[request_id] = Open(n, first_index, prompt_id, deadline_ms)
        self._count(self.open[request_id], 1)
        self.issued_requests += 1
        self.issued_rollouts += n

    def ended(self, request_id: str, indices: Iterable[int], epoch: int, step: int) -> int:
        """Give places back at `step`; returns how many. What is unknown or has ended before gives none."""
        request = self.open.get(request_id)
        if request is None:
            return 0
        known = range(request.first_index, request.first_index + request.n)
        fresh = {index for index in indices if index in known and index not in request.ended}
        self._count(request, -1)
        request.ended.update(dict.fromkeys(sorted(fresh), step))
        request.epoch = epoch if fresh else request.epoch
        self._count(request, 1)
        self._forget(request_id)
        return len(fresh)

    def _count(self, request: Open, sign: int) -> None:
        """Add a request to what is out, or take it away."""
        if request.places:
            self.outstanding += sign * request.places
            self.groups += sign
            self._short += sign * max(self.kept - request.places, 0)

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
            self._count(request, -1)
            for index in void:
                del request.ended[index]
            self._count(request, 1)
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
        self.outstanding = self.groups = self._short = 0
        for request in self.open.values():
            self._count(request, 1)
