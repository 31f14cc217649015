"""`summary.json`: what a run did, computed from its log.

wall_s    from the first to the last work recorded, without the time in which no worker ran: a run that was stopped
          and resumed a week later did not take a week
overlap   share of the wall time in which generation and learning both worked: the intersection of the union of
          the rollouts' sampling intervals with the union of the steps' computing intervals, both as recorded
busy      share of their lives that the processes of each service worked
waits     seconds by service and reason, summed over its processes
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pipeline import records
from pipeline.log.api import Log, read_all
from pipeline.relearn import audit_directory
from pipeline.rundir import RunDir
from pipeline.topics import SERVICES, Names
from pipeline.view import View, Watcher
from sluice.v1 import control_pb2, rollout_pb2

Interval = tuple[float, float]
"""Begin and end, seconds since the Unix epoch."""


def summarise(directory: RunDir) -> dict[str, Any]:
    """The summary of a run."""
    log, names = directory.open_log(), directory.names()
    try:
        view = _view(log, names)
        rollouts = [records.decode_as(rollout_pb2.Rollout, r) for r in read_all(log, names.topic("rollouts"))]
    finally:
        log.close()
    audit = audit_directory(directory).to_json()
    return summary_of(view, rollouts, audit, directory)


def summary_of(
    view: View, rollouts: list[rollout_pb2.Rollout], audit: dict[str, Any], directory: RunDir
) -> dict[str, Any]:
    """The summary, from what was read."""
    sampling = union((r.timings.ended_ms / 1e3 - r.timings.generated_s, r.timings.ended_ms / 1e3) for r in rollouts)
    computing = union((step.ended_ms / 1e3 - step.computed_s, step.ended_ms / 1e3) for step in view.steps)
    wall = attended(view.lives.values(), [*sampling, *computing])
    tokens = {(r.key.request_id, r.key.index): sum(len(call.tokens) for call in r.calls) for r in rollouts}
    trained = [(use.lag, tokens.get((use.key.request_id, use.key.index), 0)) for s in view.steps for use in s.uses]
    return {
        "run": directory.run().run,
        "recipe": directory.run().recipe,
        "eval_before": _evaluations(view, "before"),
        "eval_after": _evaluations(view, "after"),
        "steps": view.step,
        "rollouts_trained": len(trained),
        "rollouts_sampled": len(rollouts),
        "prompts_seen": len({r.prompt_id for r in rollouts}),
        "wall_s": wall,
        "rollouts_per_s": len(trained) / wall if wall else 0.0,
        "tokens_per_s": sum(tokens.values()) / wall if wall else 0.0,
        "lag_mean": sum(lag * n for lag, n in trained) / max(1, sum(n for _, n in trained)),
        "lag_max": max((lag for lag, _ in trained), default=0.0),
        "overlap": measure(intersection(sampling, computing)) / wall if wall else 0.0,
        "busy": {service: _busy(view.lives_of(service)) for service in SERVICES},
        "waits": {service: _waits(view.lives_of(service)) for service in SERVICES},
        "cpu_s": {service: sum(status.cpu_s for status in view.lives_of(service)) for service in SERVICES},
        "cpu_log_s": {service: sum(status.cpu_log_s for status in view.lives_of(service)) for service in SERVICES},
        "drops": dict(view.drops),
        "rewinds": view.rewinds,
        "voided_steps": view.voided_steps,
        "audit": audit,
    }


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time without overlaps, in order.

    >>> union([(3, 4), (0, 1), (0.5, 2)])
    [(0, 2), (3, 4)]
    """
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def intersection(first: list[Interval], second: list[Interval]) -> list[Interval]:
    """The time in both; each list is a `union`.

    >>> intersection([(0, 2), (3, 4)], [(1, 3.5)])
    [(1, 2), (3, 3.5)]
    """
    found = []
    i = j = 0
    while i < len(first) and j < len(second):
        begin, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if begin < end:
            found.append((begin, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def attended(lives: Iterable[control_pb2.WorkerStatus], work: list[Interval]) -> float:
    """Seconds between the first and the last of `work` in which it was done or a process was there to do it."""
    if not work:
        return 0.0
    span = [(min(begin for begin, _ in work), max(end for _, end in work))]
    alive = [(status.started_ms / 1e3, status.written_ms / 1e3) for status in lives]
    return measure(intersection(span, union([*alive, *work])))


def measure(intervals: Iterable[Interval]) -> float:
    """Seconds in all."""
    return sum(end - begin for begin, end in intervals)


def _view(log: Log, names: Names) -> View:
    watcher = Watcher(log, names)
    ends = {
        (names.topic(t), p): end
        for t in ("workers", "steps", "evals")
        for p, (_, end) in log.bounds(names.topic(t)).items()
    }
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and not watcher.reached(ends):
        watcher.look(0.2)
    watcher.close()
    return watcher.view


def _evaluations(view: View, name: str) -> dict[str, Any]:
    sampled, greedy = view.evaluation(name), view.evaluation(f"{name} greedy")
    if sampled is None:
        return {}
    found: dict[str, Any] = dict(sampled.metrics) | {"prompts": sampled.prompts, "version": sampled.version}
    return found | ({"greedy": greedy.metrics["pass@1"]} if greedy and "pass@1" in greedy.metrics else {})


def _busy(lives: list[control_pb2.WorkerStatus]) -> float:
    lived = sum((status.written_ms - status.started_ms) / 1e3 for status in lives)
    return min(1.0, sum(status.busy_s for status in lives) / lived) if lived else 0.0


def _waits(statuses: list[control_pb2.WorkerStatus]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for status in statuses:
        for reason, seconds in status.waits_s.items():
            found[reason] += seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))
