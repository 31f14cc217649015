"""Sends spans to an OpenTelemetry collector: what `pipeline/trace.py` reads off the nouns that a stage has written.

A thread of OpenTelemetry's sends many at a time. A collector that does not answer costs spans and never holds a stage
up: `sluice_stage_spans_total` counts what was made, sent and lost. What was made and is neither, nor on its way, had no
room in the queue.

    who waits                for what          unblocked by
    the end of a process     the last spans    the collector; `LAST_S` and one more sending at most
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from pipeline import records, trace
from pipeline.log.api import Send
from pipeline.metrics import Meter

log = logging.getLogger(__name__)

QUEUE, BATCH, EVERY_MS = 32_768, 512, 5000
SEND_S, LAST_S = 5, 5
STEPS = {"TrainStep", "DropNotice"}
"""Nouns about many requests: their records carry no trace of their own."""


class OtlpTracer:
    """Makes spans of what a stage has committed. Used by one thread."""

    def __init__(self, endpoint: str, share: float, meter: Meter, run: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # a line for every span that finds no room
        self.share, self.meter = share, meter
        named = {"service.name": f"sluice-{meter.service}", "service.instance.id": meter.worker_id, "sluice.run": run}
        self.resource = Resource.create(named)
        self.exporter = Counted(OTLPSpanExporter(endpoint, timeout=SEND_S), meter)
        self.queue = BatchSpanProcessor(
            self.exporter, max_queue_size=QUEUE, max_export_batch_size=BATCH, schedule_delay_millis=EVERY_MS
        )

    def header(self, noun: Message) -> str:
        """The `traceparent` of the record that a noun becomes; empty when its request is not traced."""
        return trace.of(noun) if self._wanted(trace.request_of(noun)) else ""

    def committed(self, sends: Iterable[Send], seconds: float) -> None:
        """Records were written, in a transaction that took so long and has just ended."""
        ended = time.time()
        made = 0
        for send in sends:
            name = records.noun_named(send.headers)
            if name in STEPS or records.traceparent(send.headers):
                noun = records.NOUNS[name].FromString(send.value)
                for span in trace.spans(noun, ended - seconds, ended, self._wanted):
                    self.queue.on_end(self._readable(span))
                    made += 1
        if made:
            self.meter.add("sluice_stage_spans_total", made, result="made")

    def close(self) -> None:
        """Send what is left."""
        self.exporter.until = time.monotonic() + LAST_S
        self.queue.shutdown()

    def _wanted(self, request_id: str) -> bool:
        return bool(request_id and trace.kept(request_id, self.share))

    def _readable(self, span: trace.Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_place(span.trace, span.span),
            parent=_place(span.trace, span.parent) if span.parent else None,
            resource=self.resource,
            attributes=dict(span.attributes),
            status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET),
            start_time=int(span.begun * 1e9),
            end_time=int(span.ended * 1e9),
        )


class Counted(SpanExporter):
    """An exporter that counts what it sent and lost, and says once that the collector does not take them."""

    def __init__(self, inner: SpanExporter, meter: Meter) -> None:
        self.inner, self.meter = inner, meter
        self.until = math.inf
        """Monotonic time after which nothing more is tried."""
        self.losing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them. Called by the queue's thread."""
        late = time.monotonic() > self.until
        result = SpanExportResult.FAILURE if late else self.inner.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        self.meter.add("sluice_stage_spans_total", len(spans), result="lost" if lost else "sent")
        if lost and not self.losing:
            log.warning("the collector of traces does not take them; spans are lost until it does")
        self.losing = lost
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self.inner.shutdown()


def _place(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
