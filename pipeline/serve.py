"""One service as one process: a gRPC door and, beside it, its stage on the log.

    port     health (grpc.health.v1), reflection, OperatorService, and the service's craft: pipeline/door.py
    probe    health alone, in plain text: for a kubelet; only where a port is named
    metrics  Prometheus text over HTTP

Three threads beside gRPC's: the stage (the main thread), one that follows `control`, one that writes `workers`.
The door is NOT_SERVING until the service is ready, while the log does not answer, and as soon as it drains.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import grpc
import psutil
from google.protobuf import json_format, struct_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pipeline import access, records
from pipeline.config import Run
from pipeline.door import Probe, listen, make_server
from pipeline.errors import Fenced, LogUnavailable, Poison, UserError
from pipeline.life import Life
from pipeline.log.api import Log, Record
from pipeline.log.expiring import Expiring
from pipeline.metrics import Meter
from pipeline.rundir import RunDir
from pipeline.stage import Stage, end_of
from pipeline.topics import SERVICES, Names
from pipeline.tracing import open_tracer
from sluice.v1 import control_pb2, control_pb2_grpc

log = logging.getLogger(__name__)

STATUS_EVERY_S = 1.0
CONTROL_EVERY_S = 0.5
NO_TURN_S = 600.0
"""A serving worker whose loop has not turned for so long is not healthy."""
LIVE_S = 1800.0
"""A loop that has not turned for so long hangs: a kubelet may end its process."""
EXIT_FENCED, EXIT_THREAD = 3, 4
State = control_pb2.WorkerState


@dataclass
class Context:
    """What a service is built from."""

    service: str
    worker_id: str
    run: Run
    dir: RunDir
    log: Log
    names: Names
    meter: Meter
    life: Life
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        tracer = open_tracer(self.meter, self.run.run)
        self.stage = Stage(self.service, self.worker_id, self.log, self.names, self.meter, self.life, tracer=tracer)


class Service(Protocol):
    """What `services/<name>/service.py: build(context)` returns."""

    def register(self, server: grpc.Server) -> list[str]:
        """Put its craft on the door; returns the full names of its gRPC services."""
        ...

    def run(self) -> None:
        """Its stage; returns when the process is to end."""
        ...

    def status(self, status: control_pb2.WorkerStatus) -> None:
        """Fill in state, version, counters and gauges."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass(frozen=True)
class Ports:
    """Where a service listens. `advertise`: the host that others reach it by, where that is not the one it binds to."""

    address: str
    metrics: int | None = None
    probe: int | None = None
    advertise: str = ""


def serve(service: str, path: str, worker_id: str, ports: Ports, alone: bool = False) -> int:
    """Run a service until it is told to end; returns the exit code. `alone`: nobody else lets its log forget."""
    threading.excepthook = _end_with_a_thread
    if service not in SERVICES:
        raise UserError.choice("the service", service, SERVICES)
    directory = RunDir.of(path)
    context = Context(
        service,
        worker_id,
        directory.run(),
        directory,
        directory.open_log(),
        directory.names(),
        Meter(service, worker_id),
        Life(),
    )
    process = Process(context, ports, alone)
    signal.signal(signal.SIGTERM, lambda *_: context.life.leave("SIGTERM"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's: it drains the run
    return process.run()


def _end_with_a_thread(died: threading.ExceptHookArgs) -> None:
    """A worker whose report, engine or updater is gone would stand there and say nothing: it ends, as by SIGKILL."""
    if died.exc_type is SystemExit:
        return
    name = died.thread.name if died.thread else "a thread"
    log.critical("the worker ends, because %s died: %s", name, died.exc_value, exc_info=died.exc_value)
    os._exit(EXIT_THREAD)


class Process:
    """A service's door and threads."""

    def __init__(self, context: Context, ports: Ports, alone: bool = False) -> None:
        self.context = context
        self.expire = Expiring(context.log) if alone else None
        self.service: Service | None = None
        self.health = health.HealthServicer()
        self.probe = None if ports.probe is None else Probe(ports.probe)
        rules = access.from_environment()
        self.server = make_server(rules, context.meter)
        self.address = listen(self.server, ports.address, rules)
        if ports.advertise:
            self.address = f"{ports.advertise}:{self.address.rpartition(':')[2]}"
        self.metrics_port = None if ports.metrics is None else _serve_metrics(context.meter, ports.metrics)
        self.over = threading.Event()
        self.state = State.WORKER_STATE_STARTING
        self.reason = ""
        self.announced = False

    def run(self) -> int:
        """Build the service, serve it, and end in order."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        control_pb2_grpc.add_OperatorServiceServicer_to_server(Operator(self), self.server)
        self._healthy(False)
        threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._hear, self._report)
        ]
        for thread in threads:
            thread.start()
        try:
            self._open()
            assert self.service is not None
            self.service.run()
        except Fenced as error:
            log.error("a newer %s holds this role: %s", self.context.service, error)
            self.reason = end_of(error)
            return EXIT_FENCED
        except Exception as error:
            self.reason = end_of(error)
            raise
        finally:
            self._end(threads)
        return 0

    def _open(self) -> None:
        module = importlib.import_module(f"services.{self.context.service}.service")
        self.service = module.build(self.context)
        names = [*self.service.register(self.server), health.SERVICE_NAME]
        names.append(control_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name)
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self.server)
        self.server.start()
        self.state = State.WORKER_STATE_SERVING
        if self.probe is not None:
            self.probe.set("started", True)

    def status(self) -> control_pb2.WorkerStatus:
        """What this worker is doing."""
        context, meter = self.context, self.context.meter
        cpu = psutil.Process().cpu_times()
        status = control_pb2.WorkerStatus(
            worker_id=context.worker_id,
            service=context.service,
            state=self.state,
            reason=self.reason,
            progress_ms=int(meter.progress_at * 1000),
            written_ms=int(time.time() * 1000),
            started_ms=int(meter.started * 1000),
            busy_s=meter.busy_s,
            waits_s=dict(meter.waits),
            address=self.address,
            cpu_s=cpu.user + cpu.system + cpu.children_user + cpu.children_system,
            cpu_log_s=meter.cpu_log_s,
        )
        if self.service is not None and self.state == State.WORKER_STATE_SERVING:
            # A service may look into the log for what it adds; a worker reports also while that is away.
            with contextlib.suppress(LogUnavailable):
                self.service.status(status)
        if context.life.leaving and status.state == State.WORKER_STATE_SERVING:
            status.state = State.WORKER_STATE_DRAINING
            status.reason = context.life.reason
        if self.metrics_port is not None:
            status.gauges["metrics_port"] = self.metrics_port
        return status

    def _healthy(self, yes: bool) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        self.health.set("", serving)
        self.health.set(self.context.service, serving)
        if self.probe is not None:
            self.probe.set("", yes)
            self.probe.set("live", self._turned(LIVE_S))

    def _hear(self) -> None:
        context = self.context
        topic = context.names.topic("control")
        follower = context.stage.patiently(lambda: context.log.follow({(topic, 0): context.log.bounds(topic)[0][0]}))
        while not self.over.is_set():
            try:
                for record in follower.poll(CONTROL_EVERY_S):
                    self._obey(record)
            except LogUnavailable:
                self.over.wait(1.0)
        follower.close()

    def _obey(self, record: Record) -> None:
        try:
            self.context.life.hear(records.decode_as(control_pb2.Control, record))
        except Poison as error:  # to end of it would end every successor too: each reads this topic from its start
            log.error("offset %d of `control` is passed over: %s", record.offset, error)

    def _report(self) -> None:
        context = self.context
        topic, me = context.names.topic("workers"), context.worker_id
        writer = context.stage.patiently(
            lambda: context.log.writer(context.names.own(f"{context.service}.status.{me}"))
        )
        while True:
            last = self.over.is_set()
            status = self.status()
            ready = (
                status.state in (State.WORKER_STATE_SERVING, State.WORKER_STATE_DRAINED) and not context.life.leaving
            )
            self._healthy(ready and self._turns())
            if ready and not self.announced:
                self.announced = True
                print(f"{context.service} serves on {self.address}", flush=True)
            _publish(context.meter, status)
            try:
                with writer.transaction() as transaction:
                    transaction.sends.append(records.encode(topic, f"{me}@{status.started_ms}", status))
                if self.expire is not None:
                    self.expire()
            except (LogUnavailable, Fenced) as error:
                log.warning("status not written: %s", error)
            if last:
                break
            self.over.wait(STATUS_EVERY_S)
        writer.close()

    def _turns(self) -> bool:
        return self.context.stage.log_answers and (self._turned(NO_TURN_S) or not self.context.life.takes_work)

    def _turned(self, within_s: float) -> bool:
        return time.monotonic() - self.context.meter.turned_at < within_s

    def _end(self, threads: list[threading.Thread]) -> None:
        self.health.enter_graceful_shutdown()
        self.state = State.WORKER_STATE_DEAD
        self.over.set()
        for thread in threads:
            thread.join(timeout=5.0)
        self.server.stop(grace=2.0).wait(5.0)
        if self.probe is not None:
            self.probe.close()
        if self.service is not None:
            self.service.close()
        if self.context.stage.tracer is not None:
            self.context.stage.tracer.close()
        self.context.log.close()


class Operator(control_pb2_grpc.OperatorServiceServicer):
    """The door that every service has."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def Status(self, request: control_pb2.StatusRequest, context: grpc.ServicerContext) -> control_pb2.WorkerStatus:
        return self.process.status()

    def Pause(self, request: control_pb2.OperateRequest, context: grpc.ServicerContext) -> control_pb2.WorkerStatus:
        self.process.context.life.pause()
        return self.process.status()

    def Resume(self, request: control_pb2.OperateRequest, context: grpc.ServicerContext) -> control_pb2.WorkerStatus:
        self.process.context.life.resume()
        return self.process.status()

    def Drain(self, request: control_pb2.OperateRequest, context: grpc.ServicerContext) -> control_pb2.WorkerStatus:
        self.process.context.life.leave(request.reason or "drained by an operator")
        return self.process.status()

    def Describe(
        self, request: control_pb2.StatusRequest, context: grpc.ServicerContext
    ) -> control_pb2.DescribeResponse:
        description = struct_pb2.Struct()
        description.update({"status": json_format.MessageToDict(self.process.status())})
        description.update({"run": self.process.context.run.model_dump(mode="json")})
        return control_pb2.DescribeResponse(description=description)


def _serve_metrics(meter: Meter, port: int) -> int:
    try:
        return meter.serve("127.0.0.1" if port == 0 else "0.0.0.0", port)
    except OSError as error:
        raise UserError(
            f"metrics port {port} cannot be listened on ({error.strerror}); accepted: a free port"
        ) from error


def _publish(meter: Meter, status: control_pb2.WorkerStatus) -> None:
    for name, value in State.items():
        if value:
            meter.set("sluice_stage_state_info", float(value == status.state), state=name.removeprefix("WORKER_STATE_"))
