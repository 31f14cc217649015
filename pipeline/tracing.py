"""Whether spans go to an OpenTelemetry collector. They do not unless an endpoint is set.

    OTEL_EXPORTER_OTLP_ENDPOINT   http://collector:4317, OTLP over gRPC; OTEL_EXPORTER_OTLP_TRACES_ENDPOINT comes first
    OTEL_TRACES_SAMPLER_ARG       share of requests that are traced, 0 to 1; 0.01 where it is not set

The exporter reads its other settings (headers, certificate) from OpenTelemetry's own variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from google.protobuf.message import Message

from pipeline.errors import UserError
from pipeline.log.api import Send
from pipeline.metrics import Meter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SHARE = "OTEL_TRACES_SAMPLER_ARG"
USUAL_SHARE = 0.01
NUMBER = re.compile(r"(\d(\.\d+)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
"""Not below 0; 0.00001 may come as 1e-05."""


class Tracer(Protocol):
    """Makes spans of what a stage has committed."""

    def header(self, noun: Message) -> str:
        """The `traceparent` of the record that a noun becomes; empty when its request is not traced."""
        ...

    def committed(self, sends: Iterable[Send], seconds: float) -> None:
        """Records were written, in a transaction that took so long and has just ended."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


def open_tracer(meter: Meter, run: str, environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """The tracer that the environment asks for; none when it names no endpoint. Raises `UserError`."""
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), "")
    if not endpoint:
        return None
    try:
        from pipeline.otlp import OtlpTracer
    except ImportError as error:
        raise UserError("tracing is asked for and OpenTelemetry is not installed; accepted: sluice[trace]") from error
    meter.trace_share = share_of(environment)
    return OtlpTracer(endpoint, meter.trace_share, meter, run)


def share_of(environment: Mapping[str, str]) -> float:
    """The share of requests that are traced. Raises `UserError` for what is no share.

    >>> share_of({}), share_of({"OTEL_TRACES_SAMPLER_ARG": "0.5"}), share_of({"OTEL_TRACES_SAMPLER_ARG": "1e-05"})
    (0.01, 0.5, 1e-05)
    """
    text = environment.get(SHARE) or str(USUAL_SHARE)
    if not NUMBER.fullmatch(text) or float(text) > 1:
        raise UserError(f"{SHARE} is {text!r}; accepted: a number from 0 to 1")
    return float(text)
