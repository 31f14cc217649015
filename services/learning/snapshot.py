"""A trainer's state as shards that a checkpoint can hold: tensors by name, and JSON. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from services.learning import lora

if TYPE_CHECKING:
    from services.learning.trainer import Trainer


def save(trainer: Trainer) -> dict[str, Any]:
    """Shards: model, heads, optimizer, copies, random state, each rank's controllers, and what is JSON. Collective."""
    tensors, scalars = _optimizer(trainer)
    shards: dict[str, Any] = {
        "model": _parameters(trainer.model),
        "heads": _parameters(trainer.heads),
        "optimizer": tensors,
        "random": _random(trainer.device),
        "trainer": {"steps": trainer.steps, "optimizer": scalars, "recipe": trainer.method.recipe.name},
    }
    shards |= {name: _parameters(copy) for name, copy in trainer.copies.items()}
    for name, controller in trainer.controllers.items():
        found, meta = controller.state()
        shards |= _gathered(trainer, name, found, meta)
    return {name: shard for name, shard in shards.items() if shard}


def load(trainer: Trainer, shards: Mapping[str, Any]) -> None:
    """Put the shards back. Raises `UserError` when they are of another model."""
    _restore(trainer.model, shards["model"], "model")
    _restore(trainer.heads, shards.get("heads", {}), "heads")
    for name, copy in trainer.copies.items():
        if name in shards:
            _restore(copy, shards[name], name)
    meta = shards["trainer"]
    trainer.steps = meta["steps"]
    _restore_optimizer(trainer, shards.get("optimizer", {}), meta["optimizer"])
    torch.set_rng_state(shards["random"]["cpu"].cpu())
    if trainer.device.type == "cuda" and "cuda" in shards["random"]:
        torch.cuda.set_rng_state(shards["random"]["cuda"].cpu(), trainer.device)
    for name, controller in trainer.controllers.items():
        own = [shard for shard in sorted(shards) if shard.startswith(f"controller-{name}-") and shard.endswith("-meta")]
        controller.load([(shards.get(shard.removesuffix("-meta"), {}), shards[shard]) for shard in own])


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in lora.own(model).items()}


def _restore(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    parameters = lora.own(model)
    for name in sorted(parameters.keys() ^ tensors.keys()):
        raise UserError(
            f"the checkpoint's {what} and the run's differ in the tensor {name!r}; accepted: the same model"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                was, now = tuple(tensors[name].shape), tuple(parameter.shape)
                raise UserError(f"tensor {name!r} has shape {was} in the checkpoint; accepted: {now}")
            parameter.copy_(tensors[name])


def _optimizer(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """The optimiser's state by "<parameter>/<field>": tensors, and numbers."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, float]] = {}
    for name, parameter in trainer.trained().items():
        for field, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{field}"] = value.detach().cpu().clone()
            else:
                scalars.setdefault(name, {})[field] = value
    return tensors, scalars


def _restore_optimizer(trainer: Trainer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    own = {id(parameter): name for name, parameter in trainer.trained().items()}
    order = [own[id(p)] for group in trainer.optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, name in enumerate(order):
        found = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.rpartition("/")[0] == name}
        if found or name in scalars:
            state[index] = found | dict(scalars.get(name, {}))
    trainer.optimizer.load_state_dict({"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]})


def _random(device: torch.device) -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _gathered(trainer: Trainer, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> dict[str, Any]:
    """One shard of tensors and one of JSON per rank."""
    world = trainer.world
    metas = world.gather_bytes(json.dumps(meta).encode())
    shards: dict[str, Any] = {f"controller-{name}-{rank}-meta": json.loads(blob) for rank, blob in enumerate(metas)}
    for key in sorted(tensors):
        for rank, rows in enumerate(world.gather_rows(tensors[key].to(world.device)[:, None])):
            shards.setdefault(f"controller-{name}-{rank}", {})[key] = rows[:, 0].cpu().contiguous()
    return shards
