"""`sluice run`: the whole machine on one computer.

    prepare the model -> register prompts -> start the services -> evaluate -> let it run -> evaluate -> audit -> report

Each part is skipped when an earlier `sluice run` on the same directory has done it, so that a second one resumes.
Ctrl-C drains: what is in flight gets its outcome and the learner writes a checkpoint.
"""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pipeline import config, records, topics
from pipeline.base_model import get_model
from pipeline.client import Client
from pipeline.data.register import held_out, register
from pipeline.errors import NotReady, Retryable, SluiceError, UserError
from pipeline.evaluate import Plan, evaluate
from pipeline.log.expiring import Expiring
from pipeline.processes import RAY_S, Processes
from pipeline.rundir import RunDir
from pipeline.scalars import Scalars
from pipeline.view import View, Watcher
from sluice.v1 import control_pb2

READY_S = 300.0
DRAIN_S = 600.0
Phase = control_pb2.Phase
ANSWERING = (control_pb2.WORKER_STATE_SERVING, control_pb2.WORKER_STATE_STALE, control_pb2.WORKER_STATE_DRAINED)
"""States in which a worker's door answers."""
Say = Callable[[str], None]


@dataclass
class Supervisor:
    """One run on this machine. `say` takes sentences for people; `show` takes the view a few times a second."""

    run: config.Run
    dir: RunDir
    say: Say
    show: Callable[[View], None]
    processes: Processes = field(init=False)
    interrupts: int = 0
    registered: bool = False
    """Prompts of this run are on its log: it is the run it is."""

    def __post_init__(self) -> None:
        threads = {topics.GENERATION: self.run.generation.threads, topics.LEARNING: self.run.learning.threads}
        self.processes = Processes(self.dir, threads)
        self.names = self.dir.names()
        self.log = self.dir.open_log()
        self._evaluating: threading.Thread | None = None
        self._expire = Expiring(self.log)
        self.scalars: Scalars | None = None
        self._next_evaluation = self.run.evaluate.every

    def start(self) -> None:
        """Everything up to the first request."""
        topics.create(self.log, self.names, local=self.run.log == "embedded")
        self._control(Phase.PHASE_PAUSED, "starting")
        self._prepare()
        number = register(self.log, self.names, self.run, self.say)
        self.registered = True
        self.say(f"{number} prompts registered")
        self.watcher = Watcher(self.log, self.names)
        self.scalars = Scalars(self.dir)
        self._start_services()
        self._wait_until_ready()
        self._evaluate_fully("before", step=0, unless_done=True)
        self._control(Phase.PHASE_RUNNING, "running")

    def supervise(self) -> bool:
        """Watch until the run has finished; True when it reached its steps."""
        asked = False
        deadline = float("inf")
        while True:
            view = self.look()
            if view.control.phase == Phase.PHASE_FINISHED:
                return view.step >= self.run.learning.steps
            if self.interrupts and not asked:
                self.say("draining: what is in flight gets its outcome (Ctrl-C again to stop at once)")
                self._control(Phase.PHASE_DRAINING, "stopped by an operator")
                asked, deadline = True, time.monotonic() + DRAIN_S
            if self.interrupts > 1 or time.monotonic() > deadline:
                raise SluiceError(
                    "stopped before the drain was over; the next `sluice run` goes on from the last checkpoint"
                )
            self._evaluate_now_and_then(view)

    def finish(self) -> None:
        """After the last step: evaluate what came of it."""
        self._join_evaluation()
        self._evaluate_fully("after", step=self.look().step)

    def close(self) -> None:
        """End the services."""
        self._join_evaluation()
        self.processes.end()
        if self.scalars is not None:
            self.scalars.close()
        self.log.close()

    def look(self) -> View:
        """The newest view; revives what died."""
        for sentence in self.processes.revive():
            self.say(sentence)
        view = self.watcher.look(0.2)
        if self.scalars is not None:
            self.scalars.write(view)
        self.show(view)
        self._expire()
        return view

    def _prepare(self) -> None:
        if self.dir.file("base/config.json").exists():
            return
        self.say("preparing the model")
        get_model(self.dir)

    def _start_services(self) -> None:
        for number in range(self.run.verification.workers):
            self.processes.start(topics.VERIFICATION, f"verification-{number}")
        self.processes.start(topics.LEARNING, "learning")
        for number in range(self.run.generation.workers):
            self.processes.start(topics.GENERATION, f"generation-{number}")
        self.processes.start(topics.DIFFICULTY, "difficulty")

    def _wait_until_ready(self) -> None:
        patience = READY_S + (RAY_S if self.run.learning.ray else 0.0)
        deadline = time.monotonic() + patience
        started_ms = time.time() * 1000
        while True:
            view = self.look()
            waiting = [name for name in self.processes.workers if not _ready(view, name, started_ms)]
            if not waiting or self.interrupts:
                return
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{', '.join(waiting)} not ready after {patience:.0f} s; see the files in {self.dir.path}/logs"
                )

    def _evaluate_fully(self, name: str, step: int, unless_done: bool = False) -> None:
        view = self.look()
        if self.interrupts or not self.run.evaluate.prompts or (unless_done and view.evaluation(f"{name} greedy")):
            return
        prompts = held_out(self.log, self.names)[: self.run.evaluate.prompts]
        self.say(f"evaluating {len(prompts)} held-out problems ({name})")
        version = view.steps[-1].version if step and view.steps else 0
        for greedy in (False, True):
            self._evaluate(name + (" greedy" if greedy else ""), prompts, greedy, step, version)
        self.look()

    def _evaluate(self, name: str, prompts: list, greedy: bool, step: int, version: int = 0) -> None:
        generation, verification = self._doors(version)
        plan = Plan(
            name,
            prompts,
            samples=1 if greedy else self.run.evaluate.samples,
            temperature=0.0 if greedy else 1.0,
            max_tokens=self.run.generation.max_tokens,
            stop=tuple(self.run.generation.stop),
            seed=self.run.seed + 1,
        )
        try:
            self._write("evals", self.run.run, evaluate(generation, verification, plan, step))
        finally:
            generation.close()
            verification.close()

    def _doors(self, version: int) -> tuple[Client, Client]:
        """Generation's door, once it has applied that version or a newer one, and verification's."""
        deadline = time.monotonic() + READY_S
        while True:
            found = [self._serving(topics.GENERATION, version), self._serving(topics.VERIFICATION, 0)]
            if all(found):
                return Client(found[0]), Client(found[1])
            if time.monotonic() > deadline:
                missing = topics.VERIFICATION if found[0] else f"{topics.GENERATION} at version {version}"
                raise NotReady(f"no {missing} serves after {READY_S:.0f} s; see the files in {self.dir.path}/logs")
            if threading.current_thread() is threading.main_thread():
                self.look()
            else:
                time.sleep(0.1)

    def _serving(self, service: str, version: int) -> str:
        serving = [s for s in self.watcher.view.of(service) if s.state in ANSWERING and s.version >= version]
        return max(serving, key=lambda status: status.written_ms).address if serving else ""

    def _evaluate_now_and_then(self, view: View) -> None:
        every = self.run.evaluate.every
        busy = self._evaluating is not None and self._evaluating.is_alive()
        if not every or busy or view.step < self._next_evaluation or view.step >= self.run.learning.steps:
            return
        self._next_evaluation = (view.step // every + 1) * every
        self._evaluating = threading.Thread(target=self._evaluate_beside, args=(view.step,), daemon=True)
        self._evaluating.start()

    def _evaluate_beside(self, step: int) -> None:
        import grpc

        prompts = held_out(self.log, self.names)[: self.run.evaluate.prompts_during]
        try:
            self._evaluate("during", prompts, greedy=False, step=step)
        except (Retryable, grpc.RpcError) as error:
            self.say(f"the evaluation at step {step} was given up: {error}")

    def _join_evaluation(self) -> None:
        if self._evaluating is not None:
            self._evaluating.join(timeout=60.0)

    def _control(self, phase: int, reason: str) -> None:
        control = control_pb2.Control(
            phase=phase,  # type: ignore[arg-type]
            reason=reason,
            config_digest=config.identity_digest(self.run),
            config_json=config.canonical(self.run),
            written_ms=int(time.time() * 1000),
            by="cli",
        )
        self._write("control", "run", control)

    def _write(self, topic: str, key: str, noun: Message) -> None:
        write(self.log, self.names, "cli", topic, key, noun)


def write(log, names: topics.Names, who: str, topic: str, key: str, noun: Message) -> None:
    """One noun in one transaction."""
    writer = log.writer(names.own(f"operator.{who}.{topic}"))
    try:
        with writer.transaction() as transaction:
            transaction.sends.append(records.encode(names.topic(topic), key, noun))
    finally:
        writer.close()


def _ready(view: View, name: str, since_ms: float) -> bool:
    status = view.workers.get(name)
    return status is not None and status.state == control_pb2.WORKER_STATE_SERVING and status.written_ms >= since_ms


@contextmanager
def only_one(directory: RunDir):
    """Holds the run directory; a second supervisor is refused."""
    with open(directory.file(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"run directory {str(directory.path)!r} is in use by another `sluice run`; accepted: another --dir"
            ) from error
        yield


@contextmanager
def interrupts(supervisor: Supervisor):
    """Counts Ctrl-C instead of dying of it."""

    def count(*_: object) -> None:
        supervisor.interrupts += 1

    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
