"""What a report is made of: plain nouns, so that a report can be made from a test as well as from a log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sluice.v1 import control_pb2, training_pb2


class Looked(NamedTuple):
    """One verdict beside what a stronger check said of the same answer; outcomes as short names."""

    checker: str
    outcome: str
    hidden_checker: str
    hidden_outcome: str


@dataclass(frozen=True)
class RunData:
    """One run.

    `summary`: what `summary.json` holds. `steps`: those that stand, in order. `evals`, `workers`: the newest of each.
    `audit`: the audit's account. `samples`: rollouts as rows (`pipeline.rollouts.COLUMNS`). `accuracy`: (step, mean
    accuracy in [0, 1] of what it trained on). `sampled`: (end of a rollout, seconds since the Unix epoch; its tokens).
    `landscape`: (step, shares of the prompts tried by then in equal classes of the posterior mean), some of the steps.
    `predictions`: (pass rate believed when a rollout was asked for, its accuracy), both in [0, 1].
    `verdicts`: how many of each outcome, by check. `looked`: second looks, in the order in which the rollouts ended.
    """

    summary: dict[str, Any]
    steps: list[training_pb2.TrainStep] = field(default_factory=list)
    evals: list[control_pb2.Evaluation] = field(default_factory=list)
    workers: list[control_pb2.WorkerStatus] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    accuracy: list[tuple[int, float]] = field(default_factory=list)
    sampled: list[tuple[float, int]] = field(default_factory=list)
    landscape: list[tuple[int, list[float]]] = field(default_factory=list)
    predictions: list[tuple[float, float]] = field(default_factory=list)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    looked: list[Looked] = field(default_factory=list)
