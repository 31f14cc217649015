"""The learner's LoRA adapter: put into a model by PEFT, trained alone, exported merged and by itself.

    adapted(model, adapter)    PEFT's layers around the linear layers; nothing but the adapter is trained
    own(model)                 what is trained, checkpointed and published: the adapter's parameters, or a whole model's
    frozen(model)              a copy that shares the base's memory: of an adapted model only the adapter is copied
    merged(model)              a state dict of the model as it was, the adapter added to its weights

A model is changed in place and keeps its class, so everything that reads a policy reads an adapted one alike.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import lora
from pipeline.lora import Adapter


def adapted(model: nn.Module, adapter: Adapter | None) -> nn.Module:
    """The model with an adapter that changes nothing yet (B is 0); as it is without one.

    Raises `UserError` for a target that is no layer of it.
    """
    if adapter is None:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    targets = adapter.layers(linear(model))
    settings = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=targets, task_type="CAUSAL_LM")
    return inject_adapter_in_model(settings, model, lora.ADAPTER)


def linear(model: nn.Module) -> list[str]:
    """Names of a model's linear layers."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def own(model: nn.Module) -> dict[str, nn.Parameter]:
    """A policy's own parameters by name: an adapter's only, where it has one."""
    named = dict(model.named_parameters())
    return {name: parameter for name, parameter in named.items() if lora.is_part(name)} or named


def is_adapted(model: nn.Module) -> bool:
    """Whether it has an adapter."""
    return any(lora.is_part(name) for name, _ in model.named_parameters())


def frozen(model: nn.Module) -> nn.Module:
    """A copy that is not trained. Of an adapted model only the adapter is copied: the base is the same memory."""
    shared: dict[int, object] = {}
    if is_adapted(model):
        shared = {id(p): p for name, p in model.named_parameters() if not lora.is_part(name)}
    return copy.deepcopy(model, shared).eval().requires_grad_(False)


def bare(model: nn.Module) -> nn.Module:
    """The model with its adapter off: as it was before training. One without an adapter stays as it is."""
    if is_adapted(model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(False)
    return model


def travelling(model: nn.Module) -> dict[str, nn.Parameter]:
    """A policy's own parameters by the names under which they travel."""
    if not is_adapted(model):
        return own(model)
    return {lora.travelling(name): parameter for name, parameter in own(model).items()}


def load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put an adapter's tensors, by the names under which they travel, into an adapted model."""
    with torch.no_grad():
        for name, parameter in travelling(model).items():
            parameter.copy_(tensors[name])


def merged(model: nn.Module) -> dict[str, Tensor]:
    """Tensors by the names of the model as it was; W + alpha / rank * B A where there is an adapter."""
    from peft.tuners.lora import LoraLayer

    state = {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in model.state_dict().items()
        if not lora.is_part(name)
    }
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                state[f"{name}.weight"] = module.get_base_layer().weight + module.get_delta_weight(lora.ADAPTER)
    return state


def save(model: nn.Module, folder: Path, base: str = "") -> None:
    """Write the adapter as PEFT does; `base` is said in its description."""
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import save_file

    found = travelling(model)
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    adapter = Adapter(layer.r[lora.ADAPTER], layer.lora_alpha[lora.ADAPTER])
    folder.mkdir()
    (folder / lora.CONFIG).write_text(json.dumps(lora.description(adapter, found, base), indent=2))
    save_file({name: p.detach().cpu().contiguous() for name, p in found.items()}, folder / lora.WEIGHTS)
