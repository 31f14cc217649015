"""The Kafka log when its broker is away, stopped or killed: bounded, one sentence, and it comes back."""

import os
import signal
import time
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError

from pipeline.errors import LogUnavailable, UserError
from pipeline.log import TopicConfig, kafka_producer
from pipeline.log.api import read_all
from pipeline.log.kafka import KafkaLog
from tests.pipeline.log.patience import until_it_answers

pytestmark = pytest.mark.kafka
RUNS = Path(__file__).parents[3] / ".kafka" / "run"
PATIENCE_S = 2.0


def send(writer, value):
    with writer.transaction() as transaction:
        transaction.send("t", b"k", value)


def refused(action, port, seconds=6.0):
    begun = time.monotonic()
    with pytest.raises(LogUnavailable) as caught:
        action()
    assert time.monotonic() - begun < seconds
    assert f"localhost:{port}" in str(caught.value) and "\n" not in str(caught.value)


def until_refused(action, seconds=20.0):
    """A reader learns of its broker's death when it has heard nothing for a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            action()
        except LogUnavailable as error:
            return str(error)
    pytest.fail("nobody said that the broker is away")


def test_a_log_whose_broker_is_not_there_says_so_with_its_address(unused_port):
    log = KafkaLog(f"localhost:{unused_port}", patience_s=1.0)
    for action in (
        lambda: log.topics(),
        lambda: log.create([TopicConfig("t", 1)]),
        lambda: log.partitions("t"),
        lambda: log.writer("w"),
    ):
        refused(action, unused_port)
    log.close()


@pytest.mark.parametrize("address", ["localhost", "localhost:port", "a:1,b", ""])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="accepted: kafka://host:port"):
        KafkaLog(address)


def test_without_the_c_checksum_the_log_does_not_start(monkeypatch):
    monkeypatch.setattr("kafka.record.util.crc32c_c", None)
    with pytest.raises(UserError, match="'crc32c' is missing"):
        KafkaLog("localhost:1")


def test_a_broker_that_is_stopped_or_killed_is_waited_for_and_nothing_is_lost_or_written_twice(other_kafka):
    port, run_script = other_kafka
    log = KafkaLog(f"localhost:{port}", patience_s=PATIENCE_S)
    log.create([TopicConfig("t", 1)])
    writer = until_it_answers(lambda: log.writer("w"))
    reader = log.group("g", ["t"], "m")
    follower = log.follow({("t", 0): 0})
    send(writer, b"before")
    assert [record.value for record in reader.poll(10.0)] == [b"before"]
    assert [record.value for record in follower.poll(10.0)] == [b"before"]

    broker = int((RUNS / str(port) / "pid").read_text())
    os.kill(broker, signal.SIGSTOP)
    refused(lambda: send(writer, b"stopped"), port)
    refused(lambda: send(writer, b"stopped"), port)  # still in doubt
    os.kill(broker, signal.SIGCONT)
    until_it_answers(lambda: send(writer, b"stopped"))
    assert [record.value for record in until_it_answers(lambda: follower.poll(10.0))] == [b"stopped"]

    os.kill(broker, signal.SIGKILL)
    refused(lambda: send(writer, b"killed"), port)
    refused(lambda: log.bounds("t"), port, 12.0)
    assert f"localhost:{port}" in until_refused(lambda: follower.poll(0.5))
    assert f"localhost:{port}" in until_refused(lambda: reader.poll(0.5))
    run_script("start")
    until_it_answers(lambda: send(writer, b"killed"))
    assert [record.value for record in until_it_answers(lambda: follower.poll(10.0))] == [b"killed"]
    found = []
    deadline = time.monotonic() + 30
    while len(found) < 2 and time.monotonic() < deadline:
        found += until_it_answers(lambda: reader.poll(0.5))
    assert [record.value for record in found] == [b"stopped", b"killed"]
    assert [record.value for record in until_it_answers(lambda: read_all(log, "t"))] == [
        b"before",
        b"stopped",
        b"killed",
    ]
    for thing in (reader, follower, writer, log):
        thing.close()


@pytest.mark.long
@pytest.mark.parametrize("kill", [False, True], ids=["hung", "killed"])
def test_a_transaction_that_an_outage_outlasts_ends_once_and_its_writer_goes_on(other_kafka, monkeypatch, kill):
    """The broker goes just before the commit, for longer than the coordinator keeps a transaction open."""
    port, run_script = other_kafka
    broker = int((RUNS / str(port) / "pid").read_text())
    log = KafkaLog(f"localhost:{port}", patience_s=4.0)
    until_it_answers(lambda: log.create([TopicConfig("t", 1)]))
    writer = until_it_answers(lambda: log.writer("w"))
    until_it_answers(lambda: send(writer, b"before"))

    def strike(name, **context):
        monkeypatch.undo()
        os.kill(broker, signal.SIGKILL if kill else signal.SIGSTOP)

    monkeypatch.setattr("pipeline.failpoint.reach", strike)
    begun = time.monotonic()
    while time.monotonic() - begun < 20.0:
        refused(lambda: send(writer, b"during"), port)
    if kill:
        run_script("start")
    else:
        os.kill(broker, signal.SIGCONT)
    until_it_answers(lambda: send(writer, b"during"), 60.0)
    until_it_answers(lambda: send(writer, b"after"))
    values = [record.value for record in until_it_answers(lambda: read_all(log, "t"))]
    assert values == [b"before", b"during", b"after"]
    writer.close()
    log.close()


@pytest.mark.parametrize("asked", ["begin_commit", "begin_abort"])
def test_a_step_whose_request_is_lost_ends_and_its_writer_goes_on(other_kafka, monkeypatch, asked):
    """kafka-python 3.0 drops a request when the coordinator is not ready at the moment of sending."""
    port, _ = other_kafka
    monkeypatch.setattr(kafka_producer, "LOST_S", 1.0)
    log = KafkaLog(f"localhost:{port}", patience_s=PATIENCE_S)
    until_it_answers(lambda: log.create([TopicConfig("t", 1)]))
    writer = until_it_answers(lambda: log.writer("w"))
    until_it_answers(lambda: send(writer, b"before"))
    inner = writer._producer._producer
    client, ready, begin = inner._sender._client, inner._sender._client.await_ready, None

    def lose(*_, **__):
        client.await_ready = ready
        raise KafkaConnectionError("not ready")

    def lossy():
        client.await_ready = lose
        return begin()

    begin = getattr(inner._transaction_manager, asked)
    monkeypatch.setattr(inner._transaction_manager, asked, lossy)
    if asked == "begin_abort":
        monkeypatch.setattr("pipeline.failpoint.reach", failed_once(monkeypatch))
    refused(lambda: send(writer, b"during"), port)
    until_it_answers(lambda: send(writer, b"during"))
    until_it_answers(lambda: send(writer, b"after"))
    assert writer._producer._producer is not inner
    values = [record.value for record in until_it_answers(lambda: read_all(log, "t"))]
    assert values == [b"before", b"during", b"after"]
    writer.close()
    log.close()


def failed_once(monkeypatch):
    def reach(name, **context):
        monkeypatch.setattr("pipeline.failpoint.reach", lambda name, **context: None)
        raise KafkaConnectionError("on purpose")

    return reach


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
