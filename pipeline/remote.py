"""A run whose services are elsewhere: `sluice start` once, `sluice prepare` where a service is to be.

start    topics -> prompts -> control says RUNNING
prepare  wait for that, so that a service never meets a log without its topics; an embedded log has nobody elsewhere to
         wait for, and is begun
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from pipeline import config, records, topics
from pipeline.claiming import ClaimingLog
from pipeline.data.register import register
from pipeline.errors import LogUnavailable, NotReady, UserError
from pipeline.log import Log, open_log
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from pipeline.supervisor import write
from pipeline.topics import Names
from sluice.v1 import control_pb2

POLL_S = 1.0
Phase = control_pb2.Phase
Say = Callable[[str], None]


def start(run: config.Run, make_topics: bool, timeout_s: float, say: Say, replicas: int = 0) -> None:
    """Topics, prompts, and the word to run. Raises `UserError` for a run that cannot be shared, or is another one.

    `replicas`: brokers that keep a copy of a topic that is made here; 0 is the cluster's default.
    """
    if run.log == "embedded":
        raise UserError("log is 'embedded', which is this machine's only; accepted: kafka://host:port")
    log, names = _open(run), Names(run.prefix, run.run)
    deadline = time.monotonic() + timeout_s
    try:
        _topics(log, names, make_topics, replicas, timeout_s, say)
        # A broker may take a while until somebody leads the partitions of a topic that was just made.
        _until(lambda: refuse_another(told(log, names), run), deadline - time.monotonic(), say)
        _begin(log, names, run, deadline, say)
    finally:
        log.close()


def start_here(directory: RunDir, say: Say) -> None:
    """The same in a run directory with its own log, where a service is to serve other trainers alone."""
    run, names, log = directory.run(), directory.names(), directory.open_log()
    try:
        topics.create(log, names, local=True)
        # A run that goes on, or has ended, is told nothing.
        if told(log, names) is None:
            _begin(log, names, run, time.monotonic(), say)
    finally:
        log.close()


def _begin(log: Log, names: Names, run: config.Run, deadline: float, say: Say) -> None:
    number = _until(lambda: register(log, names, run, say), deadline - time.monotonic(), say)
    say(f"{number} prompts registered")
    control = control_pb2.Control(
        phase=Phase.PHASE_RUNNING,
        reason="sluice start",
        config_digest=config.identity_digest(run),
        config_json=config.canonical(run),
        written_ms=int(time.time() * 1000),
        by="cli",
    )
    write(log, names, "cli", "control", "run", control)
    say(f"run {run.run} may begin")


def wait_for_start(directory: RunDir, timeout_s: float, say: Say) -> None:
    """Until the log says that the run may begin. Raises `NotReady` with what is missing when the time is over."""
    run, names = directory.run(), directory.names()
    log = _open(run)
    try:
        found = _until(lambda: _told_to_run(log, names), timeout_s, say)
    finally:
        log.close()
    refuse_another(found, run)


def told(log: Log, names: Names) -> control_pb2.Control | None:
    """What the run was told last; None before it was told anything."""
    found = [record for record in read_all(log, names.topic("control")) if record.value]
    return records.decode_as(control_pb2.Control, found[-1]) if found else None


def refuse_another(control: control_pb2.Control | None, run: config.Run) -> None:
    """Raise `UserError` when the log's run of this name is another one: its identity differs."""
    if control is not None and control.config_digest and control.config_digest != config.identity_digest(run):
        config.refuse_another_run(config.parse(json.loads(control.config_json), where="the log's run"), run)


def _open(run: config.Run) -> Log:
    inner = open_log(run.log)
    return ClaimingLog(inner, run.claims) if run.claims else inner


def _topics(log: Log, names: Names, make: bool, replicas: int, timeout_s: float, say: Say) -> None:
    def present() -> bool:
        if make:
            topics.create(log, names, local=False, replicas=replicas)
            return True
        held = set(log.topics(names.own("")))
        missing = [topic.name for topic in topics.TOPICS if names.topic(topic.name) not in held]
        if missing:
            raise NotReady(f"topics {', '.join(missing)} of {names.own('')}* are not on the log yet")
        return True

    _until(present, timeout_s, say)


def _told_to_run(log: Log, names: Names) -> control_pb2.Control:
    if names.topic("control") not in log.topics(names.own("")):
        raise NotReady(f"topic {names.topic('control')} is not on the log yet; `sluice start` makes it")
    control = told(log, names)
    if control is None:
        raise NotReady("nobody has told the run to begin; `sluice start` does")
    return control


def _until(attempt: Callable[[], object], timeout_s: float, say: Say):
    """Its result; while it raises what may pass, say so once per sentence and try again."""
    deadline, said = time.monotonic() + timeout_s, ""
    while True:
        try:
            return attempt()
        except (LogUnavailable, NotReady) as error:
            if time.monotonic() > deadline:
                raise
            if str(error) != said:
                said = str(error)
                say(f"waiting: {said}")
        time.sleep(POLL_S)
