"""Which verdicts the posterior must see, and what of them it sees: many at once, as columns.

Left out: evaluations, checks that found nothing out, verdicts of no prompt. Dead letters: an accuracy or a diversity
that cannot be, a prompt that nobody registered, and versions that cannot be. A step and its version are announced
together, so a rollout of a version that no step announced was never sampled by this run; one whose step the log has
forgotten cannot be checked against it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from pipeline.data.prompts import REDEFINED
from pipeline.evidence import EVALUATE, OUT_OF_RANGE, UNSEEN, unseen
from sluice.v1 import rollout_pb2

DIVERSITY = "diversity"
"""The named reward of a verdict that says how different its group's rollouts were, in [0, 1]."""
DIVERSITY_OUT_OF_RANGE = "diversity_out_of_range"
UNKNOWN = "prompt_not_registered"
"""Why a verdict is refused whose prompt is none to train on."""
REFUSED = (OUT_OF_RANGE, DIVERSITY_OUT_OF_RANGE, UNKNOWN, "version_not_announced", "version_forgotten", REDEFINED)
"""Why a record is dead-lettered instead of left out."""
LARGEST = 1 << 62
"""Versions are compared up to here."""


class Versions(NamedTuple):
    """Versions whose rollouts may be observed: from the oldest step that the log still holds to the newest one."""

    oldest: int
    newest: int

    def __str__(self) -> str:
        return f"{self.oldest} (oldest step on the log) to {self.newest} (newest version announced)"

    def wrong(self, lowest: int, highest: int) -> str:
        """Why a rollout with tokens of these versions cannot be observed; empty when it can.

        >>> [Versions(3, 9).wrong(*each) for each in [(3, 9), (4, 10), (2, 5)]]
        ['', 'version_not_announced', 'version_forgotten']
        """
        if highest > self.newest:
            return "version_not_announced"
        return "version_forgotten" if lowest < self.oldest else ""


FIELDS = attrgetter("outcome", "purpose", "accuracy", "min_version", "max_version", "prompt_id", "rewards")


class Told(NamedTuple):
    """N verdicts: why each is left out, empty when it is not, and columns over all of them."""

    reasons: list[str]
    prompt_ids: Sequence[str]
    accuracy_N: np.ndarray
    lowest_N: np.ndarray
    highest_N: np.ndarray
    rewarded: list[int]
    """Places of those with named rewards."""


def diversities(verdict: rollout_pb2.Verdict) -> list[float]:
    """What a verdict says of how different its group's rollouts were: nothing, or one value; the last one counts."""
    return [reward.value for reward in verdict.rewards if reward.name == DIVERSITY]


def read(verdicts: Sequence[rollout_pb2.Verdict], versions: Versions | None = None) -> Told:
    """What N >= 1 verdicts say. `versions`: those that may be observed; None accepts all."""
    columns = zip(*map(FIELDS, verdicts), strict=True)
    outcomes, purposes, accuracies, lowest, highest, prompt_ids, rewards = columns
    accuracy_N = np.array(accuracies)
    lowest_N, highest_N = (
        np.minimum(np.array(each, np.uint64), np.uint64(LARGEST)).astype(np.int64) for each in (lowest, highest)
    )
    reasons = [""] * len(verdicts)
    if UNSEEN.keys() & set(outcomes) or EVALUATE in purposes or not all(prompt_ids):
        reasons = [unseen(verdict) for verdict in verdicts]
    for place in np.flatnonzero(~((accuracy_N >= 0) & (accuracy_N <= 1))).tolist():
        reasons[place] = reasons[place] or OUT_OF_RANGE
    if versions is not None:
        for place in np.flatnonzero((highest_N > versions.newest) | (lowest_N < versions.oldest)).tolist():
            reasons[place] = reasons[place] or versions.wrong(lowest[place], highest[place])
    rewarded = list(compress(range(len(rewards)), rewards))
    for place in rewarded:
        if not all(0 <= value <= 1 for value in diversities(verdicts[place])):
            reasons[place] = reasons[place] or DIVERSITY_OUT_OF_RANGE
    return Told(reasons, prompt_ids, accuracy_N, lowest_N, highest_N, rewarded)
