"""Who may call a door: roles, bearer tokens, client certificates, and how much they may ask.

    role    may                                                     proved by
    read    Status, Describe, Posterior, Progress, reflection       a token, or a name (SAN) in the client's certificate
    call    read, and the craft: Generate, Verify, Next, Observe
    admin   call, and Pause, Resume, Drain, SaveCheckpoint

Health is open to whoever can connect. Everything comes from these environment variables; secrets are read from files,
and read again when a file changes, by doors and by who calls them: a token counts from the next call, a certificate
from the next connection, and a caller makes one for it.

    SLUICE_TLS_CERT SLUICE_TLS_KEY SLUICE_TLS_CA     paths; with all three a door speaks mutual TLS
    SLUICE_TLS_SERVER_NAME                           client: the name to expect in a server's certificate
    SLUICE_TOKENS_FILE                               server: lines "role token"
    SLUICE_TOKEN_FILE                                client: the token to send
    SLUICE_ALLOW_READ SLUICE_ALLOW_CALL SLUICE_ALLOW_ADMIN   names in client certificates, by comma
    SLUICE_MAX_MESSAGE_BYTES SLUICE_MAX_CALLS SLUICE_CALLS_PER_S
"""

from __future__ import annotations

import hmac
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

ROLES = ("read", "call", "admin")
"""In order: each may do what those before it may."""
READ = {"Status", "Describe", "Posterior", "Progress", "ListChecks", "ServerReflectionInfo"}
ADMIN = {"Pause", "Resume", "Drain", "SaveCheckpoint"}
OPEN = "/grpc.health.v1.Health/"
WATCH = f"{OPEN}Watch"
MAX_MESSAGE_BYTES = 64 * 2**20
MAX_CALLS = 256
NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
"""Not below 0; a million may come as 1e+06."""


@dataclass(frozen=True)
class Access:
    """What a door asks of its callers. Paths are of files; empty means not set. `calls_per_s`: 0 sets no bound."""

    certificate: str = ""
    key: str = ""
    authority: str = ""
    server_name: str = ""
    tokens: str = ""
    token: str = ""
    names: tuple[tuple[str, str], ...] = ()
    """(name in a certificate, role)."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_calls: int = MAX_CALLS
    calls_per_s: float = 0.0

    @property
    def tls(self) -> bool:
        """Does the door speak mutual TLS?"""
        return bool(self.certificate)

    @property
    def asks(self) -> bool:
        """Must a caller prove a role?"""
        return bool(self.tokens or self.names)

    def files(self) -> tuple[bytes, bytes, bytes]:
        """Key, certificate and authority as their files hold them now. Raises `UserError` where one cannot be used."""
        found = {path: read_secret(path) for path in (self.key, self.certificate, self.authority)}
        for path, text in found.items():
            if not text:  # gRPC ends the process for it
                raise UserError(f"file {path!r} is empty; accepted: a key or certificates, as PEM")
        return found[self.key].encode(), found[self.certificate].encode(), found[self.authority].encode()

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """Differs once a file has changed. The part of one that is missing or empty, as while it is written, is ()."""
        files = (Path(path) for path in (self.key, self.certificate, self.authority))
        seen = (file.stat() if file.exists() else None for file in files)
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) if one and one.st_size else () for one in seen)


def from_environment(environment: Mapping[str, str] = os.environ) -> Access:
    """Access as the environment says. Raises `UserError` for half a TLS setting, a bad number or a bad tokens file.

    >>> tls = {"SLUICE_TLS_CERT": "c", "SLUICE_TLS_KEY": "k", "SLUICE_TLS_CA": "a"}
    >>> from_environment(tls | {"SLUICE_ALLOW_READ": "grafana, report"}).names
    (('grafana', 'read'), ('report', 'read'))
    """
    tls = {name: environment.get(f"SLUICE_TLS_{name}", "") for name in ("CERT", "KEY", "CA")}
    missing = [f"SLUICE_TLS_{name}" for name, value in tls.items() if not value]
    if len(missing) in (1, 2):
        raise UserError(f"{', '.join(missing)} is not set; accepted: SLUICE_TLS_CERT, _KEY and _CA together, or none")
    names = [
        (name.strip(), role)
        for role in ROLES
        for name in environment.get(f"SLUICE_ALLOW_{role.upper()}", "").split(",")
        if name.strip()
    ]
    if names and missing:
        raise UserError("SLUICE_ALLOW_* is set without TLS; accepted: with SLUICE_TLS_CERT, _KEY and _CA")
    found = Access(
        tls["CERT"],
        tls["KEY"],
        tls["CA"],
        environment.get("SLUICE_TLS_SERVER_NAME", ""),
        environment.get("SLUICE_TOKENS_FILE", ""),
        environment.get("SLUICE_TOKEN_FILE", ""),
        tuple(names),
        int(_number(environment, "SLUICE_MAX_MESSAGE_BYTES", MAX_MESSAGE_BYTES, least=1)),
        int(_number(environment, "SLUICE_MAX_CALLS", MAX_CALLS, least=1)),
        _number(environment, "SLUICE_CALLS_PER_S", 0.0),
    )
    if found.tokens:
        tokens_in(read_secret(found.tokens))
    return found


def needed(method: str) -> str:
    """The role that a full method name takes; empty for health.

    >>> needed("/sluice.v1.OperatorService/Drain"), needed("/sluice.v1.GenerationService/Generate")
    ('admin', 'call')
    """
    if method.startswith(OPEN):
        return ""
    name = method.rpartition("/")[2]
    return "read" if name in READ else "admin" if name in ADMIN else "call"


def may(role: str, wanted: str) -> bool:
    """May a caller of this role (empty: none) do what takes `wanted`?"""
    return not wanted or (bool(role) and ROLES.index(role) >= ROLES.index(wanted))


def role_of_token(given: str, tokens: str) -> str:
    """The role of a token by the text of a tokens file; empty when it is in none of its lines.

    >>> role_of_token("s3cret", "read abc\\nadmin s3cret")
    'admin'
    """
    found = ""
    for role, token in tokens_in(tokens):
        if hmac.compare_digest(token.encode(), given.encode()):
            found = role
    return found


def role_of_names(given: Iterable[str], allowed: Iterable[tuple[str, str]]) -> str:
    """The highest role among the names of a certificate.

    >>> role_of_names(["ops", "grafana"], [("grafana", "read"), ("ops", "admin")])
    'admin'
    """
    held = set(given)
    roles = [role for name, role in allowed if name in held]
    return max(roles, key=ROLES.index, default="")


def tokens_in(text: str) -> list[tuple[str, str]]:
    """(role, token) of every line. Raises `UserError` that names the line, never what stands in it."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        role, _, token = line.strip().partition(" ")
        if not line.strip():
            continue
        if role not in ROLES or not token.strip():
            raise UserError(f"tokens file, line {number}: accepted: read, call or admin, and a token")
        found.append((role, token.strip()))
    return found


def read_secret(path: str) -> str:
    """A secret file's text without the space around it. Raises `UserError` when it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise UserError(f"secret file {path!r} cannot be read ({error.strerror}); accepted: a readable file") from error


def _number(environment: Mapping[str, str], name: str, default: float, least: int = 0) -> float:
    given = environment.get(name, "")
    if not given:
        return default
    number = float(given) if NUMBER.fullmatch(given) else -1.0
    if not least <= number < math.inf:
        raise UserError(f"{name} is {given!r}; accepted: a number, {least} or more")
    return number
