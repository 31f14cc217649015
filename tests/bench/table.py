"""Tables and facts that every benchmark prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three significant digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def middle(values: Sequence[float]) -> str:
    """Median, with the range when there are several."""
    if len(values) == 1:
        return _text(values[0])
    return f"{_text(median(values))} ({_text(min(values))} to {_text(max(values))})"


def _text(cell: object) -> str:
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and abs(cell) < 1000
        else f"{cell:,.0f}"
        if isinstance(cell, float)
        else str(cell)
    )
