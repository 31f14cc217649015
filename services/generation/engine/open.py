"""Which engine a name means, and how many of it."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import UserError
from services.generation.engine.api import Engine, EngineOptions

ENGINES = ("transformers", "vllm")


def open_engine(name: str, model: str, options: EngineOptions) -> Engine:
    """Load `model` (a Hugging Face id or a folder) into an engine, or into several behind one.

    Raises `UserError` when it cannot be.
    """
    if name not in ENGINES:
        raise UserError.choice("the engine", name, ENGINES)
    if options.replicas == 1:
        return _open(name, model, options)
    from services.generation.engine.replicas import Replicas

    devices = _devices(name, options)
    return Replicas([_open(name, model, replace(options, device=device)) for device in devices])


def _open(name: str, model: str, options: EngineOptions) -> Engine:
    if name == "transformers":
        from services.generation.engine.transformers import TransformersEngine

        return TransformersEngine(model, options)
    from services.generation.engine.vllm import VllmEngine

    return VllmEngine(model, options)


def _devices(name: str, options: EngineOptions) -> list[str]:
    """The device of each replica: GPUs in turn, unless one is named."""
    import torch

    from services.generation.engine.loading import device_of

    device = device_of(options)
    if device == "cpu":
        return [device] * options.replicas
    if name == "vllm":
        accepted = "accepted: 1 on a GPU, with tensor_parallel, or more workers with GPUs of their own"
        raise UserError(f"replicas is {options.replicas} with engine vllm; {accepted}")
    if device != "cuda":
        return [device] * options.replicas
    return [f"cuda:{i % torch.cuda.device_count()}" for i in range(options.replicas)]
