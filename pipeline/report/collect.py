"""Reads from a run's log what its report shows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import parts, recipe, records, rollouts
from pipeline.config import Run
from pipeline.errors import Poison
from pipeline.evidence import is_evidence
from pipeline.log.api import Log, Record, read_all, read_in_time
from pipeline.report.data import Looked, RunData
from pipeline.report.landscape import landscape, predictions
from pipeline.topics import Names
from pipeline.view import TOPICS, View
from sluice.v1 import rollout_pb2, training_pb2

COLUMNS = 40
"""Steps whose beliefs are shown, about."""
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
        verdicts=verdicts_by_check(rows),
        looked=second_looks(rows),
        sampled=[(row["ended_ms"] / 1e3, row["tokens"]) for row in rows if row["ended_ms"]],
        **difficulty(log, names, run, view),
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


def verdicts_by_check(rows: Iterable[dict[str, Any]]) -> dict[str, Counter[str]]:
    """How many verdicts of each outcome, by the check that gave them."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["outcome"] is not None:
            found[row["checker"]][row["outcome"]] += 1
    return dict(found)


def second_looks(rows: Iterable[dict[str, Any]]) -> list[Looked]:
    """What a stronger check looked at, in the order in which the rollouts ended."""
    found = sorted((row for row in rows if row["hidden_outcome"]), key=lambda row: row["ended_ms"])
    return [Looked(*(row[name] for name in Looked._fields)) for row in found]


def difficulty(log: Log, names: Names, run: Run, view: View) -> dict[str, Any]:
    """What was believed of the prompts, step by step, and how it came true: two fields of `RunData`."""
    standing = {(step.epoch, step.step) for step in view.steps}
    topics = [names.topic(topic) for topic in ("verdicts", "steps")]
    nouns = _decoded(read_in_time(log, topics))
    seen = [
        noun
        for noun in nouns
        if (isinstance(noun, rollout_pb2.Verdict) and is_evidence(noun))
        or (isinstance(noun, training_pb2.TrainStep) and (noun.epoch, noun.step) in standing)
    ]
    part = recipe.compose(run).estimate
    estimate = parts.load("difficulty.estimate", part.name, **part.knobs)
    verdicts = [noun for noun in seen if isinstance(noun, rollout_pb2.Verdict)]
    every = max(1, len(view.steps) // COLUMNS)
    return {
        "landscape": landscape(estimate, seen, [step.step for step in view.steps[every - 1 :: every]]),
        "predictions": predictions(_nouns(log, names, "requests"), verdicts),
    }


def _one_per_prompt(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["prompt_id"], row)
    return list(first.values())


def _nouns(log: Log, names: Names, topic: str) -> list[Any]:
    return _decoded(read_all(log, names.topic(topic)))


def _decoded(found: Iterable[Record]) -> list[Any]:
    nouns = []
    for record in found:
        try:
            nouns += [records.decode(record)] if record.value else []
        except Poison:
            continue
    return nouns
