"""A LoRA adapter as the policy of the vLLM engine: one adapter under one id, replaced in place in the pause.

Every job is sampled with it from the first on (before the first version it changes nothing), so running rows go on with
the new one after an update, as they do with whole weights; a second id would leave them on the old one to their end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pipeline import lora
from pipeline.lora import Adapter

NAME, ID = "policy", 1
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM makes room for."""


def arguments(adapter: Adapter | None) -> dict[str, Any]:
    """vLLM's arguments for serving it."""
    if adapter is None:
        return {}
    room = next(rank for rank in RANKS if rank >= adapter.rank)
    return {"enable_lora": True, "max_loras": 1, "max_cpu_loras": 1, "max_lora_rank": room}


def request(path: str, replace: bool = False) -> Any:
    """vLLM's name for the adapter. `replace`: read it from `path`, whatever is loaded."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(NAME, ID, path, load_inplace=replace)


@contextlib.contextmanager
def folder(adapter: Adapter, tensors: Mapping[str, Tensor], where: str | None) -> Iterator[str]:
    """The adapter as PEFT writes one, in a folder of its own in `where`; gone at the end."""
    path = Path(tempfile.mkdtemp(prefix="sluice-adapter-", dir=where))
    try:
        (path / lora.CONFIG).write_text(json.dumps(lora.description(adapter, tensors)))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / lora.WEIGHTS)
        yield str(path)
    finally:
        shutil.rmtree(path)
