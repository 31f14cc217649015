"""Between requests and the engine: one request becomes n jobs, and n completions become its rollouts.

Used by the handler (requests from the log) and by the door (requests from callers) alike. A thread of its own collects
what the engine finished, and finds out when it is dead: it says so, or keeps a rollout long after its deadline.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.generation import policy, rollouts
from services.generation.engine.api import Completion, Engine, EngineDied, Job, Partial
from services.generation.guides import Guidance
from services.generation.prompting import Context, Prompter
from sluice.v1 import prompt_pb2, rollout_pb2

COLLECT_S = 0.05
OVERDUE_S = 360.0
"""An engine that has not given a rollout back so long after its deadline hangs. Weights may take 300 s, no longer."""
OVERDUE_EVERY_S = 1.0

ENDED = (rollout_pb2.ENDING_STOP, rollout_pb2.ENDING_LENGTH)
Finish = Callable[[list[rollout_pb2.Rollout]], None]
Each = Callable[[rollout_pb2.Rollout], None]


@dataclass
class Ticket:
    """One request in work. `finish` is called once, with its rollouts in index order; `each` as every one ends.

    `begun`: beginnings that were looked at, by index. `judged`: which of its rollouts go on is decided, or all do.
    """

    request: prompt_pb2.RolloutRequest
    context: Context
    finish: Finish
    each: Each | None = None
    jobs: dict[str, int] = field(default_factory=dict)
    made: dict[int, rollout_pb2.Rollout] = field(default_factory=dict)
    begun: dict[int, Partial] = field(default_factory=dict)
    judged: bool = True


class Desk:
    """Submits, collects, assembles. Thread-safe; callbacks run on the collecting thread, or on the caller's."""

    def __init__(
        self, engine: Engine, prompter: Prompter, maker: rollouts.Maker, guidance: Guidance | None = None
    ) -> None:
        self.engine, self.prompter, self.maker = engine, prompter, maker
        self.guidance = guidance or Guidance()
        self.error: Exception | None = None
        self.on_rollout: Each | None = None
        """Called with every rollout that ended: for counting."""
        self.on_death: Callable[[str], None] = lambda _: None
        """Called once, with a sentence, when nothing more will come out of the engine."""
        self._tickets: dict[str, Ticket] = {}
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="desk", daemon=True)
        self._thread.start()

    def open(
        self,
        request: prompt_pb2.RolloutRequest,
        finish: Finish,
        each: Each | None = None,
        context: Context | None = None,
    ) -> Ticket:
        """Begin a request whose sampling parameters are accepted; `context` where it is rendered already.

        Without one, a training request is guided.
        """
        guided = context is None and request.purpose == prompt_pb2.PURPOSE_TRAIN
        context = context or self._rendered(request, guided)
        ticket = Ticket(request, context, finish, each, judged=not (guided and self.guidance.prunes))
        if context.reason:
            self.end(ticket, rollout_pb2.ENDING_FAILED, context.reason)
            return ticket
        name = next(self._names)
        ticket.jobs = {f"{name}/{index}": index for index in rollouts.indices(request)}
        with self._lock:
            self._tickets.update(dict.fromkeys(ticket.jobs, ticket))
        for job_id, index in ticket.jobs.items():
            self.engine.submit(self._job(ticket, job_id, index))
        return ticket

    def end(self, ticket: Ticket, ending: rollout_pb2.Ending, reason: str) -> None:
        """Finish a request before anything was sampled."""
        made = rollouts.terminal(ticket.request, ending, reason, self.maker, _now_ms())
        for one in made:
            self._tell(ticket, one)
        ticket.finish(made)

    def abort(self, tickets: Iterable[Ticket] | None = None) -> None:
        """Take requests back: their rollouts end ABORTED. None means all."""
        with self._lock:
            jobs = list(self._tickets) if tickets is None else [job for ticket in tickets for job in ticket.jobs]
        self.engine.abort(jobs)

    @property
    def outstanding(self) -> int:
        """Rollouts in work."""
        return len(self._tickets)

    def close(self) -> None:
        """Stop collecting."""
        self._closing.set()
        self._thread.join(5.0)

    def _rendered(self, request: prompt_pb2.RolloutRequest, guided: bool) -> Context:
        """Its context, with guidance where that fits."""
        wanted = self.guidance.guided(request) if guided else request
        context = self.prompter.render(wanted)
        too_long = wanted is not request and context.reason == policy.PROMPT_TOO_LONG
        return self.prompter.render(request) if too_long else context

    def _job(self, ticket: Ticket, job_id: str, index: int) -> Job:
        request = ticket.request
        return Job(
            job_id,
            ticket.context.tokens,
            request.sampling,
            rollouts.seed(request, index),
            request.deadline_ms,
            request.purpose == prompt_pb2.PURPOSE_TRAIN,
            0 if ticket.judged else self.guidance.look_at,
        )

    def _collect(self) -> None:
        looked_s = time.monotonic()
        while not self._closing.is_set():
            try:
                for completion in self.engine.finished(COLLECT_S):
                    self._place(completion)
                for partial in self.engine.partials():
                    self._begun(partial)
                if time.monotonic() - looked_s > OVERDUE_EVERY_S:
                    looked_s = time.monotonic()
                    self._overdue(_now_ms() - int(OVERDUE_S * 1000))
            except Exception as error:  # noqa: BLE001 - this thread ends, and whoever waits for it is told why
                self._die(error)
                return

    def _overdue(self, before_ms: int) -> None:
        """Raises `EngineDied` when a rollout whose deadline lies before this moment is still out."""
        with self._lock:
            late = [job for job, ticket in self._tickets.items() if 0 < ticket.request.deadline_ms < before_ms]
        if late:
            raise EngineDied(f"the engine hangs: {len(late)} rollouts are {OVERDUE_S:g} s and more past their deadline")

    def _place(self, said: Completion) -> None:
        with self._lock:
            ticket = self._tickets.pop(said.id, None)
        if ticket is None:
            return
        index = ticket.jobs[said.id]
        made = rollouts.rollout(ticket.request, index, ticket.context, said, self.maker, _now_ms())
        ticket.made[index] = made
        self._tell(ticket, made)
        self._judge(ticket)
        if len(ticket.made) == len(ticket.jobs):
            ticket.finish([ticket.made[index] for index in sorted(ticket.made)])

    def _begun(self, partial: Partial) -> None:
        ticket = self._tickets.get(partial.id)
        if ticket is not None:
            ticket.begun[ticket.jobs[partial.id]] = partial
            self._judge(ticket)

    def _judge(self, ticket: Ticket) -> None:
        """Prune, once every rollout of a request has ended or come to where it is looked at."""
        going = {index: one for index, one in ticket.begun.items() if index not in ticket.made}
        if ticket.judged or len(going) + len(ticket.made) < len(ticket.jobs):
            return
        ticket.judged = True
        if going:
            ended = sum(one.ending in ENDED for one in ticket.made.values())
            pruned = self.guidance.pruned(ticket.request, going, ended)
            self.engine.abort([job for job, index in ticket.jobs.items() if index in pruned], policy.PRUNED)

    def _tell(self, ticket: Ticket, made: rollout_pb2.Rollout) -> None:
        if self.on_rollout:
            self.on_rollout(made)
        if ticket.each:
            ticket.each(made)

    def _die(self, error: Exception) -> None:
        """Callers at the door get failed rollouts; the handler raises, so that the log delivers its requests again."""
        self.error = error
        self.on_death(str(error) if isinstance(error, EngineDied) else f"{type(error).__name__}: {error}")
        with self._lock:
            tickets = {id(ticket): ticket for ticket in self._tickets.values()}
            self._tickets.clear()
        for ticket in tickets.values():
            self.end(ticket, rollout_pb2.ENDING_FAILED, policy.ENGINE_DIED)


def _now_ms() -> int:
    return int(time.time() * 1000)
