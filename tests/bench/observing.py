"""What observing costs: short runs with metrics and tracing on, each beside one with both off.

On: everything is counted, every worker's metrics are read over HTTP every 2 s as Prometheus does, and a tenth of the
requests is traced to a real OTLP receiver. Off: nothing is counted, read or traced. The two of a pair follow each
other, each first in every other pair; the cost of a pair is 1 - (rollouts/s on) / (rollouts/s off).
"""

from __future__ import annotations

import math
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import mean, stdev
from unittest.mock import patch

from pipeline.rundir import RunDir
from pipeline.view import Watcher
from tests.bench.runs import run
from tests.bench.table import machine, table
from tests.otlp import Receiver

PAIRS = 10
STEPS = 40
EVERY_S = 2.0
T_95 = {10: 1.833, 11: 1.812, 12: 1.796, 13: 1.782, 14: 1.771, 15: 1.761, 16: 1.753, 20: 1.729}
"""One-sided 95 % quantile of Student's t by number of pairs."""


def main() -> str:
    """Ten pairs, and the bound."""
    pairs = [pair(number) for number in range(PAIRS)]
    costs = [1 - on / off for on, off in pairs]
    rows = [
        [number + 1, on, off, f"{cost:+.1%}"] for number, ((on, off), cost) in enumerate(zip(pairs, costs, strict=True))
    ]
    return "\n\n".join(
        [
            "# What observing costs",
            f"The small job, {STEPS} steps, {PAIRS} interleaved pairs. {machine()}.",
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
    """(on, off), rollouts a second."""
    rates = {}
    for on in (True, False) if number % 2 else (False, True):
        rates[on] = rate(on)
        print(f"pair {number + 1}, {'on' if on else 'off'}: {rates[on]:.0f} rollouts/s", file=sys.stderr, flush=True)
    return rates[True], rates[False]


def rate(on: bool) -> float:
    """Of one run."""
    sets = {"learning__steps": STEPS, "evaluate__prompts": 0, "evaluate__every": 0}
    with Receiver() as receiver:
        traced = receiver.environment | {"OTEL_TRACES_SAMPLER_ARG": "0.1"}
        with patch.dict(os.environ, traced if on else {"SLUICE_METRICS": "off"}):
            found = run(beside=reading if on else nullcontext, **sets)["rollouts_per_s"]
        if on != bool(receiver.spans):
            raise RuntimeError(f"observing is {on} and {len(receiver.spans)} spans came")
    return found


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
    while not (directory / "run.json").exists():
        if over.wait(EVERY_S):
            return
    of = RunDir.of(directory)
    log = of.open_log()
    watcher = Watcher(log, of.names())
    while not over.wait(EVERY_S):
        ports = {int(one.gauges["metrics_port"]) for one in watcher.look().workers.values() if one.gauges}
        for port in ports - {0}:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                read.append(len(answer.read()))
    log.close()
