"""What becomes of a batch after its step, and of a record that cannot be read: alike for a run and for a relearn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from services.learning.assembler import Assembler
from services.learning.replay import Held
from services.learning.seat import request_of
from services.learning.trainer_api import StepResult

logger = logging.getLogger(__name__)


def settle(assembler: Assembler, batch: Sequence[Held], result: StepResult) -> list[Held]:
    """Every member of the batch was used or left out; returns the groups that are held on for reuse.

    A borrowed rollout stays with the group that lent it: only its use is counted here.
    """
    used = {(use.key.request_id, use.key.index): use for use in result.uses}
    reasons = {member.name: reason for member, reason in result.dropped}
    for name in used:
        assembler.used(name)
    left = []
    for held in batch:
        for member in held.group.members:
            if member.name not in used:
                assembler.end(member.name, result.skipped or reasons.get(member.name, "unselected"))
        kept = tuple(
            replace(member, use=used[member.name].use + 1) for member in held.group.members if member.name in used
        )
        if kept:
            size = sum(abs(used[member.name].advantage) for member in kept) / len(kept)
            left.append(Held(replace(held.group, members=kept), held.uses + 1, size))
    return left


def take_unreadable(assembler: Assembler, ids: dict[str, str], reason: str) -> None:
    """A record that could not be read: what its headers say has failed."""
    if "request_id" not in ids:
        return
    logger.warning("request %s: a record of it could not be read (%s)", ids["request_id"], reason)
    if "n" in ids:
        assembler.poison_request(request_of(ids))
    elif "index" in ids:
        assembler.poison((ids["request_id"], int(ids["index"])))
