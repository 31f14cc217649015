"""Reads from a run's log what its report shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import records, rollouts
from pipeline.config import Run
from pipeline.errors import Poison
from pipeline.log.api import Log, read_all
from pipeline.report.data import RunData
from pipeline.topics import Names
from pipeline.view import TOPICS, View
from sluice.v1 import posterior_pb2

SAMPLES = 8
"""Rollouts shown from the first steps, and as many from the last."""


def collect(log: Log, names: Names, run: Run, summary: dict[str, Any]) -> RunData:
    """Everything a report needs. `summary` is `pipeline.summary.summarise`'s."""
    view = View()
    for topic in TOPICS:
        for noun in _nouns(log, names, topic):
            view.add(noun)
    rows = list(rollouts.rows(log, names))
    return RunData(
        summary={"run": run.run, "log": run.log, "model": run.model.source, "max_lag": run.max_lag} | summary,
        steps=view.steps,
        evals=view.evals,
        workers=[view.lives[life] for life in sorted(view.lives)],
        audit=summary.get("audit", {}),
        samples=chosen(rows),
        accuracy=accuracy_by_step(rows),
        sampled=[(row["ended_ms"] / 1e3, row["tokens"]) for row in rows if row["ended_ms"]],
        beliefs=beliefs(_nouns(log, names, "posterior"), view.step),
    )


def chosen(rows: Iterable[dict[str, Any]], count: int = SAMPLES) -> list[dict[str, Any]]:
    """Trained rollouts of the first steps and of the last, `count` each, spread over their prompts."""
    trained = sorted((row for row in rows if row["step"] is not None), key=lambda row: row["step"])
    first = _one_per_prompt(trained)[:count]
    last = _one_per_prompt(trained[::-1])[:count][::-1]
    return first + [row for row in last if row not in first]


def accuracy_by_step(rows: Iterable[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, mean accuracy of the rollouts it was the first to train on)."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["step"] is not None and row["accuracy"] is not None:
            found[row["step"]].append(row["accuracy"])
    return [(step, sum(values) / len(values)) for step, values in sorted(found.items())]


def beliefs(states: Iterable[Any], steps: int) -> dict[str, list[float]]:
    """Posterior means after the first quarter of the steps and at the end, of prompts tried by then.

    Only states with the statistics of a Beta distribution count; without any the result is empty.
    """
    early: dict[str, float] = {}
    last: dict[str, float] = {}
    for state in states:
        if not isinstance(state, posterior_pb2.PosteriorState) or not {"alpha", "beta"} <= set(state.statistics):
            continue
        alpha, beta = state.statistics["alpha"], state.statistics["beta"]
        if not state.visits or alpha + beta <= 0:
            continue
        last[state.prompt_id] = alpha / (alpha + beta)
        if state.step <= steps // 4:
            early[state.prompt_id] = last[state.prompt_id]
    found = {f"by step {steps // 4}": list(early.values()), "at the end": list(last.values())}
    return {heading: values for heading, values in found.items() if values}


def _one_per_prompt(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["prompt_id"], row)
    return list(first.values())


def _nouns(log: Log, names: Names, topic: str) -> list[Any]:
    found = []
    for record in read_all(log, names.topic(topic)):
        try:
            found += [records.decode(record)] if record.value else []
        except Poison:
            continue
    return found
