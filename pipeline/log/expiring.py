"""When to forget: an embedded log applies retention and compaction when somebody says so, a broker by itself.

`sluice run` says so for its services, a service that is served alone for itself. Several may: each piece of the work is
a transaction that looks anew at what is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline.log.api import Log

EVERY_S = 30.0
"""Between two times."""


@dataclass
class Expiring:
    """To be called often; now and then it lets the log forget."""

    log: Log
    at: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        """For half a second at most. Raises `LogUnavailable`."""
        if time.monotonic() - self.at > EVERY_S:
            self.at = time.monotonic()
            self.log.expire()
