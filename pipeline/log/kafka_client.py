"""What every Kafka client of ours shares: its settings, and what Kafka's errors mean to Sluice.

The connection comes from the log's address and from these environment variables, each with kafka-python's meaning:

    SLUICE_KAFKA_SECURITY_PROTOCOL   PLAINTEXT (default), SSL, SASL_PLAINTEXT or SASL_SSL
    SLUICE_KAFKA_SASL_MECHANISM      PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    SLUICE_KAFKA_SASL_USERNAME
    SLUICE_KAFKA_SASL_PASSWORD       or SLUICE_KAFKA_SASL_PASSWORD_FILE, a file that holds it
    SLUICE_KAFKA_SSL_CAFILE          path of the certificate authority's file
    SLUICE_KAFKA_SSL_CERTFILE        paths of the client's own certificate and key, where the broker asks for them
    SLUICE_KAFKA_SSL_KEYFILE

A password's file is read at every sign-in, so a new password counts from the next connection on.

kafka-python's own log lines are silenced while nobody has set a level on the logger `kafka`: while a broker is away it
writes hundreds of them, and what matters is raised.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.sasl import get_sasl_mechanism, register_sasl_mechanism
from kafka.record import util as record_util

from pipeline.access import read_secret
from pipeline.errors import LogUnavailable, UserError

RETRY_BACKOFF_MS = 5
"""Also the pause while the last transaction is being completed: commits would wait for the default, 100 ms."""

RECONNECT_MAX_MS = 1000
REQUEST_TIMEOUT_MS = 10_000
METADATA_MAX_AGE_MS = 10_000
"""A group whose leader did not know a new topic yet, or its new partitions, gives nobody its partitions until then."""

SECURITY = {
    "SLUICE_KAFKA_SECURITY_PROTOCOL": "security_protocol",
    "SLUICE_KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "SLUICE_KAFKA_SASL_USERNAME": "sasl_plain_username",
    "SLUICE_KAFKA_SASL_PASSWORD": "sasl_plain_password",
    "SLUICE_KAFKA_SSL_CAFILE": "ssl_cafile",
    "SLUICE_KAFKA_SSL_CERTFILE": "ssl_certfile",
    "SLUICE_KAFKA_SSL_KEYFILE": "ssl_keyfile",
}
PASSWORD_FILE = "SLUICE_KAFKA_SASL_PASSWORD_FILE"
BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:,/\[\]]+):\d{1,5}")


def settings(bootstrap: str, patience_s: float, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Settings of every client.

    >>> settings("a:1,b:2", 10, {"SLUICE_KAFKA_SASL_USERNAME": "me"})["sasl_plain_username"]
    'me'
    """
    servers = bootstrap.split(",")
    for server in servers:
        if not _ADDRESS.fullmatch(server):
            raise UserError(f"log address is 'kafka://{bootstrap}'; accepted: kafka://host:port[,host:port]")
    password = (
        {"sasl_plain_password": read_secret(environment[PASSWORD_FILE])} if environment.get(PASSWORD_FILE) else {}
    )
    named = {name: environment[variable] for variable, name in SECURITY.items() if environment.get(variable)}
    return {
        "bootstrap_servers": servers,
        "bootstrap_timeout_ms": int(patience_s * 1000),
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        **named,
        **password,
    }


def read_at_sign_in(mechanism: type) -> type:
    """A sign-in of kafka-python, which makes one for each connection, with the password that the file holds by then."""

    class Anew(mechanism):
        def __init__(self, **config: Any) -> None:
            file = os.environ.get(PASSWORD_FILE, "")
            word = read_secret(file) if os.path.exists(file) else ""  # missing or empty: it is being replaced
            super().__init__(**config | ({"sasl_plain_password": word} if word else {}))

    return Anew


for _name in BY_PASSWORD:
    register_sasl_mechanism(_name, read_at_sign_in(get_sasl_mechanism(_name)), overwrite=True)


def require_crc32c() -> None:
    """Raise `UserError` without the C checksum: kafka-python would go on, fifteen times slower, and say nothing."""
    if record_util.crc32c_c is None:
        raise UserError("package 'crc32c' is missing; accepted: install 'kafka-python[crc32c]'")


OVERHEARD_S = 60.0


class Overheard(logging.Filter):
    """Why kafka-python's connections failed: of a start that came to nothing it says so only in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = False
        self._last: Exception | None = None
        self._heard_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Remember the error in a line; the line itself is kept back where nobody asked for it."""
        for one in record.args if isinstance(record.args, tuple) else ():
            if isinstance(one, Exception) and not isinstance(one, kafka_errors.KafkaTimeoutError):
                self._remember(one)
        return not self.quiet

    def _remember(self, error: Exception) -> None:
        """The last try before a deadline may be cut short: that it had no time hides no reason known before."""
        if self.latest() is None or not isinstance(error, kafka_errors.RequestTimedOutError):
            self._last, self._heard_at = error, time.monotonic()

    def latest(self) -> Exception | None:
        """The newest of them; none when it is old: a password that was wrong for a while explains no later outage."""
        return self._last if time.monotonic() - self._heard_at < OVERHEARD_S else None


OVERHEARD = Overheard()


def silence() -> None:
    """Keep kafka-python's log lines back unless somebody asked for them."""
    logger, connections = logging.getLogger("kafka"), logging.getLogger("kafka.net.manager")
    connections.addFilter(OVERHEARD)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)
        connections.setLevel(logging.WARNING)
        OVERHEARD.quiet = True


@contextmanager
def answering(bootstrap: str) -> Iterator[None]:
    """Turn Kafka's errors into `LogUnavailable`, or `UserError` where the caller's rights are at fault."""
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise translated(bootstrap, error) from error


def translated(bootstrap: str, error: BaseException) -> LogUnavailable | UserError:
    """What an error of kafka-python means; of a start that came to nothing, what its last connection failed with."""
    if isinstance(error, kafka_errors.KafkaTimeoutError) and "bootstrap" in str(error):
        error = OVERHEARD.latest() or error
    if isinstance(error, kafka_errors.AuthorizationError | kafka_errors.SaslAuthenticationFailedError):
        return UserError(f"log kafka://{bootstrap} refuses this user: {_asked(error) or _first_line(error)}")
    return LogUnavailable(f"log kafka://{bootstrap} does not answer: {_first_line(error)}{_hung_up(error)}")


def _hung_up(error: BaseException, environment: Mapping[str, str] = os.environ) -> str:
    """Over TLS a broker's refusal of a password is lost with the connection: kafka-python sees only that it ended."""
    mechanism = environment.get("SLUICE_KAFKA_SASL_MECHANISM")
    if not mechanism or "disconnected" not in str(error):
        return ""
    user = environment.get("SLUICE_KAFKA_SASL_USERNAME", "")
    return f"; it hung up while {user!r} signed in by {mechanism}: are user and password right?"


def _asked(error: BaseException) -> str:
    """What a request asked for that was refused, where the error holds all of the request.

    >>> said = "Request 'CreateTopicsRequest(topics=[CreatableTopic(name='a.steps', num_partitions=1)])' failed"
    >>> _asked(kafka_errors.TopicAuthorizationFailedError(said))
    "TopicAuthorizationFailedError: it asked for CreateTopics, 'a.steps' first"
    """
    found = re.search(r"Request '(\w+)Request\((?:.*?name=('[^']+'))?", str(error))
    if found is None:
        return ""
    return f"{type(error).__name__}: it asked for {found[1]}" + (f", {found[2]} first" if found[2] else "")


def _first_line(error: BaseException, longest: int = 160) -> str:
    """The error's name once, however often kafka-python says it, and its first line.

    >>> _first_line(kafka_errors.SaslAuthenticationFailedError("SaslAuthenticationFailedError: no such user"))
    'SaslAuthenticationFailedError: no such user'
    """
    name, said = type(error).__name__, (str(error).splitlines() or [""])[0]
    said = re.sub(rf"{name}: |\[Error \d+\] ?", "", said)
    return f"{name}: {said[:longest]}" if said not in ("", name) else name
