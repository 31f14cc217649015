"""A rollout read again after having seen another answer: the same sampled tokens behind a longer context.

    context, another's answer, [between,] context  ->  the rollout's own tokens

The other answer stands as an earlier turn of the conversation. So no text is needed, whatever the chat template.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.learning.group import Member
from sluice.v1 import rollout_pb2


def after(member: Member, other: Member, between: Sequence[int] = ()) -> Member:
    """`member` with `other`'s answer in front of every context that no earlier call began."""
    rollout = rollout_pb2.Rollout()
    rollout.CopyFrom(member.rollout)
    answer = [token for call in other.rollout.calls for token in call.tokens]
    longer: list[int] = []
    for index, call in enumerate(rollout.calls):
        parent = call.place.parent_call if call.place.HasField("parent_call") else index - 1
        if parent < 0 or not call.kept_tokens:
            context = list(call.context_tokens)
            seen = [*context, *answer, *between]
            del call.context_tokens[:]
            call.context_tokens.extend([*seen, *context])
            longer.append(len(seen))
        else:
            longer.append(longer[parent])
            call.kept_tokens += longer[parent]
        call.ClearField("side")
    return Member(rollout, member.verdict, member.use)


def best_siblings(members: Sequence[Member], groups: Sequence[int], right: Sequence[bool]) -> list[int | None]:
    """For each row the row of another right member of its group: the shortest, ties by request and index."""
    chosen: dict[int, list[int]] = {}
    for row in sorted(range(len(members)), key=lambda row: (members[row].tokens, members[row].name)):
        if right[row] and members[row].tokens:
            chosen.setdefault(groups[row], []).append(row)
    return [next((each for each in chosen.get(group, [])[:2] if each != row), None) for row, group in enumerate(groups)]
