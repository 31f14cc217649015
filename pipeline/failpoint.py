"""Where the chaos tests end a process.

`SLUICE_FAILPOINT="learning.after_step:step=7"` makes the process that reaches that point with those values kill itself
with SIGKILL, once: a file under `SLUICE_FAILPOINT_DIR` remembers it, so that the restarted process goes on.
Without the variable, reaching a point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def reach(name: str, **context: object) -> None:
    """Say that a named point was reached."""
    wanted = os.environ.get("SLUICE_FAILPOINT")
    if not wanted:
        return
    for one in wanted.split(";"):
        point, _, conditions = one.partition(":")
        if point == name and _holds(conditions, context):
            _die_once(one)


def _holds(conditions: str, context: dict[str, object]) -> bool:
    pairs = [condition.split("=", 1) for condition in conditions.split(",") if condition]
    return all(str(context.get(key)) == value for key, value in pairs)


def _die_once(point: str) -> None:
    marker = Path(os.environ["SLUICE_FAILPOINT_DIR"]) / point.replace("/", "_")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
