"""What each advantage part costs: 4,096 rollouts in 512 groups, 1,024 tokens each, one thread.

The parts are found by walking their room. Signals that a part needs are made beforehand. On rollouts of four tokens
what a part does per rollout is left, which should take under 5 ms; at full length it should take under ten passes over
[N, T] in float32 (a pass is a copy).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import parts, partspec
from services.learning.batch import Batch
from services.learning.collate import collate
from sluice.v1 import rollout_pb2
from tests.bench.table import machine, table
from tests.services.learning.made import supplied
from tests.services.learning.rollouts import call, group, member

GROUPS, SIZE, TOKENS = 512, 8, 1024
ROOM = "learning.advantage"
RANKS = {f"rank_{k}": 0.1 * k for k in range(1, 11)}


def main() -> str:
    """Time every part; the table."""
    torch.set_num_threads(1)
    short, long = big(4), big(TOKENS)
    copy_ms = milliseconds(long.behaviour_NT.clone)
    rows = [_row(name, short, long, copy_ms) for name in partspec.names(ROOM)]
    return "\n\n".join(
        [
            "# What an advantage costs",
            f"{GROUPS * SIZE:,} rollouts in {GROUPS} groups, float32, one thread; least of three. "
            f"A copy of [N, T] at T = {TOKENS:,} takes {copy_ms:.1f} ms. {machine()}.",
            table(["part", "ms at T = 4", f"ms at T = {TOKENS}", "copies of [N, T]", "under 5 ms and 10 copies"], rows),
        ]
    )


def big(tokens: int) -> Batch:
    """The batch: real rollouts of four calls of a token each, their [N, T] tensors drawn out to `tokens`.

    Two players, two roles, ten ranked items: what is reckoned for each turn or item has several.
    """
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(GROUPS * SIZE, generator=generator) < 0.4).tolist()
    made = [
        group(f"g{g}", [member(turns(3 + i), right[g * SIZE + i], index=i, rewards=RANKS) for i in range(SIZE)])
        for g in range(GROUPS)
    ]
    batch = collate(made, version=0, max_tokens=tokens)
    length_N = torch.randint(tokens // 4, tokens + 1, (GROUPS * SIZE,), generator=generator)
    length_N[0] = tokens
    valid_NT = torch.arange(tokens) < length_N[:, None]
    changed: dict[str, Tensor] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if field.name.endswith("_NT"):
            changed[field.name] = value.repeat_interleave(tokens // value.shape[1], 1) * valid_NT
    changed["behaviour_NT"] = -torch.rand(valid_NT.shape, generator=generator) * valid_NT
    changed |= {"mask_NT": valid_NT, "length_N": length_N, "reward_N": batch.accuracy_N}
    item_NT = (torch.arange(tokens) * len(RANKS) // tokens).to(batch.reward_N.dtype).expand(valid_NT.shape).clone()
    return dataclasses.replace(batch, **changed, side={"item": item_NT}).counted()


def turns(token: int) -> list[rollout_pb2.Call]:
    """Four calls of one token, two of each player, the second and the last with a step reward."""
    places = [
        rollout_pb2.CallPlace(player=i % 2, role=f"role{i % 2}", turn=i, step_reward=[0.0, 0.3, 0.0, token / 10][i])
        for i in range(4)
    ]
    return [call([token + i], place=place) for i, place in enumerate(places)]


def milliseconds(work: Callable[[], object]) -> float:
    """Least of three, after one that is not counted: other work on the machine only adds."""
    work()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return min(found)


def _row(name: str, short: Batch, long: Batch, copy_ms: float) -> list[object]:
    part = parts.load(ROOM, name)
    rows_ms, tokens_ms = (_spent(part, supplied(batch, part)) for batch in (short, long))
    within = rows_ms < 5 and tokens_ms < max(5, 10 * copy_ms)
    return [name, rows_ms, tokens_ms, tokens_ms / copy_ms, "yes" if within else "no"]


def _spent(part: Callable[..., Tensor], batch: Batch) -> float:
    if getattr(part, "modifies", False):
        base_N = batch.reward_N - 0.5
        return milliseconds(lambda: part(batch, base_N))
    return milliseconds(lambda: part(batch))
