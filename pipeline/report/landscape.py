"""How the believed difficulty of the prompts moved during a run, and whether what was believed came true.

The posterior's topic keeps only the newest state of a prompt, so the states of earlier steps are folded again here,
from verdicts and steps in the order of their times, with the run's own estimate. What was predicted of a rollout is
the belief that its request carried.

Axes: P prompts, K statistics of the estimate, C classes of the believed pass rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import Message

from pipeline.evidence import movements
from sluice.v1 import prompt_pb2, rollout_pb2

CLASSES = 5
"""Classes of the believed pass rate, of equal width."""


def landscape(estimate: Any, nouns: Sequence[Message], shown: Iterable[int]) -> list[tuple[int, list[float]]]:
    """(step, share of the prompts tried by then in each class of the posterior mean) for the steps in `shown`.

    `nouns`: verdicts, and steps that stand, in the order of their times. `estimate`: a part of `difficulty.estimate`.
    """
    fold, wanted = _Fold(estimate, nouns), set(shown)
    waiting: list[rollout_pb2.Verdict] = []
    found = []
    for noun in nouns:
        if isinstance(noun, rollout_pb2.Verdict):
            waiting.append(noun)
            continue
        fold.observe(waiting)
        waiting = []
        fold.advance(noun)
        if noun.step in wanted and fold.tried_P.any():
            found.append((noun.step, fold.shares()))
    return found


class _Fold:
    """All prompts' statistics at one step."""

    def __init__(self, estimate: Any, nouns: Sequence[Message]) -> None:
        ids = (noun.prompt_id for noun in nouns if isinstance(noun, rollout_pb2.Verdict))
        self.estimate, self.row = estimate, {prompt_id: row for row, prompt_id in enumerate(dict.fromkeys(ids))}
        self.values_PK = np.tile(np.array(estimate.initial().values), (len(self.row), 1))
        self.decayed_P, self.tried_P = np.zeros(len(self.row), np.int64), np.zeros(len(self.row), bool)
        self.step = self.version = 0

    def observe(self, verdicts: Sequence[rollout_pb2.Verdict]) -> None:
        """Outcomes in this order, all first ones of their prompts at once, then all second ones, and so on."""
        rows_N = np.array([self.row[verdict.prompt_id] for verdict in verdicts], int)
        accuracy_N = np.array([verdict.accuracy for verdict in verdicts])
        lag_N = np.array([max(self.version - verdict.min_version, 0) for verdict in verdicts], int)
        while len(rows_N):
            rows_P, first = np.unique(rows_N, return_index=True)
            told = (accuracy_N[first], lag_N[first], np.full(len(first), self.step))
            self.values_PK[rows_P] = self.estimate.observe(self.values_PK[rows_P], self.decayed_P[rows_P], *told)
            self.decayed_P[rows_P], self.tried_P[rows_P] = self.step, True
            rows_N, accuracy_N, lag_N = (np.delete(each, first) for each in (rows_N, accuracy_N, lag_N))

    def advance(self, step: Any) -> None:
        """The learner's next step, with the movements that it measured."""
        self.step, self.version = step.step, max(self.version, step.version)
        moved = {self.row[prompt_id]: nats for prompt_id, nats in movements(step) if prompt_id in self.row}
        if not moved:
            return
        rows_P = np.array(list(moved))
        after_PK = self.estimate.moved(self.values_PK[rows_P], np.array(list(moved.values())))
        if after_PK is not None:
            self.values_PK[rows_P], self.decayed_P[rows_P] = after_PK, self.step

    def shares(self) -> list[float]:
        """Share of the tried prompts in each class."""
        tried_P = self.tried_P
        alpha_P, beta_P = self.estimate.pseudo_counts(self.values_PK[tried_P], self.decayed_P[tried_P], self.step)
        class_P = np.minimum((alpha_P / (alpha_P + beta_P) * CLASSES).astype(int), CLASSES - 1)
        return (np.bincount(class_P, minlength=CLASSES) / len(class_P)).tolist()


def predictions(
    requests: Iterable[prompt_pb2.RolloutRequest], verdicts: Iterable[rollout_pb2.Verdict]
) -> list[tuple[float, float]]:
    """(pass rate believed when a rollout was asked for, the accuracy that came back) of every rollout seen."""
    believed = {request.request_id: request.belief.mean for request in requests if request.HasField("belief")}
    return [
        (believed[verdict.key.request_id], verdict.accuracy)
        for verdict in verdicts
        if verdict.key.request_id in believed
    ]
