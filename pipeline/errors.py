"""Every error Sluice raises on purpose.

    SluiceError
    |-- UserError            a value somebody can correct: one sentence, exit code 2, no traceback
    |-- Poison               a record that can never be handled: dead-lettered at once
    |-- Retryable            the same call may succeed later: tried again with a bound
    |   |-- LogUnavailable   the log does not answer
    |   `-- NotReady         the service has not caught up yet
    |-- OwnFault             what the service does by itself fails, whatever the record: the process ends
    |-- Lost                 an offset that retention has eaten: reading on would skip records
    `-- Fenced               somebody newer holds this role: stop the process

`Poison`, `Retryable` and everything else are told apart in one place, `pipeline/stage.py`.
To add one: derive it here from the class that says what the loop should do with it.
"""

from __future__ import annotations

from collections.abc import Iterable


class SluiceError(Exception):
    """Base of them all."""


class UserError(SluiceError):
    """A value that a user can correct; its message is one sentence that names the value and what is accepted."""

    @classmethod
    def choice(cls, what: str, got: object, accepted: Iterable[object]) -> UserError:
        """`what` is not one of `accepted`."""
        return cls(f"{what} is {got!r}; accepted: {', '.join(sorted(map(str, accepted)))}")


class Poison(SluiceError):
    """A record that cannot be decoded or handled, however often it is tried."""


class Retryable(SluiceError):
    """A failure that may pass."""


class LogUnavailable(Retryable):
    """The log does not answer."""


class NotReady(Retryable):
    """The service has not caught up with its topics."""


class OwnFault(SluiceError):
    """What a service does by itself fails: no record's fault, and every other record would meet it too."""


class Lost(SluiceError):
    """The wanted offset is below what the log still holds."""


class Fenced(SluiceError):
    """A newer process holds this role; this one must stop without writing."""
