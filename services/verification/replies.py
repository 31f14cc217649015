"""What a model replied, by the hash of what it was asked; and how much was spent on asking.

One SQLite file serves every process that checks; without a file each process remembers for itself. Calls are reserved
before they are made, so that no two processes spend the last one.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from functools import lru_cache
from typing import Any

_TABLES = """
create table if not exists reply (key blob primary key, said text not null) without rowid;
create table if not exists spent (id integer primary key check (id = 0), calls integer not null, hits integer not null);
insert or ignore into spent values (0, 0, 0);
"""


class BudgetSpent(Exception):
    """No call is left."""


class Replies:
    """Replies and spending in one file; ":memory:" for this process alone."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        if path != ":memory:":
            self._database.execute("pragma journal_mode=wal")
        self._database.executescript(_TABLES)

    def get(self, key: bytes) -> str | None:
        """What was replied; None when it was not yet asked."""
        found = self._database.execute("select said from reply where key = ?", (key,)).fetchone()
        if found:
            self._database.execute("update spent set hits = hits + 1")
        return found[0] if found else None

    def put(self, key: bytes, said: str) -> None:
        """Remember a reply."""
        self._database.execute("insert or replace into reply values (?, ?)", (key, said))

    def spend(self, budget: int) -> None:
        """Reserve one call; `budget` 0 means without end. Raises `BudgetSpent`."""
        done = self._database.execute("update spent set calls = calls + 1 where ? = 0 or calls < ?", (budget, budget))
        if not done.rowcount:
            raise BudgetSpent

    @property
    def calls(self) -> int:
        """Calls made so far."""
        return int(self._database.execute("select calls from spent").fetchone()[0])

    @property
    def hits(self) -> int:
        """Calls saved so far."""
        return int(self._database.execute("select hits from spent").fetchone()[0])


@lru_cache(maxsize=16)
def replies(path: str) -> Replies:
    """The store at a path; "" for this process's own."""
    return Replies(path or ":memory:")


def key(*parts: Any) -> bytes:
    """A hash of everything that decides a reply.

    >>> key("a", {"b": 1}) == key("a", {"b": 1}), key("a", "b") == key("ab")
    (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).digest()
