"""What observing costs: runs with metrics and tracing on, each beside one with both off.

On: everything is counted, every worker's metrics are read over HTTP every 15 s as Prometheus does, and the usual share
of requests, one in a hundred, is traced to a real OTLP receiver. Off: nothing is counted, read or traced. The two of a
pair go at the same time, each on a core of its own, and change cores from pair to pair: what else the machine does, and
how fast it is just then, is the same for both. (One after the other, pairs varied by 9 %.) Which is started first
changes as well. Receiver and reader share the core of the run that is observed. A rate is of the time in which both
train, their first and last steps left out; the cost of a pair is 1 - (rollouts/s on) / (rollouts/s off).

The job: words of 24 letters backward, some 25 tokens a rollout. What observing costs is so much a rollout, whatever its
length: with the ten tokens of the small job it is a larger share, with the thousands of a real one next to nothing.
"""

from __future__ import annotations

import json
import math
import os
import random
import string
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import yaml

from pipeline import records
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from pipeline.tracing import USUAL_SHARE
from pipeline.view import Watcher
from sluice.v1 import training_pb2
from tests.bench.runs import SPELL, ran
from tests.bench.table import machine, table
from tests.otlp import Receiver

PAIRS = 40
STEPS = 90
GROUPS, N, LETTERS = 16, 8, 24
FIRST = 8
"""Steps left out: queues fill."""
LAST = 12
"""Left out as well: nothing is asked for any more, and the learner has the core to itself."""
EVERY_S = 15.0
WORKERS = 4
ALONE = {"OMP_NUM_THREADS": "1"}
"""A second thread of torch on the one core would wait at its rival's cost."""
T_95 = {10: 1.833, 16: 1.753, 20: 1.729, 30: 1.699, 40: 1.685}
"""One-sided 95 % quantile of Student's t by number of pairs."""


def main() -> str:
    """The pairs, and the bound."""
    upper_bound([0.0] * PAIRS)  # the quantile of so many pairs is known before the first is run
    pairs = [pair(number) for number in range(PAIRS)]
    costs = [1 - on / off for on, off in pairs]
    rows = [
        [number + 1, on, off, f"{cost:+.1%}"] for number, ((on, off), cost) in enumerate(zip(pairs, costs, strict=True))
    ]
    return "\n\n".join(
        [
            "# What observing costs",
            *(__doc__ or "").strip().split("\n\n")[1:],
            f"{STEPS} steps of {GROUPS * N} rollouts, a core for each run, {PAIRS} pairs. {machine()}.",
            table(["pair", "on, rollouts/s", "off, rollouts/s", "cost"], rows),
            f"Mean cost {mean(costs):+.2%}, upper 95 % bound {upper_bound(costs):+.2%} of throughput.",
        ]
    )


def upper_bound(costs: Sequence[float]) -> float:
    """One-sided upper 95 % bound of the mean.

    >>> round(upper_bound([0.0, 0.02] * 5), 4)
    0.0161
    """
    return mean(costs) + T_95[len(costs)] * stdev(costs) / math.sqrt(len(costs))


def pair(number: int) -> tuple[float, float]:
    """(on, off), rollouts a second, while both are at work."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    arms = list(zip((True, False), cores if number % 2 else cores[::-1], strict=True))
    with ThreadPoolExecutor(2) as pool:
        running = {on: pool.submit(steps_ended, on, core) for on, core in arms[:: 1 if number % 4 < 2 else -1]}
    ended = [running[on].result() for on in (True, False)]
    begun, over = max(each[FIRST] for each in ended), min(each[-LAST] for each in ended)
    rates = [_rate(each, begun, over) for each in ended]
    print(f"pair {number + 1}: {rates[0]:.0f} rollouts/s on, {rates[1]:.0f} off", file=sys.stderr, flush=True)
    return rates[0], rates[1]


def _rate(ended_ms: Sequence[int], begun_ms: int, over_ms: int) -> float:
    steps = np.diff(np.interp([begun_ms, over_ms], ended_ms, np.arange(len(ended_ms))))[0]
    return float(steps * GROUPS * N / (over_ms - begun_ms) * 1000)


def steps_ended(on: bool, core: int) -> list[int]:
    """When each step of one run ended, milliseconds since the Unix epoch."""
    os.sched_setaffinity(0, {core})
    sets = {"learning__steps": STEPS, "evaluate__prompts": 0, "evaluate__every": 0}
    with Receiver() as receiver, tempfile.TemporaryDirectory(prefix="sluice-observing-") as folder:
        traced = receiver.environment | {"OTEL_TRACES_SAMPLER_ARG": str(USUAL_SHARE)}
        environment = ALONE | (traced if on else {"SLUICE_METRICS": "off"})
        beside = reading if on else nullcontext
        with ran(_job(Path(folder)), beside, environment, **sets) as (_, directory):
            log = directory.open_log()
            found = [records.decode(each) for each in read_all(log, directory.names().topic("steps"))]
            log.close()
        if on != bool(receiver.spans):
            raise RuntimeError(f"observing is {on} and {len(receiver.spans)} spans came")
    return [step.ended_ms for step in found if isinstance(step, training_pb2.TrainStep)]


def _job(folder: Path) -> Path:
    tree = yaml.safe_load(SPELL.read_text())
    tree["data"] = {"sources": [_words(folder / "asked.jsonl", 4000)], "held_out": 8}
    tree["model"] |= {"context": 64, "warm_start": {"steps": 60, "examples": _words(folder / "shown.jsonl", 1000)}}
    tree["generation"]["max_tokens"] = LETTERS + 2
    tree["learning"]["batch_groups"] = GROUPS
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def _words(file: Path, number: int) -> dict[str, str]:
    rng = random.Random(file.name)
    words = ["".join(rng.choices(string.ascii_lowercase, k=LETTERS)) for _ in range(number)]
    file.write_text("\n".join(json.dumps({"question": word, "answer": word[::-1]}) for word in words))
    return {"kind": "jsonl", "path": str(file), "prompt": "question", "answer": "answer", "check": "exact"}


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Read the metrics of every worker of this run, again and again."""
    over, read = threading.Event(), []
    thread = threading.Thread(target=_read, args=(directory, over, read))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if not read:
        raise RuntimeError("no worker's metrics were read")


def _read(directory: Path, over: threading.Event, read: list[int]) -> None:
    ports: set[int] = set()
    while len(ports) < WORKERS and not over.wait(1.0):
        ports = _ports(directory)
    while not over.wait(EVERY_S):
        for port in ports:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                read.append(len(answer.read()))


def _ports(directory: Path) -> set[int]:
    """Where the workers of a run say that their metrics are."""
    if not (directory / "run.json").exists():
        return set()
    of = RunDir.of(directory)
    log = of.open_log()
    workers = Watcher(log, of.names()).look().workers.values()
    log.close()
    return {int(one.gauges["metrics_port"]) for one in workers if one.gauges} - {0}
