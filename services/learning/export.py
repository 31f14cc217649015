"""The trained policy as a Hugging Face folder: what `AutoModelForCausalLM` and vLLM load.

A model with a LoRA adapter is written merged, and the adapter by itself in the folder `adapter` inside it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from torch import nn

from services.learning import lora

ADAPTER = "adapter"
SERVING_FILES = ("*.json", "*.jinja", "*.model", "*.txt")


def export(model: nn.Module, base: Path, folder: Path) -> Path:
    """Write `model` to `folder`, whole or not at all, with the tokenizer and templates of `base`; returns it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    if lora.is_adapted(model):
        model.save_pretrained(aside, state_dict=lora.merged(model))
        lora.save(model, aside / ADAPTER)
    else:
        model.save_pretrained(aside)
    for pattern in SERVING_FILES:
        for file in base.glob(pattern):
            if not (aside / file.name).exists():
                shutil.copyfile(file, aside / file.name)
    aside.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)
    return folder
