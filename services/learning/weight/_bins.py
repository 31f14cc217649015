"""Prompts in bins by the share of their last groups that had a right answer, with hysteresis at the borders."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from services.learning.batch import Batch


@dataclass
class Bins:
    """`known`: by prompt, its bits (newest last) and its bin."""

    edges: list[float]
    slack: float
    horizon: int
    prompts: int
    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of(self, batch: Batch) -> Tensor:
        """Bin of each rollout's prompt, [N], long; 0 for one never seen."""
        found = [self.known.get(prompt, ("", 0))[1] for prompt in _prompts(batch)]
        return torch.tensor(found, dtype=torch.long, device=batch.group_N.device)[batch.group_N]

    def see(self, bits: Iterable[tuple[str, bool]]) -> None:
        """Add whether a prompt's group had a right answer."""
        for prompt, right in bits:
            past, place = self.known.pop(prompt, ("", None))
            past = (past + str(int(right)))[-self.horizon :]
            self.known[prompt] = past, self.moved(past.count("1") / len(past), place)
        while len(self.known) > self.prompts:
            del self.known[next(iter(self.known))]

    def moved(self, share: float, place: int | None) -> int:
        """The bin of this share, coming from `place`.

        >>> [Bins([0.4, 0.75], 0.03, 50, 9).moved(*x) for x in ((0.41, None), (0.41, 0), (0.44, 0), (0.38, 1))]
        [1, 0, 1, 1]
        """
        now = bisect_right(self.edges, share)
        if place is None or now == place:
            return now
        border = self.edges[place] + self.slack if now > place else self.edges[place - 1] - self.slack
        beyond = share >= border if now > place else share < border
        return now if beyond else place


def told(batch: Batch) -> list[tuple[str, bool]]:
    """Of each group of the step, its prompt and whether it had a right answer; the same list on all ranks."""
    right_G = torch.zeros(batch.groups, device=batch.group_N.device, dtype=torch.bool)
    right_G[batch.group_N[batch.accuracy_N > 0.5]] = True
    mine = [pair for pair in zip(_prompts(batch), right_G.tolist(), strict=True) if pair[0]]
    blobs = batch.world.gather_bytes(json.dumps(mine).encode())
    return sorted((prompt, right) for blob in blobs for prompt, right in json.loads(blob))


def _prompts(batch: Batch) -> list[str]:
    """The prompt of each group; "" for one that has no rollout here."""
    first_G = torch.full((batch.groups,), len(batch), dtype=torch.long, device=batch.group_N.device)
    rows_N = torch.arange(len(batch), device=batch.group_N.device)
    first_G = first_G.scatter_reduce(0, batch.group_N, rows_N, "amin").tolist()
    return [batch.members[row].rollout.prompt_id if row < len(batch) else "" for row in first_G]
