"""The model before the first step, made by a process of its own: this one never imports a tensor library."""

from __future__ import annotations

import os
import subprocess
import sys

from pipeline.errors import SluiceError, UserError
from pipeline.processes import QUIET
from pipeline.rundir import RunDir


def get_model(directory: RunDir, cold: bool = False) -> None:
    """Make `base` in a run directory when it is missing. `cold`: as built or downloaded, without a warm start.

    A cold base serves generation, whose weights come over the log. Raises `UserError` for a model that is not there.
    """
    if directory.file("base/config.json").exists():
        return
    command = [
        sys.executable,
        "-m",
        "services.learning.first_model",
        str(directory.path),
        *(["--cold"] if cold else []),
    ]
    env = os.environ | QUIET | {"OMP_NUM_THREADS": str(directory.run().learning.threads)}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().removeprefix("sluice: "))
    if done.returncode:
        raise SluiceError(f"the model could not be prepared:\n{done.stderr[-2000:]}")
