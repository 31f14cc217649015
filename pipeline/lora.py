"""A LoRA adapter's names, shared by the learner that trains it and the engines that serve it. Strings only.

    y = W x + alpha / rank * B (A x)        W as it was, A [rank, in] and B [out, rank] trained

The adapter travels under the names of PEFT's own files, so what is on the log is what PEFT and vLLM load.
Source: LoRA, arXiv:2106.09685.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

ADAPTER = "default"
"""PEFT's name of the only adapter, inside a model."""
PREFIX = "base_model.model."
"""What PEFT's files put before the name of every tensor."""
ALL = "all-linear"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a LoRA adapter is. `targets`: ends of layer names, or `all-linear`."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = (ALL,)

    def layers(self, linear: Iterable[str], output: str = "lm_head") -> list[str]:
        """The ends of the names of the layers it is put on, sorted; `linear`: every linear layer's name.

        The output layer is left alone: it may be tied to the embedding. Raises `UserError` for a target that no layer
        answers to.

        >>> Adapter().layers(["layers.0.q_proj", "layers.0.up_proj", "lm_head"])
        ['q_proj', 'up_proj']
        """
        names = [name for name in linear if name != output]
        ends = sorted({name.rpartition(".")[2] for name in names})
        if self.targets == (ALL,):
            return ends
        for target in self.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise UserError.choice("model.lora.targets: a layer", target, [ALL, *ends])
        return sorted(self.targets)


def is_part(parameter: str) -> bool:
    """Whether a model's parameter is an adapter's.

    >>> is_part("model.layers.0.q_proj.lora_A.default.weight"), is_part("model.layers.0.q_proj.base_layer.weight")
    (True, False)
    """
    return parameter.endswith(tuple(f".lora_{side}.{ADAPTER}.weight" for side in "AB"))


def travelling(parameter: str) -> str:
    """The name under which an adapter's parameter travels.

    >>> travelling("model.layers.0.q_proj.lora_A.default.weight")
    'base_model.model.model.layers.0.q_proj.lora_A.weight'
    """
    return PREFIX + parameter.removesuffix(f".{ADAPTER}.weight") + ".weight"


def base_digest(folder: Path) -> bytes:
    """SHA-256 over names and digests of the safetensors files of a model folder, in name order; 32 bytes."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(f"{path.name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.digest()


def description(adapter: Adapter, names: Iterable[str], base: str = "") -> dict[str, Any]:
    """What PEFT's `adapter_config.json` says. `names`: of the tensors as they travel; `base`: the model below."""
    ends = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in names}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": sorted(ends),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
