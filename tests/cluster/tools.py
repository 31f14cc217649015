"""What every stage uses: commands with a deadline, waits that say what they wait for, the account of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
HELM = ROOT / "build/bin/helm"
T = TypeVar("T")


class NotSo(Exception):
    """What a stage wants to see is not so; one sentence, and what was seen."""


def run(
    *command: str, stdin: str = "", seconds: float = 120, env: dict[str, str] | None = None, ok: bool = True
) -> str:
    """Standard output of a command. Raises `NotSo` with its last words when it fails and `ok` is asked for."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env=os.environ | (env or {}),
        check=False,
    )
    if ok and done.returncode != 0:
        raise NotSo(f"{' '.join(command[:6])} ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout if done.returncode == 0 or not done.stderr else done.stdout + done.stderr


def kubectl(*arguments: str, stdin: str = "", seconds: float = 120, ok: bool = True) -> str:
    """kubectl, against the cluster that KUBECONFIG points to."""
    return run("kubectl", *arguments, stdin=stdin, seconds=seconds, ok=ok)


def helm(*arguments: str, seconds: float = 600, ok: bool = True) -> str:
    """Helm, the one that `make helm` builds where it is there."""
    return run(str(HELM) if HELM.exists() else "helm", *arguments, seconds=seconds, ok=ok)


def get(kind: str, namespace: str, *arguments: str) -> list[dict[str, Any]]:
    """Objects of a kind."""
    return json.loads(kubectl("-n", namespace, "get", kind, "-o", "json", *arguments))["items"]


def apply(*objects: dict[str, Any]) -> None:
    """Make these objects, or make them so."""
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def until(what: str, seconds: float, look: Callable[[], T], seen: Callable[[], Any] = lambda: "") -> T:
    """What `look` finds, as soon as it finds something. Raises `NotSo` with what was seen when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NotSo(f"{what} was not seen in {seconds:.0f} s; {seen()}")
        time.sleep(1.0)


def sluice(*arguments: str, seconds: float = 300, ok: bool = True) -> str:
    """The `sluice` of this tree, on this machine."""
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OMP_NUM_THREADS": "1"}
    return run(sys.executable, "-W", "ignore", "-m", "pipeline.cli", *arguments, seconds=seconds, env=env, ok=ok)


def say(text: str) -> None:
    """A line of the report, at once."""
    print(text, flush=True)
