"""Which engine a name means."""

from __future__ import annotations

from pipeline.errors import UserError
from services.generation.engine.api import Engine, EngineOptions

ENGINES = ("transformers", "vllm")


def open_engine(name: str, model: str, options: EngineOptions) -> Engine:
    """Load `model` (a Hugging Face id or a folder) into an engine. Raises `UserError` when it cannot be."""
    if name == "transformers":
        from services.generation.engine.transformers import TransformersEngine

        return TransformersEngine(model, options)
    if name == "vllm":
        from services.generation.engine.vllm import VllmEngine

        return VllmEngine(model, options)
    raise UserError.choice("the engine", name, ENGINES)
