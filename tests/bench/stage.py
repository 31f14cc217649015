"""Records per second through the stage loop: on Kafka, on the embedded log, and through bare kafka-python.

All three read records of a rollout's size, write each to another topic and commit both in one transaction per batch of
at most 500, with `acks=all`. The bare loop moves the bytes; the stage also decodes, encodes, traces and counts.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

from pipeline import records, topics
from pipeline.life import Life
from pipeline.log import Log, open_log
from pipeline.metrics import Meter
from pipeline.stage import Output, Stage
from pipeline.topics import Names
from pipeline.ways import run_batch
from sluice.v1 import rollout_pb2
from tests.bench.table import machine, middle, table

RECORDS, ROUNDS, BATCH = 10_000, 3, 500
BROKER = Path(__file__).parents[1] / "kafka" / "broker"
ADDRESS = "localhost:9092"


def main() -> str:
    """Three rounds of each, interleaved; the table."""
    subprocess.run([sys.executable, str(BROKER), "start"], check=True, capture_output=True)
    found: dict[str, list[float]] = {"bare kafka-python": [], "stage on Kafka": [], "stage on the embedded log": []}
    with tempfile.TemporaryDirectory(prefix="sluice-stage-") as folder:
        for number in range(ROUNDS):
            names = Names("bench", f"b{random.randrange(10**9)}")
            kafka = filled(f"kafka://{ADDRESS}", names)
            found["bare kafka-python"].append(bare(names))
            found["stage on Kafka"].append(staged(kafka, names))
            kafka.close()
            local = filled(f"{folder}/{number}.db", names)
            found["stage on the embedded log"].append(staged(local, names))
            local.close()
    base = sorted(found["bare kafka-python"])[ROUNDS // 2]
    rows = [[name, middle(rates), sorted(rates)[ROUNDS // 2] / base] for name, rates in found.items()]
    size = len(rollout(0).SerializeToString())
    said = f"{RECORDS} records of {size} bytes, {BATCH} per transaction, median of {ROUNDS} rounds. {machine()}."
    return "\n\n".join(["# Records through the stage loop", said, table(["what", "records/s", "ratio"], rows)])


def rollout(number: int) -> rollout_pb2.Rollout:
    """A rollout of the small job's size."""
    call = rollout_pb2.Call(context_tokens=range(40, 48), tokens=range(50, 58), logprobs=[-0.5] * 8, text="backward")
    key = rollout_pb2.RolloutKey(request_id=f"r-{number:08d}", attempt=1)
    return rollout_pb2.Rollout(key=key, prompt_id=f"p-{number % 500}", calls=[call], sha256=b"s" * 32, worker_id="w")


def filled(address: str, names: Names) -> Log:
    """A log with the records on `rollouts`."""
    log = open_log(address)
    topics.create(log, names, local=True)
    writer = log.writer(names.own("fill"))
    for first in range(0, RECORDS, 2000):
        with writer.transaction() as transaction:
            for number in range(first, first + 2000):
                noun = rollout(number)
                transaction.sends.append(records.encode(names.topic("rollouts"), noun.prompt_id, noun))
    writer.close()
    return log


class Echo:
    """Writes every rollout to the retry topic."""

    tick_s = 0.2

    def __init__(self, life: Life) -> None:
        self.life, self.seen, self.begun, self.ended = life, 0, 0.0, 0.0

    def restore(self) -> None:
        """It has no state."""

    def __call__(self, nouns, offsets) -> list[Output]:
        now = time.perf_counter()
        self.begun = self.begun or now
        self.seen += len(nouns)
        if self.seen >= RECORDS and not nouns:
            self.ended = now
            self.life.stop()
        return [Output("rollouts-retry", noun.prompt_id, noun) for noun in nouns]

    def poison(self, ids, reason) -> list[Output]:
        return []

    def waiting_for(self) -> str:
        return "rollouts"

    def idle(self) -> bool:
        return True


def staged(log: Log, names: Names) -> float:
    """Records per second of a stage of its own group, from its first record to its last commit."""
    life = Life()
    stage = Stage("verification", f"bench-{random.randrange(10**9)}", log, names, Meter("verification", "bench"), life)
    echo = Echo(life)
    thread = threading.Thread(target=run_batch, args=(stage, echo, ["rollouts"], "bench-stage", "bench-stage"))
    thread.start()
    thread.join(300)
    # The tick that saw the end came after the last commit and one wait of `tick_s`.
    return RECORDS / (echo.ended - echo.tick_s - echo.begun)


def bare(names: Names) -> float:
    """Records per second of a plain consume-transform-produce loop."""
    source, sink = names.topic("rollouts"), names.topic("rollouts-retry")
    producer = KafkaProducer(
        bootstrap_servers=ADDRESS, transactional_id=names.own("bare"), acks="all", retry_backoff_ms=5, linger_ms=0
    )
    producer.init_transactions()
    consumer = KafkaConsumer(
        source,
        bootstrap_servers=ADDRESS,
        group_id=names.own("bare"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=BATCH,
    )
    seen, begun = 0, 0.0
    while seen < RECORDS:
        polled = consumer.poll(timeout_ms=200)
        if not polled:
            continue
        begun = begun or time.perf_counter()
        producer.begin_transaction()
        ends = {}
        for partition, found in polled.items():
            for one in found:
                producer.send(sink, key=one.key, value=one.value, headers=one.headers)
            ends[TopicPartition(*partition)] = OffsetAndMetadata(found[-1].offset + 1, "", -1)
            seen += len(found)
        producer.send_offsets_to_transaction(ends, consumer.group_metadata())
        producer.commit_transaction()
    rate = RECORDS / (time.perf_counter() - begun)
    consumer.close()
    producer.close()
    return rate
