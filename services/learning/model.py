"""The policy: loading it, running its trunk and its head, and handing out its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from services.learning import lora
from services.learning.sharing import Layout

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Compute:
    """Where and how the learner computes; no part of the method.

    Weights and their gradients stay float32 (`dtype` is what matrix products run in).
    """

    device: str = "auto"
    """"auto", "cpu", "cuda" or "cuda:1"."""
    dtype: str = "auto"
    """"auto" (bfloat16 on a GPU, float32 on a CPU) or a type by name."""
    token_budget: int = 16_384
    """Most padded tokens of one micro-batch."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""

    def where(self) -> torch.device:
        """The device that is meant."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def precision(self) -> str:
        """The dtype that matrix products run in, by name."""
        name = ("bfloat16" if self.where().type == "cuda" else "float32") if self.dtype == "auto" else self.dtype
        if name not in ("bfloat16", "float32"):
            raise UserError.choice("the learner's dtype", name, ("auto", "bfloat16", "float32"))
        return name

    def autocast(self) -> torch.autocast:
        """The context a forward pass runs in."""
        mixed = self.precision() == "bfloat16"
        return torch.autocast(self.where().type, dtype=torch.bfloat16, enabled=mixed)


def load(source: str, compute: Compute) -> nn.Module:
    """A causal language model from a Hugging Face id or a local folder, in float32, ready to be trained."""
    from transformers import AutoModelForCausalLM

    if source.startswith((".", "/", "~")) and not (Path(source).expanduser() / "config.json").is_file():
        raise UserError(f"model folder {source!r} has no config.json; accepted: a model folder or a Hugging Face id")
    try:
        model = AutoModelForCausalLM.from_pretrained(str(Path(source).expanduser()), dtype=torch.float32)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"model {source!r} cannot be loaded ({first}); accepted: a model folder or a Hugging Face id"
        ) from error
    return prepare(model, compute)


def prepare(model: nn.Module, compute: Compute) -> nn.Module:
    """Put a model where it is trained, with dropout off: its log-probs must be those of the policy that samples."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    model.config.use_cache = False
    if compute.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.to(compute.where()).train()


def states(model: nn.Module, layout: Layout) -> Tensor:
    """The trunk's last hidden states, [B, L, D]."""
    extra = {}
    if layout.mask_B1LL is not None:
        extra = {"attention_mask": layout.mask_B1LL, "position_ids": layout.position_BL}
    return model.base_model(input_ids=layout.input_BL, use_cache=False, **extra).last_hidden_state


def project(model: nn.Module, hidden_KD: Tensor) -> Tensor:
    """Logits of hidden states, [K, V]; with the model's soft cap and scale where its architecture has one."""
    logits_KV = model.get_output_embeddings()(hidden_KD)
    config = model.config.get_text_config()
    scale = getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)
    if scale:
        logits_KV = logits_KV / scale
    return torch.tanh(logits_KV / cap) * cap if cap else logits_KV


def weights(model: nn.Module, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """What travels, by its checkpoint name, in name order, on the CPU and in the serving dtype.

    Every parameter, tied ones once; of a model with an adapter (`lora.py`) the adapter only.
    """
    if dtype not in DTYPES:
        raise UserError.choice("the weights' dtype", dtype, DTYPES)
    for name, parameter in sorted(lora.travelling(model).items()):
        yield name, parameter.detach().to("cpu", DTYPES[dtype]).contiguous()
