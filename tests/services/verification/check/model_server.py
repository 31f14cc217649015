"""A real HTTP server on this machine that speaks the protocol of a model endpoint. The fake stands at the edge: no
model is behind it; its replies follow stated rules, and it counts and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str, dict[str, Any]], Any]


class ModelServer:
    """`rule(path, body)` gives the reply: an object, `bytes` as they are, or an `int`, which is an HTTP status."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.asked = rule, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, body, dict(self.headers)))
                said = server.rule(self.path, body)
                status, data = (said, b"") if isinstance(said, int) else (200, said)
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                if status in (301, 302):
                    self.send_header("Location", "http://localhost:9/")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def chat(said: Any) -> dict[str, Any]:
    """A chat completion that says this."""
    content = said if isinstance(said, str) else json.dumps(said)
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}


def slow(seconds: float) -> Rule:
    """A rule that takes its time."""

    def rule(path: str, body: dict[str, Any]) -> Any:
        time.sleep(seconds)
        return chat({"score": 5, "reason": ""})

    return rule
