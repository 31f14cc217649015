"""An adapter merged into its base: python -m services.learning.merge BASE ADAPTER FOLDER

BASE and FOLDER are Hugging Face folders, ADAPTER is what PEFT writes. In float32: rounding the sum to 16 bits would
lose updates that are smaller than 1/256 of a weight.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from pipeline import lora
from pipeline.errors import UserError
from pipeline.lora import Adapter
from services.learning import model as policy
from services.learning.export import export
from services.learning.lora import adapted, load


def main(base: str, adapter: str, folder: str) -> int:
    """Returns the exit code."""
    try:
        merge(Path(base), Path(adapter), Path(folder))
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    return 0


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Write FOLDER, whole or not at all."""
    said = json.loads((adapter / lora.CONFIG).read_text())
    shape = Adapter(said["r"], said["lora_alpha"], tuple(said["target_modules"]))
    model = adapted(policy.load(str(base.resolve()), policy.Compute(device="cpu")), shape)
    load(model, load_file(adapter / lora.WEIGHTS))
    export(model, base, folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
