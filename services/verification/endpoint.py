"""Asks a model behind HTTP: JSON out, JSON in, with a deadline, a bound on what is read, and a bounded number of tries.

What goes wrong here is never the answer's fault: it is raised as `EndpointFailed`, which a check turns into an
INFRA_ERROR. Redirects are not followed, and only http and https are spoken.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError

MAX_REPLY = 4 * 2**20
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


class EndpointFailed(Exception):
    """The endpoint did not answer, or not in its protocol."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """A reply elsewhere is no reply."""


@dataclass(frozen=True)
class Endpoint:
    """`url`: up to and without the route. `key_env`: the environment variable that holds the key; empty for none."""

    url: str
    key_env: str = ""
    timeout_s: float = 20.0
    tries: int = 2
    pause_s: float = 0.5

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UserError(f"endpoint: url is {self.url!r}; accepted: http:// or https://")

    def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply's object. Raises `EndpointFailed`, `UserError` when the key is not set."""
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/{route}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | self._key(),
            method="POST",
        )
        for attempt in range(1, self.tries + 1):
            try:
                return self._once(request)
            except EndpointFailed as error:
                if attempt == self.tries or not error.args[-1]:
                    raise EndpointFailed(error.args[0]) from error
                time.sleep(self.pause_s * attempt)
        raise EndpointFailed("no try was left")

    def _once(self, request: urllib.request.Request) -> dict[str, Any]:
        """One try; an error says last whether another may help."""
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout_s) as reply:
                data = reply.read(MAX_REPLY + 1)
        except urllib.error.HTTPError as error:
            raise EndpointFailed(f"HTTP {error.code}", error.code in _AGAIN) from error
        except (OSError, ValueError) as error:
            raise EndpointFailed(f"{type(error).__name__}: {error}"[:200], True) from error
        if len(data) > MAX_REPLY:
            raise EndpointFailed(f"a reply of over {MAX_REPLY} bytes", False)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EndpointFailed("a reply that is no JSON", True) from error
        if not isinstance(found, dict):
            raise EndpointFailed("a reply that is no object", True)
        return found

    def _key(self) -> dict[str, str]:
        if not self.key_env:
            return {}
        key = os.environ.get(self.key_env)
        if not key:
            raise UserError(f"endpoint: environment variable {self.key_env!r} is not set; accepted: the endpoint's key")
        return {"Authorization": f"Bearer {key}"}
