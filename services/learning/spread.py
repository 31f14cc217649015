"""A checkpoint's state from rank 0 to every rank: shard by shard, tensor by tensor, in pieces; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from services.learning.ranks import World

PIECE = 1 << 26
"""Bytes of a tensor that travel at a time."""


def spread(world: World, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Rank 0's `state` (shard -> tensors by name, or JSON) on every rank; the others pass None. Collective."""
    if world.size == 1:
        assert state is not None
        return dict(state)
    told = json.loads(_bytes(world, b"" if state is None else json.dumps(_contents(state)).encode()))
    found: dict[str, Any] = told["json"]
    for shard, name, dtype, shape in told["tensors"]:
        mine = torch.zeros(shape, dtype=getattr(torch, dtype)) if state is None else state[shard][name].contiguous()
        found.setdefault(shard, {})[name] = _tensor(world, mine)
    return found


def _contents(state: Mapping[str, Any]) -> dict[str, Any]:
    """What is JSON, as it is, and every tensor's shard, name, type and shape."""
    of_tensors = {
        shard: content
        for shard, content in state.items()
        if isinstance(content, Mapping) and any(isinstance(x, Tensor) for x in content.values())
    }
    return {
        "json": {shard: content for shard, content in state.items() if shard not in of_tensors},
        "tensors": [
            (shard, name, str(x.dtype).removeprefix("torch."), list(x.shape))
            for shard, tensors in of_tensors.items()
            for name, x in tensors.items()
        ],
    }


def _bytes(world: World, blob: bytes) -> bytes:
    size = torch.tensor([len(blob)])
    world.send(size)
    sent = torch.frombuffer(bytearray(blob or bytes(int(size))), dtype=torch.uint8)
    world.send(sent)
    return sent.numpy().tobytes()


def _tensor(world: World, x: Tensor) -> Tensor:
    flat = x.reshape(-1).view(torch.uint8) if x.numel() else torch.zeros(0, dtype=torch.uint8)
    for begin in range(0, len(flat), PIECE):
        world.send(flat[begin : begin + PIECE])
    return x
