"""The durable log: one small interface (`api.py`), two implementations, one conformance suite.

    log = open_log("runs/demo/log.db")            embedded: SQLite, several processes of one machine
    log = open_log("kafka://localhost:9092")      Apache Kafka

Both give the same promises; `tests/pipeline/log/` holds them to it.
"""

from pipeline.log.api import Follower, GroupReader, Log, Record, Send, TopicConfig, Transaction, Writer, partition_of
from pipeline.log.open import open_log

__all__ = [
    "Follower",
    "GroupReader",
    "Log",
    "Record",
    "Send",
    "TopicConfig",
    "Transaction",
    "Writer",
    "open_log",
    "partition_of",
]
