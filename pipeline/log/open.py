"""Which log an address names."""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.log.api import Log


def open_log(address: str) -> Log:
    """Open the log at `address`: `kafka://host:port[,host:port]` or a file's path (created when missing)."""
    if address.startswith("kafka://"):
        from pipeline.log.kafka import KafkaLog

        return KafkaLog(address.removeprefix("kafka://").rstrip("/"))
    if "://" in address:
        raise UserError(f"log address is {address!r}; accepted: kafka://host:port, or the path of a file")
    from pipeline.log.embedded import EmbeddedLog

    return EmbeddedLog(address)
