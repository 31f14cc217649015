"""A real OTLP receiver: a gRPC server that keeps the spans which it is sent."""

from __future__ import annotations

from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Got:
    """One span as it arrived. Times: seconds since the Unix epoch."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    begun: float
    ended: float
    attributes: dict[str, Any] = field(hash=False)
    failed: str


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """`with Receiver() as receiver:` listens on a free port; `spans` is what came."""

    def __enter__(self) -> Receiver:
        self.spans: list[Got] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}",
            "OTEL_TRACES_SAMPLER_ARG": "1.0",
        }
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0).wait(5)

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        for resource in request.resource_spans:
            service = plain(resource.resource.attributes)["service.name"]
            self.spans += [got(service, one) for scope in resource.scope_spans for one in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def got(service: str, one: Any) -> Got:
    times = one.start_time_unix_nano / 1e9, one.end_time_unix_nano / 1e9
    ids = one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex()
    return Got(service, one.name, *ids, *times, plain(one.attributes), one.status.message)


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
