"""Every metric, declared once: name, kind, unit, labels, meaning. A service counts through its `Meter`.

Names are `sluice_<service>_<what>_<unit>`, with `stage` and `log` standing for what every service does. Labels have few
values: never an id, a prompt or a version. Nothing is counted that is not declared here. With SLUICE_METRICS=off in the
environment nothing is counted for Prometheus at all: what counting costs is measured against that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from pipeline.tally import COUNTER, GAUGE, HISTOGRAM, Metric, Tally

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
VERSIONS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
RATIO = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


METRICS: tuple[Metric, ...] = (
    # Every stage.
    Metric(
        "sluice_stage_records_total", COUNTER, "records", "Records read, by what became of them.", ("topic", "result")
    ),
    Metric("sluice_stage_sent_total", COUNTER, "records", "Records written.", ("topic",)),
    Metric("sluice_stage_sent_bytes_total", COUNTER, "bytes", "Bytes of the values written.", ("topic",)),
    Metric("sluice_stage_transactions_total", COUNTER, "transactions", "Transactions, by result.", ("result",)),
    Metric("sluice_stage_transaction_seconds", HISTOGRAM, "seconds", "Time of a commit.", (), SECONDS),
    Metric("sluice_stage_wait_seconds_total", COUNTER, "seconds", "Time waited, by what for.", ("reason",)),
    Metric("sluice_stage_busy_seconds_total", COUNTER, "seconds", "Time worked."),
    Metric("sluice_stage_progress_timestamp_seconds", GAUGE, "seconds", "When it last got something done, Unix time."),
    Metric("sluice_stage_in_flight", GAUGE, "records", "Records taken and not finished."),
    Metric("sluice_stage_backlog", GAUGE, "records", "Records that wait for this service.", ("topic",)),
    Metric("sluice_stage_state_info", GAUGE, "1", "1 for the state the worker is in.", ("state",)),
    Metric("sluice_log_cpu_seconds_total", COUNTER, "seconds", "CPU time spent in log and codec."),
    Metric("sluice_stage_spans_total", COUNTER, "spans", "Spans of traces, by what became of them.", ("result",)),
    Metric("sluice_stage_calls_total", COUNTER, "calls", "gRPC calls answered, by status.", ("method", "code")),
    Metric("sluice_stage_call_seconds", HISTOGRAM, "seconds", "Time of a gRPC call.", ("method",), SECONDS),
    Metric("sluice_stage_calls_refused_total", COUNTER, "calls", "gRPC calls refused at the door.", ("reason",)),
    # Generation.
    Metric("sluice_generation_rollouts_total", COUNTER, "rollouts", "Rollouts ended, by how.", ("ending",)),
    Metric("sluice_generation_tokens_total", COUNTER, "tokens", "Tokens sampled."),
    Metric("sluice_generation_running", GAUGE, "sequences", "Sequences in the engine."),
    Metric("sluice_generation_pruned_total", COUNTER, "rollouts", "Rollouts ended early, so that the others balance."),
    Metric("sluice_generation_guided_total", COUNTER, "injections", "Rollouts with guidance, by its kind.", ("kind",)),
    Metric("sluice_generation_replicas", GAUGE, "engines", "Engines of a worker that live."),
    Metric("sluice_generation_admitted", GAUGE, "sequences", "Sequences that may be in the engine, by its cache."),
    Metric("sluice_generation_kv_used_ratio", GAUGE, "ratio", "Share of the key-value cache in use."),
    Metric(
        "sluice_generation_handed_back_total",
        COUNTER,
        "requests",
        "Requests handed to another worker, by what they lacked here.",
        ("reason",),
    ),
    Metric(
        "sluice_generation_lag_versions",
        HISTOGRAM,
        "versions",
        "Versions behind the newest one heard of, when a request was begun.",
        (),
        VERSIONS,
    ),
    Metric("sluice_generation_version", GAUGE, "versions", "Version applied."),
    Metric("sluice_generation_apply_seconds", HISTOGRAM, "seconds", "Time generation stood still.", (), SECONDS),
    Metric(
        "sluice_generation_publish_to_apply_seconds",
        HISTOGRAM,
        "seconds",
        "Age of a version when applied.",
        (),
        SECONDS,
    ),
    Metric("sluice_generation_weights_bytes", GAUGE, "bytes", "Bytes on the log of the last version applied."),
    Metric("sluice_generation_weights_density_ratio", GAUGE, "ratio", "Its share of changed values; 1 for an anchor."),
    Metric("sluice_generation_response_tokens", HISTOGRAM, "tokens", "Tokens of a rollout.", (), TOKENS),
    Metric("sluice_generation_weights_refused_total", COUNTER, "versions", "Versions refused, by reason.", ("reason",)),
    # Verification.
    Metric("sluice_verification_verdicts_total", COUNTER, "verdicts", "Verdicts.", ("check", "outcome")),
    Metric("sluice_verification_seconds", HISTOGRAM, "seconds", "Wall time of one check.", ("check",), SECONDS),
    Metric("sluice_verification_retries_total", COUNTER, "rollouts", "Rollouts handed to another try.", ("reason",)),
    Metric(
        "sluice_verification_second_looks_total",
        COUNTER,
        "verdicts",
        "Verdicts that a stronger check looked at, by what the first one is beside it.",
        ("check", "found"),
    ),
    Metric(
        "sluice_verification_reward_drift_sigmas",
        GAUGE,
        "1",
        "Standard errors by which both the reward and its gap to the hidden check have risen.",
    ),
    # Difficulty.
    Metric("sluice_difficulty_requests_total", COUNTER, "requests", "Requests issued."),
    Metric("sluice_difficulty_rollouts_requested_total", COUNTER, "rollouts", "Rollouts asked for."),
    Metric(
        "sluice_difficulty_lag_versions",
        HISTOGRAM,
        "versions",
        "Versions behind the newest one heard of, of rollouts whose outcome is observed.",
        (),
        VERSIONS,
    ),
    Metric("sluice_difficulty_outstanding", GAUGE, "rollouts", "Places held at the gate."),
    Metric("sluice_difficulty_room", GAUGE, "rollouts", "Places free at the gate."),
    Metric("sluice_difficulty_prompts", GAUGE, "prompts", "Prompts known."),
    Metric("sluice_difficulty_believed_share", GAUGE, "ratio", "Share of prompts believed so.", ("belief",)),
    Metric("sluice_difficulty_restore_seconds", HISTOGRAM, "seconds", "Time to fold the posterior anew.", (), SECONDS),
    Metric("sluice_difficulty_entropy_nats", GAUGE, "nats", "Mean entropy of the posteriors."),
    Metric("sluice_difficulty_brier_ratio", GAUGE, "ratio", "Squared distance of predicted and observed accuracy."),
    Metric(
        "sluice_difficulty_calibration_error_ratio",
        GAUGE,
        "ratio",
        "Distance of predicted and observed accuracy, by bins.",
    ),
    Metric(
        "sluice_difficulty_informative_share",
        GAUGE,
        "ratio",
        "Groups with both answers, by those rollouts that had an outcome: as expected, as seen.",
        ("of",),
    ),
    Metric(
        "sluice_difficulty_pass_rate_ratio",
        GAUGE,
        "ratio",
        "Mean pass rate of outcomes by tenth of the predicted one: predicted, observed.",
        ("of", "bin"),
    ),
    # Learning.
    Metric("sluice_learning_step", GAUGE, "steps", "Optimiser steps done."),
    Metric("sluice_learning_version", GAUGE, "versions", "Version in force."),
    Metric("sluice_learning_max_lag", GAUGE, "versions", "Oldest policy that may be trained on, versions behind."),
    Metric("sluice_learning_step_seconds", HISTOGRAM, "seconds", "Time of an optimiser step.", (), SECONDS),
    Metric("sluice_learning_rollouts_total", COUNTER, "rollouts", "Rollouts trained on."),
    Metric("sluice_learning_tokens_total", COUNTER, "tokens", "Tokens trained on."),
    Metric(
        "sluice_learning_drops_total",
        COUNTER,
        "rollouts",
        "Rollouts dropped, by reason and by what was believed of the prompt: hard, medium, easy.",
        ("reason", "difficulty"),
    ),
    Metric("sluice_learning_lag_versions", HISTOGRAM, "versions", "Mean lag of a trained rollout.", (), VERSIONS),
    Metric("sluice_learning_accuracy_ratio", HISTOGRAM, "ratio", "Accuracy of a trained batch.", (), RATIO),
    Metric("sluice_learning_stat", GAUGE, "1", "Metrics of the last step, by name.", ("name",)),
    Metric("sluice_learning_checkpoint_timestamp_seconds", GAUGE, "seconds", "When the newest checkpoint was named."),
    Metric("sluice_learning_buffered_groups", GAUGE, "groups", "Groups held, by where.", ("where",)),
)

DECLARED = {metric.name: metric for metric in METRICS}


class Meter:
    """Counts for one process, and remembers totals for its status. Thread-safe."""

    def __init__(self, service: str, worker_id: str) -> None:
        self.service, self.worker_id = service, worker_id
        self.started = time.time()
        self.progress_at = time.time()
        self.progressed = False
        self.turned_at = time.monotonic()
        self.waits: dict[str, float] = defaultdict(float)
        self.busy_s = 0.0
        self.cpu_log_s = 0.0
        self.counting = os.environ.get("SLUICE_METRICS") != "off"
        self._tally = Tally(DECLARED, self._totals)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        if self.counting:
            self.registry.register(self._tally)

    @property
    def trace_share(self) -> float:
        """Share of requests that are traced: their values carry an exemplar."""
        return self._tally.trace_share

    @trace_share.setter
    def trace_share(self, share: float) -> None:
        self._tally.trace_share = share

    def add(self, name: str, value: float = 1.0, /, **labels: str) -> None:
        """Add to a counter."""
        if self.counting:
            self._tally.add(name, value, labels)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        if self.counting:
            self._tally.set(name, value, labels)

    def observe(self, name: str, value: float, /, *, of: str = "", **labels: str) -> None:
        """Observe a value in a histogram; `of`: the request that it is of, whose trace becomes an exemplar."""
        if self.counting:
            self._tally.observe(name, ((value, of),), labels)

    def observe_all(self, name: str, values: Iterable[tuple[float, str]], /, **labels: str) -> None:
        """Observe (value, the request that it is of) of a whole batch: a tenth of the cost of one after the other."""
        if self.counting:
            self._tally.observe(name, values, labels)

    def turned(self) -> None:
        """The stage's loop goes round: said by it alone, so that a loop which hangs is seen."""
        self.turned_at = time.monotonic()

    def progress(self) -> None:
        """Something got done."""
        self.progress_at = time.time()
        self.progressed = True

    def waited(self, reason: str, seconds: float) -> None:
        """Time passed in which nothing could be done, and why."""
        if seconds > 0:
            self.waits[reason] += seconds

    def worked(self, seconds: float) -> None:
        """Time passed at work. Of the stage's thread, as `waited`: neither takes a lock."""
        if seconds > 0:
            self.busy_s += seconds

    @contextlib.contextmanager
    def logging_cpu(self) -> Iterator[None]:
        """Counts the CPU time of its block as spent in log and codec."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.cpu_log_s += time.thread_time() - begun

    def values(self) -> dict[str, float]:
        """Every value as `name{label="..."}`: what a JSON line of metrics holds."""
        found = {}
        for family in self.registry.collect():
            for row in family.samples:
                if not row.name.endswith(("_bucket", "_created")):
                    labels = ",".join(f'{key}="{value}"' for key, value in sorted(row.labels.items()))
                    found[f"{row.name}{{{labels}}}" if labels else row.name] = row.value
        return found

    def serve(self, host: str, port: int) -> int:
        """Expose them over HTTP for Prometheus; returns the port."""
        server, _ = start_http_server(port, host, self.registry)
        return int(server.server_port)

    def _totals(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        """What is remembered for the status anyway: (metric, value, labels)."""
        if self.progressed:  # a start is none: a worker that dies again and again would look lively
            yield "sluice_stage_progress_timestamp_seconds", self.progress_at, {}
        yield "sluice_stage_busy_seconds_total", self.busy_s, {}
        yield "sluice_log_cpu_seconds_total", self.cpu_log_s, {}
        for reason, seconds in dict(self.waits).items():
            yield "sluice_stage_wait_seconds_total", seconds, {"reason": reason}
