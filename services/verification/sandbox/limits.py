"""What a job may use, how it ended, and the failure that is not the job's."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER_MB = 64
"""Size of each of the two folders that a job may write to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. Sizes in MB are of 2^20 bytes; `memory_mb` holds for all its processes together."""

    cpu_s: float = 2.0
    wall_s: float = 6.0
    memory_mb: int = 512
    output_kb: int = 1024
    file_mb: int = 16
    processes: int = 64


@dataclass(frozen=True, slots=True)
class Ran:
    """How a job ended. `why`: "cpu", "memory", "wall" or "output" when it was ended by force, else empty.

    `exit`: exit code, negative for a signal, None when it was ended by force. `starved`: it waited for a CPU for a good
    part of its wall time. `flooded`: it wrote more than is kept. `left`: processes that it left behind.
    """

    why: str
    exit: int | None
    cpu_s: float
    wall_s: float
    starved: bool
    flooded: bool
    left: int
    stdout: bytes
    stderr: bytes


class JailLost(Exception):
    """The jail does not start, or does not answer: our failure, never the program's."""
