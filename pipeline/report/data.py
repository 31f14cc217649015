"""What a report is made of: plain nouns, so that a report can be made from a test as well as from a log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sluice.v1 import control_pb2, training_pb2


@dataclass(frozen=True)
class RunData:
    """One run.

    `summary`: what `summary.json` holds. `steps`: those that stand, in order. `evals`, `workers`: the newest of each.
    `audit`: the audit's account. `samples`: rollouts as rows (`pipeline.rollouts.COLUMNS`). `accuracy`: (step, mean
    accuracy in [0, 1] of what it trained on). `sampled`: (end of a rollout, seconds since the Unix epoch; its tokens).
    `landscape`: (step, shares of the prompts tried by then in equal classes of the posterior mean), some of the steps.
    `predictions`: (pass rate believed when a rollout was asked for, its accuracy), both in [0, 1].
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
