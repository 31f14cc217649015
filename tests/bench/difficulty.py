"""What the difficulty service costs at 10,000, 100,000 and 1,000,000 prompts.

Per size: `Next(256)` for every sampler, in process and through gRPC, in process where no prompt was tried yet (samplers
with a class that is then empty), and through gRPC while one snapshot after another is written; the same chosen by the
per-step loop over Python dictionaries of verl's SPO recipe (re-created from what it does: two dictionaries over all
prompts, a weight per candidate, one draw without replacement); outcomes observed per second in memory, each written
down in its prompt's journal as in a run that is past its newest checkpoint, and, committed, on the embedded log; the
snapshot; a restart from it plus 10,000 newer records; resident memory.

Times are medians and 99th percentiles of one run on one core, each size in a process of its own. CPU time of the thread
that works, where nothing else is needed; wall time where the answer waits for other threads or for the disk (gRPC,
committed outcomes, snapshot, restart), for CPU time would leave out fsync. The last column of the table is the exponent
b of cost = a * P ** b.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import psutil

from pipeline import parts, records, topics
from pipeline.gate import Gate
from pipeline.log import open_log
from pipeline.log.api import read_batches
from pipeline.topics import Names
from services.difficulty import snapshot
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.index import Index
from services.difficulty.sampler.spo_prioritised import SpoPrioritised
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from services.difficulty.snapshots import Snapshots
from services.difficulty.texts import Texts
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2, training_pb2
from tests.bench.table import machine, table

SIZES = (10_000, 100_000, 1_000_000)
N, ROUNDS = 256, 100
ASKED = 50
"""Calls through gRPC of each sampler."""
LATELY = 10
"""Batches of outcomes since the newest checkpoint, when the snapshot is written."""
NAMES = Names("bench", "difficulty")


clock = time.thread_time
"""CPU time of the measuring thread, so that what else the machine does is not in it."""
wall = time.perf_counter
"""Where others work too, or the disk: CPU time knows nothing of a wait."""


def main() -> str:
    """Each size in its own process; the table."""
    found = [_measured(size) for size in SIZES]
    header = ["what", *(f"{size:,} prompts" for size in SIZES), "exponent"]
    rows = []
    for name in found[-1]:
        values = [float(each[name]) for each in found]
        slope = np.polyfit(np.log(SIZES), np.log(np.maximum(values, 1e-9)), 1)[0]
        rows.append([name, *values, f"{slope:.2f}"])
    times = f"{N} prompts or outcomes at a time, {ROUNDS} times, through gRPC {ASKED} times"
    said = f"{times}; one core, CPU time unless it says wall. {machine()}."
    return "\n\n".join(["# The difficulty service by number of prompts", said, table(header, rows)])


def _measured(size: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-c", f"import tests.bench.difficulty as d; d.child({size})"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(size: int) -> None:
    """Measure one size; print it as JSON."""
    with tempfile.TemporaryDirectory(prefix="sluice-difficulty-") as folder:
        print(json.dumps(measure(size, Path(folder))))


def prompt_id(number: int) -> str:
    """An id of 32 characters, as a content hash has."""
    return f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}"


def build(folder: Path, sampler, name: str = "prompts.bin") -> Scheduler:
    """A scheduler that keeps its messages in the folder."""
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=16)
    path = folder / name
    return Scheduler(Beta(), sampler, Fixed(8), Gate(4, 8 * N), sampling, texts_path=path)


def measure(size: int, folder: Path) -> dict[str, float]:
    """Every line of the table for one size."""
    idle = _resident()
    rng = np.random.default_rng(0)
    scheduler = filled(folder, size, rng)
    scheduler.view()
    found: dict[str, float] = {}
    handler = Handler(scheduler, now_ms=lambda: 0)
    chosen = scheduler.sampler
    for name, sampler in samplers().items():
        times = _times(lambda sampler=sampler: sampler(scheduler.view(), N, rng), ROUNDS)
        found[f"Next, {name}: p50, ms"], found[f"Next, {name}: p99, ms"] = _ms(times)
        scheduler.sampler, told = sampler, f"Next through gRPC, {name}, wall"
        found[f"{told}: p50, ms"], found[f"{told}: p99, ms"] = _ms(_asked(handler))
    scheduler.sampler = chosen
    found |= _new_run(scheduler, rng)
    gc.collect()
    found["memory above an idle service, MB"] = (_resident() - idle) / 2**20
    found["outcomes observed per second, in memory"] = _observed(scheduler, size, rng)
    found["outcomes observed per second, committed, wall"] = _committed(scheduler, size, rng, folder)
    _settled(scheduler, size, rng)
    told = "Next through gRPC while a snapshot is written, wall"
    times, most = _asked_meanwhile(handler, folder)
    found[f"{told}: p50, ms"], found[f"{told}: p99, ms"] = _ms(times)
    found[f"{told}: longest, ms"] = max(times) * 1000
    found["memory above an idle service while a snapshot is written, MB"] = (most - idle) / 2**20
    found["write the snapshot, wall, s"], found["restart: snapshot and 10,000 records, wall, s"] = _restarted(
        scheduler, size, folder
    )
    spo = _ms(_times(lambda: scheduler.sampler(scheduler.view(), N, rng), 20))[0]
    ids = [prompt_id(number) for number in range(size)]
    step = _dictionaries(ids, rng)
    found["verl's dictionaries, per step: p50, ms"] = _ms(_times(step, 3))[0]
    found["times faster than the dictionaries"] = found["verl's dictionaries, per step: p50, ms"] / spo
    return found


def samplers() -> dict[str, Any]:
    """Every sampler that ships, as it is by default; Thompson from its pool and by a draw for every prompt."""
    found = {name: parts.load("difficulty.sampler", name) for name in parts.names("difficulty.sampler")}
    pooled = found.pop("vade_thompson")
    return found | {"vade_thompson, from the pool": pooled, "vade_thompson, full draw": VadeThompson(pool=0)}


def filled(folder: Path, size: int, rng: np.random.Generator) -> Scheduler:
    """So many prompts, each tried 8 times: a fifth solved, two fifths hopeless. One message on disk serves all."""
    scheduler = build(folder, SpoPrioritised())
    part = prompt_pb2.Part(text="What is the sum of the first seventeen prime numbers? " * 4)
    scheduler.add(prompt_pb2.Prompt(prompt_id="first", messages=[prompt_pb2.Message(role="user", parts=[part])]))
    end, length = scheduler.prompts.sync(), int(scheduler.prompts.size_P[0])
    index = Index.load("".join(map(prompt_id, range(size))).encode(), np.arange(1, size + 1) * 32)
    sizes_P = np.full(size, length, np.int32)
    texts = Texts.load(index, folder / "prompts.bin", end, np.zeros(size, np.int64), sizes_P)
    rate_P = rng.choice([0.97, 0.02, 0.5], p=[0.2, 0.4, 0.4], size=size)
    recent_PR = (rng.random((size, 8)) < rate_P[:, None]).astype(float)
    right_P = recent_PR.sum(axis=1)
    columns = {"values": np.stack((1 + right_P, 9 - right_P), axis=1), "recent": recent_PR}
    columns |= {"visits": np.full(size, 8), "last_step": np.full(size, 90), "decayed": np.full(size, 90)}
    columns |= {"turn_sum": right_P, "turn_outcomes": np.full(size, 8), "tally": np.ones(size)}
    columns |= {"last_version": np.full(size, 90), "diversity": rng.random(size), "turn_mean": right_P / 8}
    scheduler.adopt(index, columns, {"": 0}, texts, [])
    # As in a run nearly always: past the newest checkpoint, so that what comes may have to be taken back.
    scheduler.store.learner, scheduler.store.step, scheduler.store.checkpoint_step = True, 100, 99
    return scheduler


def _times(action, rounds: int, clock=clock) -> list[float]:
    action()
    found = []
    for _ in range(rounds):
        begun = clock()
        action()
        found.append(clock() - begun)
    return found


def _ms(times: list[float]) -> tuple[float, float]:
    return float(np.percentile(times, 50) * 1000), float(np.percentile(times, 99) * 1000)


def _resident() -> int:
    return psutil.Process().memory_info().rss


@contextmanager
def _door(handler: Handler) -> Iterator[Any]:
    """A caller of `Next` through gRPC."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server(Door(handler, lambda sent: None), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = difficulty_pb2_grpc.DifficultyServiceStub(channel)
        yield lambda: stub.Next(difficulty_pb2.NextRequest(n=N), timeout=60)
    server.stop(None).wait(5)


def _new_run(scheduler: Scheduler, rng: np.random.Generator) -> dict[str, float]:
    """Samplers with a class that hardly any prompt is in while none was tried."""
    columns, found = scheduler.store.columns, {}
    tried_PW = columns.words_PW[: columns.size].copy()
    columns.used_P[:] = False
    fresh = {"values": 1, "visits": 0, "turn_outcomes": 0, "last_step": 0, "tally": 0}
    for name, value in fresh.items():
        columns[name][: columns.size] = value
    for name in ("curriculum_stages", "difficulty_pools", "failed_replay"):
        sampler = parts.load("difficulty.sampler", name)
        times = _times(lambda sampler=sampler: sampler(scheduler.view(), N, rng), ROUNDS // 5)
        found[f"Next, {name}, none tried: p50, ms"], found[f"Next, {name}, none tried: p99, ms"] = _ms(times)
    columns.words_PW[: columns.size] = tried_PW
    columns.used_P[: columns.size] = True
    return found


def _asked(handler: Handler) -> list[float]:
    with _door(handler) as ask:
        return _times(ask, ASKED, wall)


def _asked_meanwhile(handler: Handler, folder: Path) -> tuple[list[float], int]:
    """One call after the other while one snapshot after the other is written, three of them at least.

    Returns (seconds of each call, most resident bytes seen).
    """
    log = open_log(str(folder / "meanwhile.db"))
    topics.create(log, NAMES, local=True)
    stage = SimpleNamespace(encode=list, commit=lambda sends, offsets, reader: None)
    keeper = Snapshots(folder / "meanwhile.bin", SimpleNamespace(log=log, names=NAMES, stage=stage), handler)
    written, ended, times, most = [], threading.Event(), [], 0

    def write() -> None:
        while not ended.is_set():
            written.append(keeper.write({}))

    with futures.ThreadPoolExecutor(1) as thread, _door(handler) as ask:
        writing = thread.submit(write)
        while not writing.done() and (len(times) < ROUNDS or len(written) < 3):
            begun = wall()
            ask()
            times.append(wall() - begun)
            most = max(most, _resident())
        ended.set()
        writing.result()
    log.close()
    return times, most


def _verdicts(size: int, rng: np.random.Generator) -> list[rollout_pb2.Verdict]:
    """A batch of outcomes of prompts at random."""
    right = rng.integers(2, size=N)
    return [
        rollout_pb2.Verdict(prompt_id=prompt_id(int(number)), accuracy=int(a), outcome=1 + int(a == 0), purpose=1)
        for number, a in zip(rng.integers(size, size=N), right, strict=True)
    ]


def _observed(scheduler: Scheduler, size: int, rng: np.random.Generator) -> float:
    """Median over batches; each is made just before, as the stage hands over what it has just decoded."""
    times = []
    for _ in range(2 * ROUNDS):
        batch = _verdicts(size, rng)
        begun = clock()
        scheduler.observe(batch)
        scheduler.store.clean()
        times.append(clock() - begun)
    return N / float(np.median(times))


def _settled(scheduler: Scheduler, size: int, rng: np.random.Generator) -> None:
    """A checkpoint settles all, then a step's outcomes come."""
    store = scheduler.store
    store.settle(store.step)
    store.step += 1
    for _ in range(LATELY):
        scheduler.observe(_verdicts(size, rng))
    store.clean()


def _committed(scheduler: Scheduler, size: int, rng: np.random.Generator, folder: Path) -> float:
    """Told through the door's `Observe`: answered when its record is committed; batches as callers send them."""
    log = open_log(str(folder / "observe.db"))
    topics.create(log, NAMES, local=True)
    writer = log.writer("observe")

    def write(sent) -> None:
        with writer.transaction() as transaction:
            transaction.sends.extend(records.encode(NAMES.topic(topic), key, noun) for topic, key, noun in sent)

    door = Door(Handler(scheduler, now_ms=lambda: 0), write)
    asked = [
        difficulty_pb2.ObserveRequest(
            observations=[
                difficulty_pb2.Observation(prompt_id=prompt_id(int(number)), accuracy=1.0)
                for number in rng.integers(size, size=N)
            ]
        )
        for _ in range(ROUNDS)
    ]
    begun = wall()
    for request in asked:
        door.Observe(request, None)
    rate = N * ROUNDS / (wall() - begun)
    writer.close()
    log.close()
    return rate


def _restarted(scheduler: Scheduler, size: int, folder: Path) -> tuple[float, float]:
    log = open_log(str(folder / "log.db"))
    topics.create(log, NAMES, local=True)
    topic, path = NAMES.topic("posterior"), folder / "snapshot.bin"
    scheduler.store.clean()
    covers = {partition: end for partition, (_, end) in log.bounds(topic).items()}
    begun = wall()
    list(snapshot.write(path, snapshot.take(scheduler, covers, {})))
    wrote = wall() - begun
    writer = log.writer("posterior")
    scheduler.applied = [training_pb2.Offset(topic="verdicts", partition=p, offset=9) for p in range(4)]
    with writer.transaction() as transaction:
        for row in range(min(10_000, size)):
            known = scheduler.posterior(scheduler.store.rows.id_of(row))
            transaction.sends.append(records.encode(topic, known.prompt_id, known))
    writer.close()
    again = build(folder, SpoPrioritised())
    begun = wall()
    found = snapshot.read(path, again, {partition: end for partition, (_, end) in log.bounds(topic).items()})
    again.replay(records.decode(record) for batch in read_batches(log, topic, found.covers) for record in batch)
    again.view()
    took = wall() - begun
    assert len(again.prompts) == size
    log.close()
    return wrote, took


def _dictionaries(ids: list[str], rng: np.random.Generator):
    """One step's choice as verl's SPO recipe makes it: beliefs and weights of all prompts, anew, in dictionaries."""
    alpha, beta = {each: 0.5 + rng.random() for each in ids}, {each: 0.5 + rng.random() for each in ids}
    batch = [[{"role": "user", "content": each + " "}] for each in ids]

    def step():
        value = {each: float(alpha[each]) / float(alpha[each] + beta[each]) for each in ids}
        weight = {each: (value[each] * (1.0 - value[each])) ** 0.5 + 0.05 for each in ids}
        items, weights = [], []
        for place, prompt in enumerate(batch):
            items.append(place)
            weights.append(float(weight.get(prompt[0]["content"].strip(), 0.0)))
        share = np.asarray(weights, dtype=np.float64)
        share = share / float(share.sum())
        chosen = np.random.choice(len(items), size=N, replace=False, p=share / share.sum())
        return [items[place] for place in chosen.tolist()]

    return step
