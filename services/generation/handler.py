"""What the stage calls: requests in, all of a request's rollouts out, in whatever order they finish.

    take(request) -> refused, late, seen before   -> done at once
                     not yet (not before, weights too old for it, no room) -> parked, tried again at every turn;
                         with weights that stay too old, or room that does not come: handed back, to another worker
                     else -> desk -> engine -> done

A request is done when all of its rollouts have ended; they go out together.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from google.protobuf.message import Message

from pipeline.errors import Poison
from pipeline.life import Life
from pipeline.metrics import Meter
from pipeline.stage import Output
from services.generation import fleet, policy, rollouts
from services.generation.admission import LOOK_EVERY_S, Admission, Load
from services.generation.desk import Desk, Ticket
from services.generation.versions import Versions
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2

REMEMBERED = 100_000
"""Finished requests that are remembered, to answer a second delivery with nothing."""
QUEUED_SHARE = 0.25
"""Rollouts that may wait in front of the engine, as a share of its slots: enough to refill it without a pause."""
ENDING_ROOM = 500
KINDS = {kind: kind for kind in ("hint", "exemplar", "prefix", "experience")}
COUNTED = ("rollouts", "tokens", "requests", "handed_back")
QUIET_TURNS = 3
"""Turns of the stage without a request, while the run ends, after which the worker calls itself drained."""


@dataclass
class Done:
    """A finished record and what to write for it."""

    token: object
    outputs: list[Output]


@dataclass(frozen=True)
class Parked:
    """A request that has to wait. `since_s`: for its weights or for room, since this moment of the handler's clock."""

    request: prompt_pb2.RolloutRequest
    token: object
    since_s: float


@dataclass
class GenerationHandler:
    """Generation's craft, as the stage sees it. Called by one thread; finished requests arrive from others.

    `kv_high`: share of the engine's key-value cache above which fewer rollouts are let in; 1 never.
    """

    desk: Desk
    versions: Versions
    life: Life
    meter: Meter
    kv_high: float = 0.95
    clock: Callable[[], float] = time.time
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0.0))
    _done: SimpleQueue[Done] = field(default_factory=SimpleQueue)
    _parked: list[Parked] = field(default_factory=list)
    _seen: OrderedDict[tuple[str, int], None] = field(default_factory=OrderedDict)
    _tickets: dict[tuple[str, int], Ticket] = field(default_factory=dict)
    _mean_n: float = 1.0
    _leaving: bool = False
    _quiet_turns: int = 0
    _looked_s: float = 0.0
    _preempted: int = 0
    _ended: Counter[rollout_pb2.Ending] = field(default_factory=Counter)
    _sizes: list[tuple[float, str]] = field(default_factory=list)
    _published: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.desk.on_rollout = self._count
        self.desk.on_death = lambda reason: self.versions.post.tell(fleet.Died(reason))
        self.admission = Admission(self._ceiling(), self.kv_high)

    def room(self) -> int:
        """Requests it would take now; 0 when stale, paused, loading, leaving or full.

        While the run ends there is room for all: what is still asked for is ended at once, so that nothing is lost.
        """
        if self.life.run_ends:
            self._quiet_turns += 1
            return ENDING_ROOM
        self._quiet_turns = 0
        self._look()
        if self._parked or self.waiting_for() != "no_requests":
            return 0
        return max(1, int((self.admission.limit - self.desk.outstanding) / self._mean_n))

    def take(self, request: Message, token: object) -> None:
        """Begin a request. Raises `Poison` for another noun."""
        if not isinstance(request, prompt_pb2.RolloutRequest):
            raise Poison(f"record holds a {request.DESCRIPTOR.name}; accepted: RolloutRequest")
        self.counts["requests"] += 1
        self._quiet_turns = 0
        self._mean_n += 0.1 * (max(request.n, 1) - self._mean_n)
        if (request.request_id, request.attempt) in self._seen:
            self._done.put(Done(token, []))
            return
        self._remember(request)
        self.versions.heard(request.version_at_issue)
        if not self._begin(request, token):
            since_s = max(self.clock(), request.not_before_ms / 1000)
            self._parked.append(Parked(request, token, since_s))

    def done(self, timeout: float) -> list[Done]:
        """What has finished; waits up to `timeout` seconds. Raises `WorkerDied`; what it held stays uncommitted."""
        self._unpark()
        found: list[Done] = []
        try:
            found.append(self._done.get(timeout=timeout) if timeout > 0 else self._done.get_nowait())
            while True:
                found.append(self._done.get_nowait())
        except Empty:
            pass
        standing = self.standing()
        if standing.state == control_pb2.WORKER_STATE_DEAD:
            raise fleet.WorkerDied(standing.reason) from self.desk.error
        return found

    def poison(self, ids: dict[str, str], reason: str) -> list[Output]:
        """Failed rollouts for a request that could not be read, from its headers' ids."""
        return _outputs(rollouts.poisoned(ids, reason, self.desk.maker))

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        if self.life.run_ends or self._leaving:
            return "draining"
        if not self.life.takes_work:
            return "paused"
        waits_for = self.standing().waits_for
        if self.versions.held_back:
            return "hold"
        if waits_for == "no_requests" and any(not self._fresh_for(one.request) for one in self._parked):
            return "weights"
        if waits_for != "no_requests" or self.desk.outstanding < self.admission.limit:
            return waits_for
        return "kv_cache" if self._overloaded() else "engine"

    def drain(self, end_now: bool) -> None:
        """Take nothing new; with `end_now` end what runs and what waits (ABORTED, reason "drained")."""
        self._leaving = self._leaving or not end_now
        if end_now:
            self.desk.abort(list(self._tickets.values()))  # the door's callers are not the run's
            self._unpark()

    def standing(self) -> fleet.Standing:
        """State, reason, and what it waits for."""
        ends = self.life.run_ends and self._quiet_turns >= QUIET_TURNS
        outstanding = self.desk.outstanding + len(self._parked)
        return self.versions.post.tell(fleet.Turn(self._leaving or ends, outstanding))

    def gauges(self) -> dict[str, float]:
        """Momentary values, by name."""
        engine = self.desk.engine
        return {
            "running": float(engine.running()),
            "capacity": float(engine.capacity()),
            "replicas": float(engine.replicas),
            "version": float(engine.version),
            "admitted": self.admission.limit,
            "kv_used": engine.kv_use(),
            "parked": float(len(self._parked)),
        }

    def _begin(self, request: prompt_pb2.RolloutRequest, token: object) -> bool:
        """Start a request or end it at once; false when it has to wait."""
        now_ms = self.clock() * 1000
        if self.life.run_ends:
            self._end(request, token, rollout_pb2.ENDING_ABORTED, policy.DRAINED)
        elif policy.refusal(request):
            self._end(request, token, rollout_pb2.ENDING_FAILED, policy.UNSUPPORTED_SAMPLING)
        elif 0 < request.deadline_ms < now_ms:
            self._end(request, token, rollout_pb2.ENDING_EXPIRED, policy.DEADLINE)
        elif request.not_before_ms > now_ms or not self._fresh_for(request) or self._overloaded():
            return False
        else:
            self._open(request, token)
        return True

    def _open(self, request: prompt_pb2.RolloutRequest, token: object) -> None:
        key = (request.request_id, request.attempt)

        def finish(made: list[rollout_pb2.Rollout]) -> None:
            self._tickets.pop(key, None)
            self._finish(token, made)

        self.meter.observe("sluice_generation_lag_versions", self.versions.lag)
        ticket = self.desk.open(request, finish)
        self._tickets[key] = ticket
        if len(ticket.made) == len(ticket.jobs):  # it finished before it was entered
            self._tickets.pop(key, None)

    def _fresh_for(self, request: prompt_pb2.RolloutRequest) -> bool:
        applied = self.versions.applied
        if applied is None or applied < request.oldest_version:
            return False
        return fleet.eligible(applied, request.version_at_issue, self.versions.max_lag)

    def _ceiling(self) -> float:
        return self.desk.engine.capacity() * (1 + QUEUED_SHARE)

    def _overloaded(self) -> bool:
        """Has the cache lowered the limit, and is there as much in work as it allows?"""
        limit = self.admission.limit
        return limit < self._ceiling() and self.desk.outstanding >= limit

    def _look(self) -> None:
        """Let the limit follow the engine's cache, once a second."""
        now_s, engine = time.monotonic(), self.desk.engine
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        use, preempted = engine.kv_use(), engine.preempted()
        scarce = use if engine.kv_shared else 0.0
        load = Load(scarce, preempted - self._preempted, self.desk.outstanding, self._mean_n, self._ceiling())
        self._preempted = preempted
        self.admission = self.admission.after(load)
        self.meter.set("sluice_generation_kv_used_ratio", use)
        self.meter.set("sluice_generation_admitted", self.admission.limit)

    def _end(self, request: prompt_pb2.RolloutRequest, token: object, ending: rollout_pb2.Ending, reason: str) -> None:
        made = rollouts.terminal(request, ending, reason, self.desk.maker, int(self.clock() * 1000))
        for one in made:
            self._count(one)
        self._finish(token, made)

    def _finish(self, token: object, made: list[rollout_pb2.Rollout]) -> None:
        self._done.put(Done(token, _outputs(made)))

    def _unpark(self) -> None:
        waiting, self._parked = self._parked, []
        for one in waiting:
            if not self._begin(one.request, one.token) and not self._hand_back(one):
                self._parked.append(one)

    def _hand_back(self, parked: Parked) -> bool:
        """Give a request to another worker, in the transaction that commits this delivery; false when it stays."""
        now_s = self.clock()
        again = policy.handed_back(parked.request, now_s - parked.since_s, int(now_s * 1000))
        if again is None:
            return False
        self.counts["handed_back"] += 1
        reason = "no_room" if self._fresh_for(parked.request) else "weights"
        self.meter.add("sluice_generation_handed_back_total", reason=reason)
        self._done.put(Done(parked.token, [Output("requests-retry", f"{again.request_id}/{again.attempt}", again)]))
        return True

    def _remember(self, request: prompt_pb2.RolloutRequest) -> None:
        self._seen[(request.request_id, request.attempt)] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _count(self, made: rollout_pb2.Rollout) -> None:
        tokens = sum(len(call.tokens) for call in made.calls)
        with self._lock:
            self.counts["rollouts"] += 1
            self.counts["tokens"] += tokens
            self._ended[made.ending] += 1
            self._sizes.append((tokens, made.key.request_id))
        if made.reason == policy.PRUNED:
            self.meter.add("sluice_generation_pruned_total")
        for injection in [one for call in made.calls[:1] for one in call.injections]:
            self.meter.add("sluice_generation_guided_total", kind=KINDS.get(injection.guidance.kind, "other"))

    def publish(self) -> None:
        """What was counted since the last call: a status at a time is cheaper than a rollout at a time."""
        with self._lock:
            ended, self._ended = self._ended, Counter()
            sizes, self._sizes = self._sizes, []
            tokens, self._published = self.counts["tokens"] - self._published, self.counts["tokens"]
        for ending, number in ended.items():
            name = rollout_pb2.Ending.Name(ending).removeprefix("ENDING_").lower()
            self.meter.add("sluice_generation_rollouts_total", number, ending=name)
        self.meter.add("sluice_generation_tokens_total", tokens)
        self.meter.observe_all("sluice_generation_response_tokens", sizes)


def _outputs(made: list[rollout_pb2.Rollout]) -> list[Output]:
    return [Output("rollouts", one.prompt_id, one) for one in made]
