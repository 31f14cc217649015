"""How every rollout ended so far, carried from checkpoint to checkpoint: retention may remove the outcomes."""

from __future__ import annotations

from collections.abc import Iterable

from sluice.v1 import training_pb2

Fate = training_pb2.Fate


def counted(before: training_pb2.EndedCounts, outcomes: Iterable[training_pb2.Outcome]) -> training_pb2.EndedCounts:
    """`before` and these outcomes.

    >>> counted(training_pb2.EndedCounts(trained=2), [training_pb2.Outcome(fate=Fate.FATE_DROPPED, reason="stale")])
    trained: 2
    dropped {
      key: "stale"
      value: 1
    }
    <BLANKLINE>
    """
    after = training_pb2.EndedCounts()
    after.CopyFrom(before)
    for outcome in outcomes:
        if outcome.fate == Fate.FATE_TRAINED:
            after.trained += 1
        elif outcome.fate == Fate.FATE_EXPIRED:
            after.expired += 1
        else:
            by = after.failed if outcome.fate == Fate.FATE_FAILED else after.dropped
            by[outcome.reason] += 1
    return after


def named_later(
    checkpoint: training_pb2.Checkpoint, standing: Iterable[training_pb2.Outcome]
) -> list[training_pb2.Outcome]:
    """Outcomes that stand and were named by checkpoints after this one: after a fall back to it they go on counting."""
    return [outcome for outcome in standing if outcome.checkpoint_serial > checkpoint.serial]
