"""A process of its own for the log's tests; the tests kill it.

python worker.py transform ADDRESS RUN ID   read RUN.in in group RUN.work, write RUN.out, exactly once, for ever
python worker.py member ADDRESS RUN ID      join group RUN.work on RUN.in, say "holds N" at every change, for ever
python worker.py lock PATH                  hold SQLite's exclusive lock on PATH until standard input ends
"""

import sqlite3
import sys
import time

from pipeline.errors import Fenced, LogUnavailable
from pipeline.log import open_log

LEASE_S = 1.5


def transform(address, run, identity):
    log = open_log(address)
    writer = log.writer(f"{run}.{identity}")
    reader = log.group(f"{run}.work", [f"{run}.in"], identity, lease_s=LEASE_S)
    while True:
        try:
            found = reader.poll(0.2, max_records=20)
            if not found:
                continue
            with writer.transaction() as transaction:
                for record in found:
                    transaction.send(f"{run}.out", record.key, record.value + b" by " + identity.encode())
                transaction.commit_offsets(reader, {(r.topic, r.partition): r.offset + 1 for r in found})
        except (Fenced, LogUnavailable) as error:
            print(f"again: {error}", flush=True)
            reader.rewind()


def member(address, run, identity):
    reader = open_log(address).group(f"{run}.work", [f"{run}.in"], identity, lease_s=LEASE_S)
    held = -1
    while True:
        reader.poll(0.1, max_records=0)
        if len(reader.assigned()) != held:
            held = len(reader.assigned())
            print(f"holds {held}", flush=True)
        time.sleep(0.05)


def lock(path):
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    sys.stdin.read()
    connection.execute("ROLLBACK")
    connection.close()


if __name__ == "__main__":
    {"transform": transform, "member": member, "lock": lock}[sys.argv[1]](*sys.argv[2:])
