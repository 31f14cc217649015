"""What may still be taken back: per prompt, its statistics before the first such change, and the changes since.

A rewind voids what later steps did, so everything applied after the newest named checkpoint is kept and folded again:
outcomes stay (they are facts) as of the step returned to, movements of void steps go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.difficulty.state import Estimate, Stat
from sluice.v1 import posterior_pb2

MOVED = -1
"""In the place of the lag: the change is a movement of the policy."""
Change = tuple[int, float, int]
"""(step known when it was applied, accuracy or nats, lag or `MOVED`)."""


@dataclass(slots=True)
class Journal:
    """Statistics before the first change that may still be taken back, and the changes. Changes are only appended.

    `epoch`: of the record that it was read from.
    """

    base: Stat
    changes: list[Change] = field(default_factory=list)
    epoch: int = field(default=0, compare=False)


def fold(estimate: Estimate, bases: Sequence[Stat], changes: Sequence[Sequence[Change]]) -> list[Stat]:
    """Each base after its changes, applied in order: all first ones at once, then all second ones, and so on."""
    values_JK = np.array([base.values for base in bases], float).reshape(len(bases), len(estimate.columns))
    decayed_J = np.array([base.decayed_step for base in bases], np.int64)
    for turn in range(max(map(len, changes), default=0)):
        live = [number for number, each in enumerate(changes) if len(each) > turn]
        step_J, value_J, lag_J = (np.array(column) for column in zip(*(changes[n][turn] for n in live), strict=True))
        rows = np.array(live)
        seen, moved = lag_J != MOVED, lag_J == MOVED
        if seen.any():
            at = rows[seen]
            told = (value_J[seen].astype(float), lag_J[seen], step_J[seen])
            values_JK[at] = estimate.observe(values_JK[at], decayed_J[at], *told)
            decayed_J[at] = np.maximum(decayed_J[at], step_J[seen])
        if moved.any():
            at = rows[moved]
            after = estimate.moved(values_JK[at], value_J[moved])
            if after is not None:
                values_JK[at] = after
                decayed_J[at] = np.maximum(decayed_J[at], step_J[moved])
    return [Stat(tuple(row), step) for row, step in zip(values_JK.tolist(), decayed_J.tolist(), strict=True)]


def settled(estimate: Estimate, journals: Mapping[int, Journal], checkpoint_step: int) -> dict[int, Journal]:
    """What may still be taken back when nothing at or before this step can be, by row."""
    done = {row: sum(step <= checkpoint_step for step, _, _ in known.changes) for row, known in journals.items()}
    left = {row: known for row, known in journals.items() if done[row] < len(known.changes)}
    partly = [row for row in left if done[row]]
    bases = fold(estimate, [left[row].base for row in partly], [left[row].changes[: done[row]] for row in partly])
    return left | {row: Journal(base, left[row].changes[done[row] :]) for row, base in zip(partly, bases, strict=True)}


def to_pending(change: Change) -> posterior_pb2.PosteriorChange:
    """A change as a record has it."""
    step, value, lag = change
    if lag == MOVED:
        return posterior_pb2.PosteriorChange(step=step, mean_abs_logprob_change=value)
    return posterior_pb2.PosteriorChange(step=step, accuracy=value, lag=lag)


def from_pending(pending: posterior_pb2.PosteriorChange) -> Change:
    """The change that a record has."""
    if pending.WhichOneof("what") == "accuracy":
        return pending.step, pending.accuracy, pending.lag
    return pending.step, pending.mean_abs_logprob_change, MOVED
