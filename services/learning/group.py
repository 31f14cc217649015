"""The nouns of the learner: a rollout joined with its verdict, and the group it is compared in."""

from __future__ import annotations

from dataclasses import dataclass

from sluice.v1 import rollout_pb2


@dataclass(frozen=True, slots=True)
class Member:
    """One rollout with the verdict that carries its digest. `use` is 1 at its first training use."""

    rollout: rollout_pb2.Rollout
    verdict: rollout_pb2.Verdict
    use: int = 1

    @property
    def name(self) -> tuple[str, int]:
        """(request id, index): what an outcome is about."""
        return self.rollout.key.request_id, self.rollout.key.index

    @property
    def min_version(self) -> int:
        """Oldest version among its sampled tokens; 0 when it has none."""
        return min((span.version for call in self.rollout.calls for span in call.spans), default=0)

    @property
    def tokens(self) -> int:
        """Sampled tokens, over all calls."""
        return sum(len(call.tokens) for call in self.rollout.calls)


@dataclass(frozen=True, slots=True)
class Group:
    """Rollouts of one prompt that are compared with each other; all of them have ended."""

    group_id: str
    prompt_id: str
    members: tuple[Member, ...]

    @property
    def highest_token(self) -> int:
        """Highest token id among what was read and sampled; -1 when there is none."""
        calls = (call for member in self.members for call in member.rollout.calls)
        return max((max(ids) for call in calls for ids in (call.context_tokens, call.tokens) if ids), default=-1)

    def lag(self, version: int) -> int:
        """Lag of its oldest token when `version` is being trained, in versions."""
        return version - min((member.min_version for member in self.members), default=version)
