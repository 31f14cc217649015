"""A worker that cannot go on says so, ends with an error, and leaves its requests to others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipeline import config, records, serve, topics
from pipeline.errors import LogUnavailable, UserError
from pipeline.life import Life
from pipeline.log.api import Log
from pipeline.metrics import Meter
from pipeline.rundir import RunDir
from services.generation.engine import transformers
from services.generation.engine.api import EngineDied, EngineOptions
from services.generation.engine.transformers import TransformersEngine
from services.generation.fleet import WorkerDied
from services.generation.updater import Updater
from services.generation.versions import Versions
from services.generation.weights import WeightReader
from sluice.v1 import control_pb2

State = control_pb2.WorkerState


@pytest.fixture
def process(tmp_path: Path, tokenizer, tiny_model) -> serve.Process:
    """A generation process over a run whose base model is the tiny one."""
    tiny_model(0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    directory = RunDir.make(tmp_path, config.parse({"model": {"context": 64}, "generation": {"slots": 4}}))
    log, names = directory.open_log(), directory.names()
    topics.create(log, names, local=True)
    meter = Meter("generation", "w")
    context = serve.Context("generation", "w", directory.run(), directory, log, names, meter, Life())
    return serve.Process(context, serve.Ports("127.0.0.1:0"))


def last_status(tmp_path: Path) -> control_pb2.WorkerStatus:
    directory = RunDir.of(tmp_path)
    log, topic = directory.open_log(), directory.names().topic("workers")
    found = log.follow({(topic, 0): 0}).poll(2.0)
    log.close()
    return records.decode_as(control_pb2.WorkerStatus, found[-1])


def test_a_process_whose_engine_dies_says_dead_and_why_and_raises(process, tmp_path):
    process.context.life.phase = control_pb2.PHASE_RUNNING

    def kill() -> None:
        while process.service is None:
            time.sleep(0.02)
        process.service.engine._turn = None  # type: ignore[attr-defined]

    threading.Thread(target=kill, daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(WorkerDied, match="engine ended: TypeError"):
        process.run()
    assert time.monotonic() - begun < 20
    status = last_status(tmp_path)
    assert status.state == State.WORKER_STATE_DEAD and "engine ended: TypeError" in status.reason


def test_a_process_that_cannot_be_built_says_dead_too(process, tmp_path):
    (tmp_path / "base" / "config.json").unlink()
    with pytest.raises(UserError):
        process.run()
    status = last_status(tmp_path)
    assert status.state == State.WORKER_STATE_DEAD and status.reason.startswith("UserError: model ")


def test_a_worker_reports_also_while_what_it_would_add_cannot_be_read(process):
    class Away:
        def status(self, status: control_pb2.WorkerStatus) -> None:
            status.gauges["half"] = 1
            raise LogUnavailable("log kafka://k:1 does not answer")

    process.service, process.state = Away(), State.WORKER_STATE_SERVING  # type: ignore[assignment]
    status = process.status()
    assert status.state == State.WORKER_STATE_SERVING and status.worker_id == "w"


@pytest.fixture
def engine(tokenizer, tiny_model):
    engine = TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer)
    yield engine
    engine.close()


def test_an_updater_that_ends_by_an_error_ends_the_worker(tmp_path, engine):
    class Broken(WeightReader):
        def newest(self, timeout: float = 0.0):
            raise RuntimeError("no memory")

    log: Log = RunDir.make(tmp_path, config.parse({})).open_log()
    updater = Updater(Broken(log, RunDir.of(tmp_path).names(), "main"), Versions(engine, 2), Meter("generation", "w"))
    updater.start()
    until = time.monotonic() + 5
    while updater.versions.post.worker.standing.state != State.WORKER_STATE_DEAD:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert updater.versions.post.worker.standing.reason == "the updater ended: RuntimeError: no memory"
    updater.close()


def test_an_engine_that_does_not_take_new_weights_in_time_counts_as_dead(engine, tiny_model, monkeypatch):
    monkeypatch.setattr(transformers, "APPLY_TIMEOUT_S", 0.2)
    release = threading.Event()
    engine._interrupts = lambda: release.wait(10)
    with pytest.raises(EngineDied, match=r"version 1 was not applied in 0.2 s: the engine hangs"):
        engine.apply(1, tiny_model(1).state_dict())
    release.set()
