"""The trained policy as a Hugging Face folder: what `AutoModelForCausalLM` and vLLM load."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from torch import nn

SERVING_FILES = ("*.json", "*.jinja", "*.model", "*.txt")


def export(model: nn.Module, base: Path, folder: Path) -> Path:
    """Write `model` to `folder`, whole or not at all, with the tokenizer and templates of `base`; returns it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
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
