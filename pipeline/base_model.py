"""Models that are made by a process of their own: this one never imports a tensor library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.errors import SluiceError, UserError
from pipeline.processes import QUIET
from pipeline.rundir import RunDir


def refuse_missing(source: str) -> None:
    """Raise `UserError` for a `model.source` that is written as a folder and is none; a hub's id is asked for later."""
    if source.startswith(("/", ".")) and not Path(source).is_dir():
        raise UserError(f"model folder {source!r} does not exist; accepted: an existing folder, or a Hugging Face id")


def get_model(directory: RunDir, cold: bool = False) -> None:
    """Make `base` in a run directory when it is missing. `cold`: as built or downloaded, without a warm start.

    A cold base serves generation, whose weights come over the log. Raises `UserError` for a model that is not there.
    """
    if directory.file("base/config.json").exists():
        return
    how = ["--cold"] if cold else []
    _run(directory, "the model could not be prepared", "services.learning.first_model", str(directory.path), *how)


def merge(directory: RunDir, adapter: Path, folder: Path) -> None:
    """Write `base` with an adapter's folder added to its weights, as a Hugging Face folder."""
    said = [str(directory.folder("base")), str(adapter), str(folder)]
    _run(directory, "the adapter could not be merged", "services.learning.merge", *said)


def _run(directory: RunDir, failed: str, *module: str) -> None:
    command = [sys.executable, "-m", *module]
    env = os.environ | QUIET | {"OMP_NUM_THREADS": str(directory.run().learning.threads)}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().removeprefix("sluice: "))
    if done.returncode:
        raise SluiceError(f"{failed}:\n{done.stderr[-2000:]}")
