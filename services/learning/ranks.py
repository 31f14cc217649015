"""The ranks that train together: one process alone, or several joined by torch.distributed (crew.py starts them).

Rank 0 reads the log and hands out whole groups, so that no group is ever cut. Everything that counts or averages over
the step goes through `World.sum`, so that denominators and batch statistics are of the whole step on every rank.
Records travel as protobuf bytes, never as pickles.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from services.learning.group import Group, Member
from sluice.v1 import rollout_pb2


@dataclass(frozen=True)
class World:
    """One rank among `size`. The methods are collective: every rank calls them in the same order."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """Element-wise sum of `x` over the ranks; `x` itself when alone."""
        return self._reduce(x, dist.ReduceOp.SUM) if self.size > 1 else x

    def max(self, x: Tensor) -> Tensor:
        """Element-wise maximum of `x` over the ranks; `x` itself when alone."""
        return self._reduce(x, dist.ReduceOp.MAX) if self.size > 1 else x

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum every gradient over the ranks. Denominators count the whole step, so a sum is the step's gradient."""
        if self.size == 1:
            return
        waits = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waits.append(dist.all_reduce(parameter.grad, async_op=True))
        for wait in waits:
            wait.wait()

    def tell(self, command: int) -> int:
        """Rank 0 says what all do next; the others hear it. Blocks them until it is said."""
        if self.size == 1:
            return command
        word = torch.tensor([command])
        dist.broadcast(word, 0)
        return int(word)

    def share(
        self, groups: Sequence[Group] | None, version: int, sticky: bool = False
    ) -> tuple[list[Group], list[list[int]], int]:
        """Hand whole groups out from rank 0: (this rank's groups, who got which by index, version being trained).

        Other ranks pass None; the second item is empty on them. `sticky`: a prompt always goes to the same rank, for
        methods that remember something of each prompt.
        """
        if self.size == 1:
            assert groups is not None
            return list(groups), [list(range(len(groups)))], version
        parts: list[list[int]] = []
        if groups is not None:
            parts = deal_by_prompt(groups, self.size) if sticky else deal(groups, self.size)
        packed = [pack([groups[i] for i in part], version) for part in parts] if groups is not None else None
        mine, version = unpack(self._scatter(packed))
        return mine, parts, version

    def gather_rows(self, rows_NK: Tensor) -> list[Tensor]:
        """Every rank's rows on every rank, in rank order; row counts may differ, columns may not."""
        if self.size == 1:
            return [rows_NK]
        counts = [torch.zeros(1, dtype=torch.long, device=rows_NK.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows_NK)], device=rows_NK.device))
        most = max(int(count) for count in counts)
        padded = rows_NK.new_zeros((most, rows_NK.shape[1]))
        padded[: len(rows_NK)] = rows_NK
        found = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [rows[: int(count)] for rows, count in zip(found, counts, strict=True)]

    def _reduce(self, x: Tensor, how: dist.ReduceOp) -> Tensor:
        found = x.clone()
        dist.all_reduce(found, op=how)
        return found

    def gather_bytes(self, blob: bytes) -> list[bytes]:
        """Every rank's bytes on every rank, in rank order."""
        if self.size == 1:
            return [blob]
        rows = torch.frombuffer(bytearray(blob + b"."), dtype=torch.uint8)[:, None]
        return [found.flatten().numpy().tobytes()[:-1] for found in self.gather_rows(rows)]

    def send(self, x: Tensor) -> None:
        """Rank 0's `x` into every rank's `x`, of one shape and type, on the CPU."""
        if self.size > 1:
            dist.broadcast(x, 0)

    @property
    def device(self) -> torch.device:
        """Where tensors lie whose ranks exchange bytes or few numbers; gradients and columns stay where they are."""
        return torch.device("cpu")

    def _scatter(self, packed: list[bytes] | None) -> bytes:
        size = torch.zeros(self.size, dtype=torch.long)
        if packed is not None:
            size = torch.tensor([len(part) for part in packed])
        dist.broadcast(size, 0)
        most = int(size.max())
        mine = torch.zeros(most, dtype=torch.uint8)
        parts = None
        if packed is not None:
            parts = [_padded(part, most) for part in packed]
        dist.scatter(mine, parts, src=0)
        return mine[: int(size[self.rank])].numpy().tobytes()


ALONE = World()


def deal_by_prompt(groups: Sequence[Group], ranks: int) -> list[list[int]]:
    """Which rank trains which groups, by a hash of the prompt: the same at every step."""
    homes = [zlib.crc32(group.prompt_id.encode()) % ranks for group in groups]
    return [[index for index, home in enumerate(homes) if home == rank] for rank in range(ranks)]


def deal(groups: Sequence[Group], ranks: int) -> list[list[int]]:
    """Which rank trains which groups: longest first, to the rank with the fewest tokens so far.

    >>> from services.learning.group import Group
    >>> deal([Group("a", "p", ()), Group("b", "q", ())], 2)
    [[0], [1]]
    """
    weights = [1 + sum(member.tokens for member in group.members) for group in groups]
    parts: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for index in sorted(range(len(groups)), key=lambda i: -weights[i]):
        rank = loads.index(min(loads))
        parts[rank].append(index)
        loads[rank] += weights[index]
    return [sorted(part) for part in parts]


def pack(groups: Sequence[Group], version: int) -> bytes:
    """Groups as bytes: a JSON table of contents, then the protobuf records one after another."""
    contents, blobs = [], []
    for group in groups:
        pairs = [(m.rollout.SerializeToString(), m.verdict.SerializeToString(), m.use) for m in group.members]
        contents.append([group.group_id, group.prompt_id, [(len(r), len(v), use) for r, v, use in pairs]])
        blobs += [blob for r, v, _ in pairs for blob in (r, v)]
    head = json.dumps({"version": version, "groups": contents}).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(blobs)


def unpack(data: bytes) -> tuple[list[Group], int]:
    """What `pack` made.

    >>> unpack(pack([Group("g", "p", ())], 7))
    ([Group(group_id='g', prompt_id='p', members=())], 7)
    """
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    groups = []
    for group_id, prompt_id, sizes in head["groups"]:
        members = []
        for rollout_size, verdict_size, use in sizes:
            middle, end = start + rollout_size, start + rollout_size + verdict_size
            rollout = rollout_pb2.Rollout.FromString(data[start:middle])
            members.append(Member(rollout, rollout_pb2.Verdict.FromString(data[middle:end]), use))
            start = end
        groups.append(Group(group_id, prompt_id, tuple(members)))
    return groups, head["version"]


def _padded(part: bytes, size: int) -> Tensor:
    found = torch.zeros(size, dtype=torch.uint8)
    found[: len(part)] = torch.frombuffer(bytearray(part), dtype=torch.uint8) if part else found[:0]
    return found
