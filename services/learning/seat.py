"""What the learner knows of one requested rollout (a seat) and of one comparison group (a table): state."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.learning.ends import TERMINAL, End, Fate
from services.learning.group import Member
from sluice.v1 import prompt_pb2, rollout_pb2

Place = tuple[str, int, int]
"""(short topic name, partition, offset) of a record."""

VERDICTS_KEPT = 8
"""Verdicts of one seat that may wait for their rollout: the first ones, for the first attempt counts."""


@dataclass(slots=True)
class Seat:
    """One requested rollout. `rollout` is the attempt that counts: the first in log order."""

    request: prompt_pb2.RolloutRequest
    index: int
    rollout: rollout_pb2.Rollout | None = None
    waiting: dict[bytes, tuple[rollout_pb2.Verdict, Place]] = field(default_factory=dict)
    verdict: rollout_pb2.Verdict | None = None
    places: list[Place] = field(default_factory=list)
    uses: int = 0
    ended: bool = False

    @property
    def open(self) -> bool:
        """It has not ended, and there is nothing to train on yet."""
        return not self.ended and self.verdict is None

    def live(self) -> list[Place]:
        """Records that must be read again while it has not ended."""
        return [] if self.ended else [*self.places, *(place for _, place in self.waiting.values())]

    def member(self) -> Member:
        """The rollout with its verdict, for its next use."""
        assert self.rollout is not None and self.verdict is not None
        return Member(self.rollout, self.verdict, self.uses + 1)

    def terminal(self) -> tuple[int, str] | None:
        """Fate and reason of a rollout that has nothing to check; None for one that was said to its end."""
        assert self.rollout is not None
        if self.rollout.ending not in TERMINAL:
            return None
        fate, reason = TERMINAL[self.rollout.ending]
        return fate, self.rollout.reason or reason

    def end(self, fate: int, reason: str) -> End:
        """End it. One that was trained on before stays trained, whatever ends it now."""
        assert not self.ended
        self.ended = True
        if self.uses:
            fate, reason = Fate.FATE_TRAINED, ""
        rollout = self.rollout or rollout_pb2.Rollout()
        made = End(
            request_id=self.request.request_id,
            index=self.index,
            attempt=rollout.key.attempt,
            fate=fate,
            reason=reason,
            uses=self.uses,
            prompt_id=self.request.prompt_id,
            difficulty=self.request.belief.mean if self.request.HasField("belief") else None,
            tokens=sum(len(call.tokens) for call in rollout.calls),
        )
        self.rollout = self.verdict = None
        self.waiting, self.places = {}, []
        return made


@dataclass(slots=True)
class Table:
    """One comparison group: its requests and their seats. `closed` once it was handed on or ended."""

    group_id: str
    requests: dict[str, tuple[prompt_pb2.RolloutRequest, Place | None]] = field(default_factory=dict)
    seats: dict[tuple[str, int], Seat] = field(default_factory=dict)
    closed: bool = False

    def complete(self) -> bool:
        """Every request of the group was read, and none of its seats is open.

        Requests of one group lie in several partitions, so the last may be read before the first: the last one's
        indices say how many there are in all.
        """
        last = next((request for request, _ in self.requests.values() if request.final), None)
        if last is None or any(seat.open for seat in self.seats.values()):
            return False
        indices = {index for _, index in self.seats}
        return len(indices) >= last.first_index + last.n

    def overdue(self, now_ms: int, grace_ms: int) -> bool:
        """Have all deadlines passed, with grace? A request without a deadline is waited for."""
        return all(0 < request.deadline_ms < now_ms - grace_ms for request, _ in self.requests.values())

    def over(self) -> bool:
        """It was closed and every seat has ended: nothing of it is read again."""
        return self.closed and all(seat.ended for seat in self.seats.values())

    def live(self) -> list[Place]:
        """Records that must be read again while it is not over."""
        requests = [place for _, place in self.requests.values() if place is not None]
        return requests + [place for seat in self.seats.values() for place in seat.live()]


def request_of(ids: dict[str, str]) -> prompt_pb2.RolloutRequest:
    """What a request's headers say of it. Its deadline, unknown, has passed: its group does not wait for more."""
    return prompt_pb2.RolloutRequest(
        request_id=ids["request_id"],
        group_id=ids.get("group_id", ""),
        prompt_id=ids.get("prompt_id", ""),
        n=int(ids["n"]),
        first_index=int(ids.get("first_index", 0)),
        deadline_ms=1,
    )
