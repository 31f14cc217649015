"""Held groups by what their verdicts say."""

from __future__ import annotations

from itertools import count

from services.learning.group import Group, Member
from services.learning.replay import Held
from sluice.v1 import rollout_pb2

NUMBERS = count(1)


def held(*accuracy, version=8, uses=0, prompt="p", advantage=None):
    """A group of one request whose rollouts have these accuracies, sampled by one version."""
    request = f"r-{next(NUMBERS)}"
    members = []
    for index, right in enumerate(accuracy):
        call = rollout_pb2.Call(tokens=[1], logprobs=[-0.5], spans=[rollout_pb2.Span(version=version)])
        key = rollout_pb2.RolloutKey(request_id=request, index=index, attempt=1)
        rollout = rollout_pb2.Rollout(key=key, prompt_id=prompt, calls=[call])
        members.append(Member(rollout, rollout_pb2.Verdict(key=key, accuracy=right), uses + 1))
    return Held(Group(request, prompt, tuple(members)), uses, advantage)


def names(groups):
    """Request ids, in order."""
    return [one.group.group_id for one in groups]
