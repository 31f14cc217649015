"""How one requested rollout ended: the one fact behind a `Drop`, which gives its place back, and its `Outcome`."""

from __future__ import annotations

from dataclasses import dataclass

from sluice.v1 import rollout_pb2, training_pb2

Fate = training_pb2.Fate
Ending = rollout_pb2.Ending

TERMINAL = {
    Ending.ENDING_EXPIRED: (Fate.FATE_EXPIRED, "deadline"),
    Ending.ENDING_FAILED: (Fate.FATE_FAILED, "failed"),
    Ending.ENDING_ABORTED: (Fate.FATE_DROPPED, "aborted"),
}
"""Endings after which there is nothing to check: fate, and the reason where the rollout gives none."""
HARD, EASY = 1 / 3, 2 / 3
"""Mean pass rates below which a prompt is called hard, and above which easy."""
BELIEVED = ("hard", "medium", "easy", "unknown")


@dataclass(frozen=True, slots=True)
class End:
    """The end of one requested rollout. `attempt` is 0 when none came; `difficulty`: the belief's mean, if any."""

    request_id: str
    index: int
    attempt: int
    fate: int
    reason: str
    uses: int
    prompt_id: str
    difficulty: float | None
    tokens: int

    @property
    def trained(self) -> bool:
        """Was it trained on?"""
        return self.fate == Fate.FATE_TRAINED

    @property
    def believed(self) -> str:
        """What the prompt was believed to be when it was asked for: a metric's label."""
        if self.difficulty is None:
            return "unknown"
        return "hard" if self.difficulty < HARD else "easy" if self.difficulty > EASY else "medium"

    def drop(self) -> training_pb2.Drop:
        """What is said at once of one that was not trained on."""
        return training_pb2.Drop(
            key=rollout_pb2.RolloutKey(request_id=self.request_id, index=self.index, attempt=self.attempt),
            reason=self.reason,
            prompt_id=self.prompt_id,
            difficulty=self.difficulty,
            tokens=self.tokens,
        )

    def outcome(self, epoch: int, step: int) -> training_pb2.Outcome:
        """What is said for good, with the checkpoint that holds it. `step` is the one at, or after, which it ended."""
        return training_pb2.Outcome(
            request_id=self.request_id,
            index=self.index,
            attempt=self.attempt,
            fate=self.fate,
            reason=self.reason,
            uses=self.uses,
            epoch=epoch,
            step=step,
        )


def drop_of(outcome: training_pb2.Outcome) -> training_pb2.Drop:
    """What an outcome still tells of a drop."""
    key = rollout_pb2.RolloutKey(request_id=outcome.request_id, index=outcome.index, attempt=outcome.attempt)
    return training_pb2.Drop(key=key, reason=outcome.reason)
