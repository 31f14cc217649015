"""Puts groups together: requests, rollouts and verdicts in, in whatever order they are read; groups and ends out.

    request  --> a seat for each (request, index)
    rollout  --> the first attempt in log order takes the seat; later ones are `superseded`
    verdict  --> joins only the rollout whose digest it carries; may be read before it
    seats of a group all ready or ended, its last request read --> a `Group`, once

Pure: no clock, no log, no disk. Nothing is forgotten before it has ended exactly once, and what is read again after a
restart (`snapshot`, `low_offsets`) gives the same ends. Ways to end: trained on, dropped, expired (its deadline and a
grace passed), failed. What comes after the end is `late`: counted, never trained.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from google.protobuf.message import Message

from services.learning.ends import End, Fate
from services.learning.group import Group
from services.learning.ids import IdSet
from services.learning.seat import VERDICTS_KEPT, Place, Seat, Table
from sluice.v1 import prompt_pb2, rollout_pb2

Name = tuple[str, int]
"""(request id, index)."""
Outcome = rollout_pb2.VerdictOutcome

EARLY_KEPT = 20_000
"""Records of requests not read yet that are held; more are the oldest's loss, counted as `orphaned`."""


class Assembler:
    """All groups that are not over.

    `min_group`: fewer usable members are dropped as "short_group". `grace_ms`: how long after a request's deadline its
    missing rollouts and verdicts are waited for.
    """

    def __init__(self, min_group: int = 1, grace_ms: int = 30_000) -> None:
        self.min_group, self.grace_ms = min_group, grace_ms
        self.counts: Counter[str] = Counter()
        self._tables: dict[str, Table] = {}
        self._table_of: dict[str, Table] = {}
        self._early: dict[str, list[tuple[Message, Place]]] = {}
        self._early_since: dict[str, int] = {}
        self._early_records = 0
        self._over = IdSet()
        self._issued_over = 0
        self._next: dict[tuple[str, int], int] = {}
        self._counted_to: dict[tuple[str, int], int] = {}
        self._restored: dict[Name, int | None] = {}
        self._closed: list[Group] = []
        self._ends: list[End] = []
        self._newly_over: list[str] = []
        self._draining = ""

    # What is read.

    def add(self, noun: Message, place: Place, written_ms: int = 0) -> None:
        """A `RolloutRequest`, `Rollout` or `Verdict`, where its record lies and when it was written.

        Other nouns are passed over.
        """
        topic, partition, offset = place
        self._next[(topic, partition)] = max(offset + 1, self._next.get((topic, partition), 0))
        if isinstance(noun, prompt_pb2.RolloutRequest):
            self._request(noun, place)
        elif isinstance(noun, rollout_pb2.Rollout | rollout_pb2.Verdict):
            self._about(noun, place, written_ms)

    def poison(self, name: Name) -> None:
        """A rollout or verdict that cannot be read: its seat has failed."""
        seat = self._seat(name)
        if seat is not None and not seat.ended:
            self._end(seat, Fate.FATE_FAILED, "poison")

    def poison_request(self, request: prompt_pb2.RolloutRequest) -> None:
        """A request that cannot be read; `request` is what its headers say. All its seats have failed."""
        self._request(request, None)
        for index in range(request.first_index, request.first_index + request.n):
            self.poison((request.request_id, index))

    def expire(self, now_ms: int) -> None:
        """End what is missing of requests whose deadline and grace have passed by `now_ms`.

        Everything that was written until then must have been read. So a rollout written a grace before it, whose
        request was not read, has none.
        """
        for table in list(self._tables.values()):
            for seat in list(table.seats.values()):
                deadline_ms = seat.request.deadline_ms
                if seat.open and 0 < deadline_ms < now_ms - self.grace_ms:
                    self._end(seat, Fate.FATE_EXPIRED, "no_verdict" if seat.rollout else "no_rollout")
            if not table.closed and table.overdue(now_ms, self.grace_ms):
                self._close(table)
        for request_id in list(self._early):
            if now_ms - self._early_since[request_id] > self.grace_ms:
                self._orphan(request_id)

    def drain(self, reason: str) -> None:
        """From now on nothing is trained: what has arrived ends as dropped for `reason`, and so does what arrives."""
        self._draining = reason
        self._closed = []
        for table in list(self._tables.values()):
            for seat in list(table.seats.values()):
                if not seat.ended and seat.rollout is not None:
                    self._end(seat, Fate.FATE_DROPPED, reason)
            self._settle(table)

    # What comes out.

    def closed(self) -> list[Group]:
        """Groups that closed since the last call, in closing order. Each member must be ended: `used`, then `end`."""
        found, self._closed = self._closed, []
        return found

    def ends(self) -> list[End]:
        """Rollouts that ended since the last call."""
        found, self._ends = self._ends, []
        return found

    def over(self) -> list[str]:
        """Requests whose every rollout ended since the last call."""
        found, self._newly_over = self._newly_over, []
        return found

    def used(self, name: Name) -> None:
        """A step trained on it."""
        seat = self._seat(name)
        assert seat is not None and not seat.ended, name
        seat.uses += 1

    def end(self, name: Name, reason: str = "") -> None:
        """It leaves the learner: trained when it was ever used, else dropped for `reason`."""
        seat = self._seat(name)
        if seat is not None and not seat.ended:
            self._end(seat, Fate.FATE_DROPPED, reason)

    # What survives a restart.

    def low_offsets(self) -> dict[tuple[str, int], int]:
        """For each (topic, partition), where reading resumes so that all that has not ended is read again."""
        low = dict(self._next)
        for place in self._live():
            topic, partition, offset = place
            low[(topic, partition)] = min(offset, low[(topic, partition)])
        return low

    def snapshot(self) -> dict[str, Any]:
        """As JSON: what had ended, above the low offsets too, and how often what is kept for reuse was used."""
        known = dict(self._restored)
        for table in self._tables.values():
            known |= {name: None if seat.ended else seat.uses for name, seat in table.seats.items()}
        read_to = {position: max(offset, self._counted_to.get(position, 0)) for position, offset in self._next.items()}
        return {
            "over": self._over.dump(),
            "issued_over": self._issued_over,
            "ended": [[*name] for name, uses in known.items() if uses is None],
            "used": [[*name, uses] for name, uses in known.items() if uses],
            "read_to": [[*position, offset] for position, offset in sorted(read_to.items())],
            "low": [[*position, offset] for position, offset in sorted(self.low_offsets().items())],
            "counts": dict(self.counts),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Begin from a snapshot; reading must resume at its low offsets."""
        self._over = IdSet.load(snapshot["over"])
        self._issued_over = snapshot["issued_over"]
        self._restored = dict.fromkeys((request_id, index) for request_id, index in snapshot["ended"])
        self._restored |= {(request_id, index): uses for request_id, index, uses in snapshot["used"]}
        self._counted_to = {(topic, partition): offset for topic, partition, offset in snapshot["read_to"]}
        self._next = {(topic, partition): offset for topic, partition, offset in snapshot["low"]}
        self.counts = Counter(snapshot["counts"])

    def take_as_ended(self, name: Name) -> None:
        """Before anything is read: this one has an outcome already, whatever the snapshot says."""
        if name[0] not in self._over:
            self._restored[name] = None

    # How it stands.

    @property
    def requests_seen(self) -> int:
        """Requests of the difficulty service read so far, each once; re-driven ones do not count."""
        reading = (request for table in self._tables.values() for request, _ in table.requests.values())
        return self._issued_over + sum(1 for request in reading if not request.redrives)

    def standing(self) -> dict[str, int]:
        """Momentary numbers by name: groups that wait or are held, what they miss, records that came early."""
        waiting = [table for table in self._tables.values() if not table.closed]
        seats = [seat for table in waiting for seat in table.seats.values() if seat.open]
        return {
            "groups_waiting": len(waiting),
            "groups_held": len(self._tables) - len(waiting),
            "rollouts_missing": sum(seat.rollout is None for seat in seats),
            "verdicts_missing": sum(seat.rollout is not None for seat in seats),
            "early_records": self._early_records,
        }

    @property
    def idle(self) -> bool:
        """Nothing that was requested and read has yet to end."""
        return not self._tables and not self._early

    # How it decides.

    def _request(self, request: prompt_pb2.RolloutRequest, place: Place | None) -> None:
        if request.request_id in self._table_of or request.request_id in self._over:
            return
        table = self._tables.setdefault(request.group_id, Table(request.group_id))
        if table.closed:  # its group gave up waiting for it: what it brings is a group of its own
            table = self._tables.setdefault(f"{request.group_id}/{request.request_id}", Table(request.group_id))
        table.requests[request.request_id] = (request, place)
        self._table_of[request.request_id] = table
        for index in range(request.first_index, request.first_index + request.n):
            table.seats[(request.request_id, index)] = self._new_seat(request, index)
        for noun, early in self._take_early(request.request_id):
            self._about(noun, early)
        self._settle(table)

    def _new_seat(self, request: prompt_pb2.RolloutRequest, index: int) -> Seat:
        seat = Seat(request, index)
        if (request.request_id, index) in self._restored:
            uses = self._restored.pop((request.request_id, index))
            seat.ended, seat.uses = uses is None, uses or 0
        return seat

    def _about(self, noun: rollout_pb2.Rollout | rollout_pb2.Verdict, place: Place, written_ms: int = 0) -> None:
        name = (noun.key.request_id, noun.key.index)
        kind = "rollouts" if isinstance(noun, rollout_pb2.Rollout) else "verdicts"
        seat = self._seat(name)
        if seat is None and self._unread(noun.key.request_id):
            self._hold_early(noun, place, written_ms)
        elif seat is None or seat.ended:
            if getattr(noun, "outcome", None) != Outcome.VERDICT_OUTCOME_NOT_RUN:  # that follows every terminal rollout
                self._count(f"late_{kind}", place)
        elif isinstance(noun, rollout_pb2.Rollout):
            self._rollout(seat, noun, place)
        else:
            self._verdict(seat, noun, place)

    def _unread(self, request_id: str) -> bool:
        return request_id not in self._over and request_id not in self._table_of

    def _hold_early(self, noun: Message, place: Place, written_ms: int) -> None:
        if self._early_records >= EARLY_KEPT:
            self._orphan(next(iter(self._early)))
        request_id = noun.key.request_id  # type: ignore[attr-defined]
        self._early.setdefault(request_id, []).append((noun, place))
        self._early_since[request_id] = max(written_ms, self._early_since.get(request_id, 0))
        self._early_records += 1

    def _take_early(self, request_id: str) -> list[tuple[Message, Place]]:
        self._early_since.pop(request_id, None)
        found = self._early.pop(request_id, [])
        self._early_records -= len(found)
        return found

    def _orphan(self, request_id: str) -> None:
        for _, place in self._take_early(request_id):
            self._count("orphaned", place)

    def _rollout(self, seat: Seat, rollout: rollout_pb2.Rollout, place: Place) -> None:
        if seat.rollout is not None:
            self._count("superseded", place)
            return
        seat.rollout = rollout
        seat.places.append(place)
        terminal = seat.terminal()
        if terminal is not None:
            self._end(seat, *terminal)
        elif self._draining:
            self._end(seat, Fate.FATE_DROPPED, self._draining)
        elif rollout.sha256 in seat.waiting:
            self._join(seat, *seat.waiting.pop(rollout.sha256))

    def _verdict(self, seat: Seat, verdict: rollout_pb2.Verdict, place: Place) -> None:
        if seat.rollout is None:
            if len(seat.waiting) < VERDICTS_KEPT:
                seat.waiting.setdefault(verdict.rollout_sha256, (verdict, place))
        elif seat.verdict is not None or verdict.rollout_sha256 != seat.rollout.sha256:
            self._count("superseded_verdicts", place)
        else:
            self._join(seat, verdict, place)

    def _join(self, seat: Seat, verdict: rollout_pb2.Verdict, place: Place) -> None:
        for _, other in seat.waiting.values():
            self._count("superseded_verdicts", other)
        seat.waiting = {}
        seat.verdict = verdict
        seat.places.append(place)
        if verdict.outcome == Outcome.VERDICT_OUTCOME_INFRA_ERROR:
            self._end(seat, Fate.FATE_DROPPED, "infra_error")
        elif verdict.outcome in (Outcome.VERDICT_OUTCOME_NOT_RUN, Outcome.VERDICT_OUTCOME_UNSPECIFIED):
            self._end(seat, Fate.FATE_FAILED, verdict.reason or "not_run")
        else:
            self._settle(self._table_of[seat.request.request_id])

    def _end(self, seat: Seat, fate: int, reason: str) -> None:
        self._ends.append(seat.end(fate, reason))
        self._settle(self._table_of[seat.request.request_id])

    def _settle(self, table: Table) -> None:
        if not table.closed and table.complete():
            self._close(table)
        if table.over():
            self._forget(table)

    def _close(self, table: Table) -> None:
        table.closed = True
        seats = sorted((seat for seat in table.seats.values() if not seat.ended), key=lambda seat: seat.index)
        if seats and len(seats) >= self.min_group and not self._draining:
            prompt_id = seats[0].request.prompt_id
            self._closed.append(Group(table.group_id, prompt_id, tuple(seat.member() for seat in seats)))
            return
        for seat in seats:
            self._ends.append(seat.end(Fate.FATE_DROPPED, self._draining or "short_group"))
        self._forget(table)

    def _forget(self, table: Table) -> None:
        for key in [key for key, value in self._tables.items() if value is table]:
            del self._tables[key]
        for request, _ in table.requests.values():
            if request.request_id in self._table_of:
                del self._table_of[request.request_id]
                self._over.add(request.request_id)
                self._newly_over.append(request.request_id)
                self._issued_over += not request.redrives

    def _seat(self, name: Name) -> Seat | None:
        table = self._table_of.get(name[0])
        return table.seats.get(name) if table is not None else None

    def _live(self) -> list[Place]:
        held = [place for table in self._tables.values() for place in table.live()]
        return held + [place for records in self._early.values() for _, place in records]

    def _count(self, what: str, place: Place) -> None:
        # What is read again after a restart was counted before it.
        topic, partition, offset = place
        if offset >= self._counted_to.get((topic, partition), 0):
            self.counts[what] += 1
