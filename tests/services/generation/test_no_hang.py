"""Whatever breaks, generation goes on with the last good version, and takes the next one by itself. On both logs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import records, topics
from pipeline.log import open_log
from pipeline.log.api import Record
from pipeline.metrics import Meter
from pipeline.topics import Names
from services.generation.engine.api import EngineOptions, Job
from services.generation.engine.transformers import TransformersEngine
from services.generation.updater import Updater
from services.generation.versions import Versions
from services.generation.weights import WeightReader
from sluice.v1 import prompt_pb2
from tests.services.generation.peer import Learner, policy_of

ROOT = Path(__file__).parents[3]
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
BOTH = pytest.mark.parametrize("kind", ["embedded", KAFKA])
WAIT_S = 120.0
LOCK = Path(__file__).parents[2] / "pipeline" / "log" / "worker.py"


class Scene:
    """A worker in this process that follows a run's log, and processes beside it."""

    def __init__(self, address: str, model: torch.nn.Module, tokenizer, folder: Path) -> None:
        self.address, self.run, self.folder = address, f"test-{uuid.uuid4().hex[:12]}", folder
        self.names = Names("sluice", self.run)
        self.log = open_log(address)
        topics.create(self.log, self.names, local=True)
        self.base = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
        np.savez(folder / "policy.npz", **self.base)
        self.engine = TransformersEngine(model, EngineOptions(slots=4), tokenizer)
        reader = WeightReader(self.log, self.names, "main")
        self.updater = Updater(reader, Versions(self.engine, 2), Meter("generation", "worker-0")).start()
        self.processes: list[subprocess.Popen] = []

    def process(self, what: str, *arguments: str, script: Path | None = None, **environment: str) -> subprocess.Popen:
        """Start one; it is ended with the scene."""
        path = script or Path(__file__).with_name("peer.py")
        places = os.pathsep.join((str(ROOT), str(ROOT / "proto")))
        made = subprocess.Popen(
            [sys.executable, str(path), what, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": places, "SLUICE_FAILPOINT_DIR": str(self.folder)} | environment,
        )
        self.processes.append(made)
        return made

    def learner(self, epoch: int, *versions: int, dies: str = "") -> subprocess.Popen:
        """A learner's process that publishes these versions."""
        arguments = [self.address, self.run, str(self.folder / "policy.npz"), str(epoch), *map(str, versions)]
        return self.process("learner", *arguments, SLUICE_FAILPOINT=dies)

    def samples(self) -> None:
        """A job is done with the version that is applied."""
        job = Job(uuid.uuid4().hex, (5, 6, 7), prompt_pb2.SamplingParams(temperature=1, top_p=1, max_tokens=4), seed=1)
        self.engine.submit(job)
        (done,) = until(lambda: self.engine.finished(0.5), "a rollout")
        assert done.id == job.id and {version for _, version in done.spans} == {self.engine.version}

    def takes(self, version: int, seconds: float = WAIT_S) -> None:
        """The engine comes to this version, by itself, and to its bits."""
        until(lambda: self.engine.version == version, f"version {version}, not {self.engine.version}", seconds)
        self.serves(version)

    def serves(self, version: int) -> None:
        """The engine is of this version, bit for bit, and samples."""
        assert self.engine.version == version
        held = dict(self.engine._decoder.model.named_parameters())
        for name, array in policy_of(self.base, version).items():
            assert held[name].detach().numpy().tobytes() == array.tobytes(), name
        self.samples()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        self.updater.close()
        self.engine.close()
        self.log.close()


def until(check: Callable[[], object], what: str, seconds: float = WAIT_S):
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = check()
        if answer:
            return answer
        time.sleep(0.02)
    pytest.fail(f"{what} did not come within {seconds:g} s")


@pytest.fixture
def scene(kind, request, tmp_path, tiny_model, tokenizer) -> Iterator[Scene]:
    address = request.getfixturevalue("kafka") if kind == "kafka" else str(tmp_path / "log.db")
    found = Scene(address, tiny_model(0), tokenizer, tmp_path)
    yield found
    found.close()


@BOTH
@pytest.mark.parametrize(
    ("dies", "announced"),
    [
        ("log.in_transaction:number=2", 1),  # with half of an anchor on the log, and a transaction open
        ("test.between_chunks:version=3", 2),  # with a delta on the log
        ("test.before_manifest:version=3", 2),
    ],
)
def test_a_learner_that_is_killed_in_mid_publish_leaves_the_version_before(scene, dies, announced):
    Learner(scene.log, scene.names, epoch=1).publish(policy_of(scene.base, 1))
    scene.takes(1)
    killed = scene.learner(2, 2, 3, dies=dies)
    assert killed.wait(WAIT_S) == -signal.SIGKILL
    scene.takes(announced)
    assert scene.updater.trouble == ""
    assert scene.learner(3, announced + 1, announced + 2).wait(WAIT_S) == 0
    scene.takes(announced + 2)
    assert scene.updater.anchors_wanted == 0


@BOTH
def test_a_worker_that_is_killed_in_mid_apply_starts_again_at_the_newest_version_and_no_other_notices(scene):
    learner = Learner(scene.log, scene.names, epoch=1)
    learner.publish(policy_of(scene.base, 1))
    worker = scene.process("worker", scene.address, scene.run, "2")
    assert worker.stdout.readline() == "version 1\n"
    learner.publish(policy_of(scene.base, 2))
    assert worker.wait(WAIT_S) == -signal.SIGKILL
    scene.takes(2)
    again = scene.process("worker", scene.address, scene.run, "0")
    assert again.stdout.readline() == "version 2\n"
    learner.publish(policy_of(scene.base, 3))
    assert again.stdout.readline() == "version 3\n"
    scene.takes(3)


def corrupt(sends):
    """One byte of one chunk's content is another."""
    first, *others = sends
    record = Record(first.topic, 0, 0, first.key, first.value, first.headers, 0)
    chunk = records.decode(record)
    chunk.data = chunk.data[:-1] + bytes([chunk.data[-1] ^ 1])
    return [first._replace(value=chunk.SerializeToString()), *others]


@BOTH
def test_a_corrupt_chunk_is_refused_an_anchor_asked_for_and_taken(scene):
    learner = Learner(scene.log, scene.names, epoch=1)
    learner.publish(policy_of(scene.base, 1))
    scene.takes(1)
    learner.publish(policy_of(scene.base, 2), spoil=corrupt)
    until(lambda: scene.updater.anchors_wanted == 1, "the wish for an anchor")
    assert "version 2 is refused" in scene.updater.trouble
    scene.serves(1)
    learner.publish(policy_of(scene.base, 2), again=True)
    scene.takes(2)
    learner.publish(policy_of(scene.base, 3))
    scene.takes(3)
    assert (scene.updater.anchors_wanted, scene.updater.trouble) == (1, "")


@contextmanager
def unreachable(scene: Scene, kind: str, port: int) -> Iterator[None]:
    """Nobody can write to the embedded log; nobody can do anything with a Kafka whose broker stands still."""
    if kind == "kafka":
        broker = int((ROOT / ".kafka" / "run" / str(port) / "pid").read_text())
        os.kill(broker, signal.SIGSTOP)
        yield
        os.kill(broker, signal.SIGCONT)
        return
    holder = scene.process("lock", scene.address, script=LOCK)
    assert holder.stdout.readline() == "locked\n"
    yield
    holder.communicate()


@pytest.mark.long
@BOTH
def test_a_log_that_is_unreachable_for_30_seconds_is_waited_for(kind, request, tmp_path, tiny_model, tokenizer):
    port, _ = request.getfixturevalue("other_kafka") if kind == "kafka" else (0, None)
    address = f"kafka://localhost:{port}" if kind == "kafka" else str(tmp_path / "log.db")
    scene = Scene(address, tiny_model(0), tokenizer, tmp_path)
    learner = Learner(scene.log, scene.names, epoch=1)
    learner.publish(policy_of(scene.base, 1))
    scene.takes(1)
    with unreachable(scene, kind, port):
        waiting = scene.learner(2, 2)
        begun = time.monotonic()
        while time.monotonic() - begun < 30.0:
            scene.serves(1)
            time.sleep(0.5)
    if waiting.wait(WAIT_S):  # it gave up meanwhile; its supervisor starts it again
        assert scene.learner(3, 2).wait(WAIT_S) == 0
    scene.takes(2)
    scene.close()
