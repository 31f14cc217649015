"""Waiting for a log that comes."""

import time

from pipeline.errors import LogUnavailable


def until_it_answers(action, seconds=30.0):
    """What the action returns once the log answers it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
