"""Real runs for benchmarks: `sluice run` in a process of its own, in a folder that is thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pipeline.rundir import RunDir

ROOT = Path(__file__).parents[2]
SPELL = ROOT / "pipeline" / "jobs" / "spell.yaml"
RUN_S = 1800.0
Beside = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def ran(
    file: Path = SPELL, beside: Beside = nullcontext, environment: Mapping[str, str] | None = None, **sets: Any
) -> Iterator[tuple[dict[str, Any], RunDir]]:
    """(summary, directory) of a run with these fields (dots as double underscores); the directory goes afterwards.

    `beside` is entered with the run's directory, before the run makes it. `environment` is added to this process's.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, beside(Path(folder, "run")):
        command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "run", str(file), "--plain"]
        command += ["--dir", f"{folder}/run"]
        for name, value in sets.items():
            command += ["--set", f"{name.replace('__', '.')}={json.dumps(value)}"]
        env = os.environ | (environment or {})
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RUN_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{sets}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        print(sets, _short(summary), file=sys.stderr, flush=True)
        yield summary, RunDir.of(Path(folder, "run"))


def run(file: Path = SPELL, beside: Beside = nullcontext, **sets: Any) -> dict[str, Any]:
    """The summary of a run with these fields."""
    with ran(file, beside, **sets) as (summary, _):
        return summary


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    keys = ("eval_before", "eval_after", "wall_s", "rollouts_per_s", "lag_mean", "overlap", "drops")
    return {key: summary[key] for key in keys}


def accuracy(evaluation: dict[str, Any]) -> float:
    """Mean accuracy at temperature 1."""
    return next(value for name, value in evaluation.items() if name.startswith("mean@"))
