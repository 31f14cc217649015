"""Loading a policy's model and tokenizer from a Hugging Face id or a folder."""

from __future__ import annotations

import os
from typing import Any

import torch

from pipeline import lora
from pipeline.errors import UserError
from pipeline.lora import Adapter
from services.generation.engine.api import EngineOptions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(options: EngineOptions) -> str:
    """The device that "auto" means here."""
    if options.device != "auto":
        return options.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype_of(options: EngineOptions) -> torch.dtype:
    """The type of the weights: bfloat16 on a GPU and float32 on a CPU, unless one is named."""
    if options.dtype == "auto":
        return torch.float32 if device_of(options) == "cpu" else torch.bfloat16
    if options.dtype not in DTYPES:
        raise UserError.choice("the engine's dtype", options.dtype, ["auto", *DTYPES])
    return DTYPES[options.dtype]


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a Hugging Face id or a folder."""
    from transformers import AutoTokenizer

    _check_folder(model)
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer of model {model!r} does not load ({_first_line(error)})") from error


def load_model(model: str, options: EngineOptions) -> torch.nn.Module:
    """The model, ready for inference on its device. Raises `UserError` when it cannot be loaded."""
    from transformers import AutoModelForCausalLM

    from services.generation.engine import attention

    _check_folder(model)
    # For one query token per row plain matrix products are faster on a CPU than the fused kernel.
    kernel = "eager" if device_of(options) == "cpu" else "sdpa"
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype_of(options), attn_implementation=kernel)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model!r} does not load ({_first_line(error)})") from error
    attention.choose(loaded)
    return adapted(loaded.to(device_of(options)), options.adapter).eval().requires_grad_(False)


def adapted(model: torch.nn.Module, adapter: Adapter | None) -> torch.nn.Module:
    """The model with PEFT's layers for an adapter that changes nothing yet (B is 0); as it is without one.

    The adapter is served beside the base and never merged into it. Merging would need a second copy of the base to
    undo the version before exactly, and in 16 bits would round away updates below 1/256 of a weight, which the learner,
    whose adapter stays apart, does not lose. The price is two thin products a layer: on the tiny model, where every
    layer's fixed cost counts, a step takes 1.4 times as long (3.5 ms against 2.5: 32 rows, rank 16, one core).
    """
    if adapter is None:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    targets = adapter.layers(name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    settings = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=targets, task_type="CAUSAL_LM")
    return inject_adapter_in_model(settings, model, lora.ADAPTER)


def empty_model(model: str, adapter: Adapter | None = None) -> torch.nn.Module:
    """The model's tensors without their memory: names, shapes, ties."""
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_folder(model)
    with torch.device("meta"):
        return adapted(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)), adapter)


def context_length(model: torch.nn.Module, options: EngineOptions) -> int:
    """Most tokens of context and answer together."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    if options.max_len and own and options.max_len > own:
        raise UserError(f"max_len is {options.max_len}; accepted: up to {own}, the model's own context length")
    return options.max_len or min(own or 4096, 4096)


def eos_of(model: torch.nn.Module, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return sorted(found)


def _check_folder(model: str) -> None:
    looks_local = model.startswith((".", "/", "~")) or os.sep in model and model.count("/") > 1
    if looks_local and not os.path.isdir(os.path.expanduser(model)):
        raise UserError(f"model folder {model!r} does not exist; accepted: a folder or a Hugging Face id")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
