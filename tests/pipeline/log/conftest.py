"""One suite for both logs: `log_address` names an embedded log, then a real Kafka."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from pipeline.log import TopicConfig, open_log
from pipeline.log.api import read_all

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).parent / "worker.py"


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_address(request, tmp_path):
    if request.param == "kafka":
        return request.getfixturevalue("kafka")
    return str(tmp_path / "log.db")


@pytest.fixture
def run():
    """A prefix of its own for the topics, groups and ids of one test."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def opened(log_address):
    """Opens the log as often as asked; closes everything afterwards, readers first."""
    with Opened(log_address) as found:
        yield found


class Opened:
    """Logs, readers and writers of one test."""

    def __init__(self, address):
        self.address = address
        self.kafka = address.startswith("kafka://")
        self._things = []
        self.log = self.another_log()

    def another_log(self):
        return self.keep(open_log(self.address))

    def keep(self, thing):
        self._things.append(thing)
        return thing

    def create(self, name, partitions=1, **kinds):
        self.log.create([TopicConfig(name, partitions, **kinds)])
        return name

    def writer(self, identity):
        return self.keep(self.log.writer(identity))

    def group(self, group, topics, member, lease_s=1.5):
        return self.keep(self.log.group(group, topics, member, lease_s))

    def follow(self, offsets):
        return self.keep(self.log.follow(offsets))

    def write(self, identity, topic, pairs, **kinds):
        with self.writer(identity).transaction() as transaction:
            for key, value in pairs:
                transaction.send(topic, key, value, **kinds)
        return transaction.written

    def values(self, topic):
        return [record.value for record in read_all(self.log, topic)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for thing in reversed(self._things):
            thing.close()


@pytest.fixture
def worker():
    """Starts `worker.py` in a process of its own; kills what is left."""
    started = []

    def start(*arguments, **environment):
        path = os.pathsep.join((str(ROOT), str(ROOT / "proto")))
        process = subprocess.Popen(
            [sys.executable, str(WORKER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def eventually():
    """`eventually(check, seconds)`: the first true answer of `check`; fails when there is none in time."""

    def wait(check, seconds=20.0, pause=0.05):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = check()
            if answer:
                return answer
            time.sleep(pause)
        pytest.fail(f"{check} did not come true within {seconds} s")

    return wait
