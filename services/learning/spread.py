"""From rank 0 to every rank, in pieces: a checkpoint's state, tensor by tensor, and a model's files. No pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.learning.ranks import World

PIECE = 1 << 26
"""Bytes of a tensor or a file that travel at a time."""
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What of a Hugging Face model's folder is its model and tokenizer."""


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


def spread_folder(world: World, folder: Path) -> None:
    """The model files in rank 0's `folder` into every rank's, a folder that exists. Collective."""
    mine = b""
    if world.rank == 0:
        weights = () if any(folder.glob("*.safetensors")) else ("*.bin",)  # the older form, where it is all there is
        files = sorted({file for pattern in (*MODEL_FILES, *weights) for file in folder.glob(pattern)})
        mine = json.dumps([(file.name, file.stat().st_size) for file in files]).encode()
    for name, size in json.loads(_bytes(world, mine)):
        with open(folder / name, "rb" if world.rank == 0 else "wb") as file:
            for begin in range(0, size, PIECE):
                piece = bytearray(file.read(PIECE)) if world.rank == 0 else bytearray(min(PIECE, size - begin))
                sent = torch.frombuffer(piece, dtype=torch.uint8)
                world.send(sent)
                if world.rank:
                    file.write(sent.numpy())


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
