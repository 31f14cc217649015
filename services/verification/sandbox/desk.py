"""Jails of this process, kept for the next job: one per role ("candidate", "tests"), started when first asked for."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from services.verification.sandbox.jail import Jail


class Keeper:
    """Lends jails. `reuse`: whether a jail that is still good is kept for the next borrower. Thread-safe.

    A jail dies with the thread that started it, so each thread has its own.
    """

    def __init__(self, reuse: bool) -> None:
        self._reuse = reuse
        self._kept = threading.local()

    @contextmanager
    def borrow(self, role: str) -> Iterator[Jail]:
        """A good jail, for one job or several; thrown away afterwards when it is no longer good."""
        kept: dict[str, Jail] = self._kept.__dict__
        jail = kept.pop(role, None)
        if jail is None or not jail.good:
            jail = Jail(warm=self._reuse)
        try:
            yield jail
        finally:
            if jail.good and self._reuse and role not in kept:
                kept[role] = jail
            else:
                jail.close()

    def close(self) -> None:
        """End the jails of this thread."""
        for jail in self._kept.__dict__.values():
            jail.close()
        self._kept.__dict__.clear()


def keeper(reuse: bool) -> Keeper:
    """This process's keeper. A fork has its own: a jail answers the process that started it."""
    return _keeper(os.getpid(), reuse)


@lru_cache(maxsize=4)
def _keeper(pid: int, reuse: bool) -> Keeper:
    made = Keeper(reuse)
    atexit.register(made.close)
    return made
