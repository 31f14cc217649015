"""Asking a running service: channels with its certificate and token, and the stubs of every service.

Certificate and token are read again when their files change, so a caller that lives long outlives both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from pipeline import access
from pipeline.access import MAX_MESSAGE_BYTES, Access
from sluice.v1 import control_pb2, control_pb2_grpc, generation_pb2_grpc, verification_pb2_grpc

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


class Client:
    """A service's doors at one address. Every call takes its own deadline."""

    def __init__(self, address: str) -> None:
        self.channel = connect(address)
        self.operator = control_pb2_grpc.OperatorServiceStub(self.channel)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.verification = verification_pb2_grpc.VerificationServiceStub(self.channel)

    def status(self, timeout: float = 2.0) -> control_pb2.WorkerStatus | None:
        """What it is doing; None when it does not answer."""
        try:
            return self.operator.Status(control_pb2.StatusRequest(), timeout=timeout)
        except grpc.RpcError:
            return None

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()


def connect(address: str, rules: Access | None = None) -> grpc.Channel:
    """A channel to a door, with the certificate and the token that `rules`, or else the environment, name."""
    rules = rules or access.from_environment()
    made = Renewed(address, rules) if rules.tls else grpc.insecure_channel(address, options=OPTIONS)
    # With TLS also where there is no token: under an interceptor, `Renewed` is asked anew for each call.
    return grpc.intercept_channel(made, Bearer(rules.token)) if rules.tls or rules.token else made


class Renewed(grpc.Channel):
    """A TLS channel that is opened anew, at a call, when the files of its certificate have changed.

    gRPC's credentials for a client are fixed. An interceptor must lie above this: gRPC takes the method below one anew
    for each call, and without one only when a stub is made.
    """

    def __init__(self, address: str, rules: Access) -> None:
        self._address, self._rules = address, rules
        self._lock = threading.Lock()
        self._known = rules.stamp()
        self._opened = [self._open()]

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See gRPC."""
        return self._newest().unary_unary(*args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See gRPC."""
        return self._newest().unary_stream(*args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See gRPC."""
        return self._newest().stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See gRPC."""
        return self._newest().stream_stream(*args, **kwargs)

    def subscribe(self, callback: Callable[..., Any], try_to_connect: bool = False) -> None:
        """See gRPC."""
        self._newest().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., Any]) -> None:
        """See gRPC."""
        for one in self._opened:
            one.unsubscribe(callback)

    def close(self) -> None:
        """See gRPC."""
        for one in self._opened:
            one.close()

    def __enter__(self) -> Renewed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _newest(self) -> grpc.Channel:
        with self._lock:
            now = self._rules.stamp()
            if now != self._known and all(now):
                *older, latest = self._opened
                self._opened = [latest, self._open()]  # calls at work on the latest go on
                self._known = now
                for one in older:
                    one.close()
            return self._opened[-1]

    def _open(self) -> grpc.Channel:
        key, certificate, authority = self._rules.files()
        named = [("grpc.ssl_target_name_override", self._rules.server_name)] if self._rules.server_name else []
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        return grpc.secure_channel(self._address, credentials, options=[*OPTIONS, *named])


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends the token of a file, if one is named, with every call, whether it sends one message or a stream of them."""

    def __init__(self, file: str) -> None:
        self.file = file

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See gRPC."""
        return continuation(self._with_token(details) if self.file else details, request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary

    def _with_token(self, details: Any) -> Any:
        header = ("authorization", f"Bearer {access.read_secret(self.file)}")
        return Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), header],
            details.credentials,
            details.wait_for_ready,
        )


class Details(NamedTuple):
    """A call's details, as gRPC wants them from a client's interceptor."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any = None
