"""A gRPC door as every service has it: TLS, roles, limits, and every call counted. And a kubelet's probe beside it.

    calls      sluice_stage_calls_total {method, code}    sluice_stage_call_seconds {method}
    refusals   sluice_stage_calls_refused_total {reason}  no_role, wrong_token, wrong_name, too_large, unreadable,
                                                          too_fast, too_many, unknown_method

A handshake that fails (no certificate, another authority, expired) is in none of these numbers: it ends in gRPC's
transport, which tells nobody here. The caller sees UNAVAILABLE, and no call begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pipeline import access
from pipeline.access import Access
from pipeline.errors import UserError
from pipeline.metrics import Meter

THREADS = 32
HARD_LIMIT = 2
"""The transport refuses messages this many times as large as the limit; those between are refused here, and counted."""
PROBES = ("", "started", "live")
"""Names that a probe may ask for: "" is ready."""


class Refusal(NamedTuple):
    """Why a call is refused."""

    reason: str
    code: grpc.StatusCode
    sentence: str


def make_server(rules: Access, meter: Meter) -> grpc.Server:
    """A server that counts its calls and refuses what `rules` refuse."""
    threads = Threads(THREADS)
    options = [
        ("grpc.max_receive_message_length", HARD_LIMIT * rules.max_message_bytes),
        ("grpc.so_reuseport", 0),
    ]
    return grpc.server(
        threads,
        interceptors=[Guard(rules, meter, threads)],
        options=options,
        maximum_concurrent_rpcs=rules.max_calls,
    )


def listen(server: grpc.Server, address: str, rules: Access) -> str:
    """Bind; returns the address with the port that it got. Raises `UserError` when that cannot be."""
    host, _, port = address.rpartition(":")
    said = f"address {address!r} cannot be listened on (is the port in use?); accepted: a free host:port"
    try:
        bound = server.add_secure_port(address, _credentials(rules)) if rules.tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(said) from error
    if bound == 0 or (port != "0" and str(bound) != port):
        raise UserError(said)
    return f"{host}:{bound}"


class Threads(futures.ThreadPoolExecutor):
    """The threads that answer; `held` is how many calls they have, at work and waiting."""

    def __init__(self, number: int) -> None:
        super().__init__(max_workers=number)
        self.held = 0
        self._held_lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future:
        """Take a call, which gRPC does once for each that it lets in."""
        with self._held_lock:
            self.held += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._left)
        return future

    def _left(self, _: futures.Future) -> None:
        with self._held_lock:
            self.held -= 1


class Guard(grpc.ServerInterceptor):
    """Asks every call for its role, bounds its rate and size, counts it."""

    def __init__(self, rules: Access, meter: Meter, threads: Threads) -> None:
        self.rules, self.meter, self.threads = rules, meter, threads
        self._lock = threading.Lock()
        self._tokens, self._at = rules.calls_per_s, time.monotonic()

    def intercept_service(
        self, continuation: Callable[[Any], grpc.RpcMethodHandler | None], call: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a call, guarded."""
        handler = continuation(call)
        if handler is None:
            self._refused("unknown_method")
            return None
        if self.threads.held >= self.rules.max_calls:
            self._refused("too_many")  # gRPC ends it next, with RESOURCE_EXHAUSTED and before it is read
        if call.method == access.WATCH:
            return _watched(handler, self.rules.max_message_bytes)
        return _wrapped(handler, lambda act: self._guarded(call, act), self.rules.max_message_bytes)

    def _guarded(self, call: grpc.HandlerCallDetails, act: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            begun = time.monotonic()
            code = "OK"
            try:
                refusal = self._refusal(call, request, context)
                if refusal is not None:
                    self._refused(refusal.reason)
                    context.abort(refusal.code, refusal.sentence)
                result = act(self._readable(request, context) if isinstance(request, Iterator) else request, context)
                if isinstance(result, Iterator):
                    yield from result
                else:
                    yield result
                code = _code(context)
            except BaseException:
                code = _code(context, "UNKNOWN")
                raise
            finally:
                self._count(call.method, code, time.monotonic() - begun)

        return guarded

    def _readable(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if isinstance(request, Refusal):
                self._refused(request.reason)
                context.abort(request.code, request.sentence)
            yield request

    def _refusal(self, call: grpc.HandlerCallDetails, request: Any, context: grpc.ServicerContext) -> Refusal | None:
        wanted = access.needed(call.method)
        if isinstance(request, Refusal):
            return request
        asked = self._unproved(wanted, dict(call.invocation_metadata or ()), context) if self.rules.asks else None
        if asked is None and wanted and not self._in_rate():  # who may not call takes no turn from who may
            sentence = f"more than {self.rules.calls_per_s:g} calls a second; accepted: try again later"
            return Refusal("too_fast", grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)
        return asked

    def _unproved(self, wanted: str, headers: dict[str, Any], context: grpc.ServicerContext) -> Refusal | None:
        if not wanted:
            return None
        given = str(headers.get("authorization", "")).removeprefix("Bearer ").strip()
        names = [name.decode() for name in context.peer_identities() or ()]
        role = access.role_of_names(names, self.rules.names)
        if given and self.rules.tokens:
            role = access.role_of_token(given, access.read_secret(self.rules.tokens)) or role
        if access.may(role, wanted):
            return None
        if role:
            sentence = f"role {role} may not do this; accepted: {wanted}"
            return Refusal("no_role", grpc.StatusCode.PERMISSION_DENIED, sentence)
        if self.rules.names and names and not given:
            sentence = "no name of this certificate is allowed here; accepted: one that SLUICE_ALLOW_* lists"
            return Refusal("wrong_name", grpc.StatusCode.PERMISSION_DENIED, sentence)
        sentence = "no valid token; accepted: authorization: Bearer TOKEN"
        return Refusal("wrong_token", grpc.StatusCode.UNAUTHENTICATED, sentence)

    def _in_rate(self) -> bool:
        rate = self.rules.calls_per_s
        if not rate:
            return True
        with self._lock:
            now = time.monotonic()
            self._tokens = min(max(rate, 1.0), self._tokens + (now - self._at) * rate)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _refused(self, reason: str) -> None:
        self.meter.add("sluice_stage_calls_refused_total", reason=reason)

    def _count(self, method: str, code: str, seconds: float) -> None:
        name = method.rpartition("/")[2]
        self.meter.add("sluice_stage_calls_total", method=name, code=code)
        self.meter.observe("sluice_stage_call_seconds", seconds, method=name)


class Probe:
    """Health on a plain port of its own: a kubelet speaks no TLS and has no token. Nothing else is on that port.

    `started` once the service is built, `live` while its loop turns, "" while it is ready.
    """

    def __init__(self, port: int) -> None:
        self.health = health.HealthServicer()
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = listen(self.server, f"0.0.0.0:{port}", Access())
        for name in PROBES:
            self.set(name, name == "live")
        self.server.start()

    def set(self, name: str, yes: bool) -> None:
        """Say whether it is so."""
        found = health_pb2.HealthCheckResponse
        self.health.set(name, found.SERVING if yes else found.NOT_SERVING)

    def close(self) -> None:
        """End it."""
        self.server.stop(grace=0.5).wait(2.0)


def _wrapped(
    handler: grpc.RpcMethodHandler, guard: Callable[[Callable[..., Any]], Callable[..., Any]], limit: int
) -> grpc.RpcMethodHandler:
    read = _reader(handler.request_deserializer, limit)
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(guard(handler.stream_stream), read, handler.response_serializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(guard(handler.unary_stream), read, handler.response_serializer)
    guarded = guard(handler.unary_unary)

    def one(request: Any, context: grpc.ServicerContext) -> Any:
        answers = list(guarded(request, context))
        return answers[0]

    return grpc.unary_unary_rpc_method_handler(one, read, handler.response_serializer)


def _watched(handler: grpc.RpcMethodHandler, limit: int) -> grpc.RpcMethodHandler:
    """Health's `Watch` as gRPC's own servicer has it: it is called back and holds no thread, however many watch."""
    read = _reader(handler.request_deserializer, limit)

    def asked(payload: bytes) -> Any:
        found = read(payload)
        return health_pb2.HealthCheckRequest(service="?") if isinstance(found, Refusal) else found

    return grpc.unary_stream_rpc_method_handler(handler.unary_stream, asked, handler.response_serializer)


def _reader(decode: Callable[[bytes], Any] | None, limit: int) -> Callable[[bytes], Any]:
    """How a request is read: into its message, or into the refusal of what is too large or no such message.

    It never raises: gRPC's server keeps the whole state of a call whose request cannot be read (1.85: 15 KB a call, for
    as long as the process lives), so anybody could fill the memory of a service with messages of a few bytes.
    """

    def read(payload: bytes) -> Any:
        if len(payload) > limit:
            sentence = f"message has {len(payload)} bytes; accepted: up to {limit}"
            return Refusal("too_large", grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)
        try:
            return decode(payload) if decode else payload
        except DecodeError:
            sentence = f"message of {len(payload)} bytes cannot be read; accepted: the request of this method"
            return Refusal("unreadable", grpc.StatusCode.INVALID_ARGUMENT, sentence)

    return read


def _code(context: grpc.ServicerContext, otherwise: str = "OK") -> str:
    code = context.code() if hasattr(context, "code") else None
    return code.name if isinstance(code, grpc.StatusCode) else otherwise


def _credentials(rules: Access) -> grpc.ServerCredentials:
    """Certificates that are read again when their files change: new connections get the new ones."""
    known = rules.stamp()

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, certificate, authority = rules.files()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        now = rules.stamp()
        if now == known or not all(now):
            return None
        found = configuration()
        known = now
        return found

    return grpc.dynamic_ssl_server_credentials(configuration(), changed, require_client_authentication=True)
