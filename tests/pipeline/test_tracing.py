"""One trace from request to training step: through the real stages' commits, to a real OTLP receiver."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import records, trace
from pipeline.errors import UserError
from pipeline.life import Life
from pipeline.log.api import read_all
from pipeline.metrics import Meter
from pipeline.stage import Output, Stage
from pipeline.topics import Names
from pipeline.tracing import open_tracer
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

ROOT = Path(__file__).parents[2]


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


Receiver = load("sluice_tests_otlp", ROOT / "tests/otlp.py").Receiver
NAMES = Names("sluice", "test")
NOW_MS = 1_700_000_000_000


TOPICS = ("requests", "rollouts", "verdicts")


def key(request: str, index: int) -> rollout_pb2.RolloutKey:
    return rollout_pb2.RolloutKey(request_id=request, index=index, attempt=1)


def rollout(request: str, index: int) -> rollout_pb2.Rollout:
    spans = [rollout_pb2.Span(version=4), rollout_pb2.Span(first_token=2, version=5)]
    call = rollout_pb2.Call(tokens=[7, 8, 9], spans=spans)
    timings = rollout_pb2.Timings(queued_s=0.5, generated_s=1.5, ended_ms=NOW_MS)
    return rollout_pb2.Rollout(
        key=key(request, index), prompt_id="p", calls=[call], ending=rollout_pb2.ENDING_STOP, timings=timings
    )


def verdict(request: str, index: int, outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT, reason="") -> rollout_pb2.Verdict:
    return rollout_pb2.Verdict(key=key(request, index), prompt_id="p", outcome=outcome, wall_s=0.25, reason=reason)


def journey(request: str) -> list[tuple[str, list[Output]]]:
    """What each service writes about one request for two rollouts: one is trained on, of one the check failed."""
    asked = prompt_pb2.RolloutRequest(request_id=request, attempt=1, prompt_id="p", n=2, version_at_issue=5)
    failed = verdict(request, 1, rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, "worker_died")
    step = training_pb2.TrainStep(
        epoch=1,
        step=6,
        version=7,
        uses=[training_pb2.Use(key=key(request, 0), use=1, weight=1.0, advantage=0.5, lag=1.5)],
        drops=[training_pb2.Drop(key=key(request, 1), reason="infra_error")],
        computed_s=2.0,
        ended_ms=NOW_MS + 9000,
    )
    return [
        ("difficulty", [Output("requests", request, asked)]),
        ("generation", [Output("rollouts", "p", rollout(request, index)) for index in (0, 1)]),
        ("verification", [Output("verdicts", "p", verdict(request, 0)), Output("verdicts", "p", failed)]),
        ("learning", [Output("steps", "test", step)]),
    ]


def write(log, service: str, outputs: list[Output], environment: dict[str, str]) -> Meter:
    """Commit as this service does, and end it."""
    meter = Meter(service, f"{service}-0")
    stage = Stage(service, f"{service}-0", log, NAMES, meter, Life(), tracer=open_tracer(meter, "test", environment))
    stage.open(f"test.{service}")
    stage.commit(stage.encode(outputs), {}, None)
    stage.writer.close()
    if stage.tracer is not None:
        stage.tracer.close()
    return meter


def test_a_rollout_is_one_trace_over_the_four_services(log):
    with Receiver() as receiver:
        for service, outputs in journey("r-1"):
            write(log, service, outputs, receiver.environment)
    found = {(one.name, one.attributes.get("sluice.rollout", 0)): one for one in receiver.spans}
    assert len(found) == len(receiver.spans) == 7
    assert {one.trace for one in receiver.spans} == {trace.trace_id("r-1")}
    assert {(one.service, one.name) for one in receiver.spans} == {
        ("sluice-difficulty", "request"),
        ("sluice-generation", "sample"),
        ("sluice-verification", "check"),
        ("sluice-learning", "train"),
        ("sluice-learning", "drop"),
    }
    for child, parent in (
        (("sample", 0), ("request", 0)),
        (("sample", 1), ("request", 0)),
        (("check", 0), ("sample", 0)),
        (("train", 0), ("check", 0)),
        (("drop", 1), ("check", 1)),
    ):
        assert found[child].parent == found[parent].span
    assert found["request", 0].parent == ""
    sample, check, train = found["sample", 0], found["check", 0], found["train", 0]
    assert (sample.begun, sample.ended) == (NOW_MS / 1000 - 2.0, NOW_MS / 1000)
    assert (sample.attributes["sluice.version.oldest"], sample.attributes["sluice.version.newest"]) == (4, 5)
    assert check.ended - check.begun == pytest.approx(0.25, abs=1e-6)
    assert (train.begun, train.ended) == (NOW_MS / 1000 + 7.0, NOW_MS / 1000 + 9.0)
    assert train.attributes["sluice.step"] == 6 and train.attributes["sluice.lag"] == 1.5
    assert found["check", 1].failed == "worker_died" and check.failed == ""
    assert found["drop", 1].attributes["sluice.reason"] == "infra_error"


def headers(log) -> list[str]:
    return [records.traceparent(read_all(log, NAMES.topic(topic))[0].headers) for topic in TOPICS]


def test_a_record_carries_the_span_that_wrote_it(log):
    with Receiver() as receiver:
        for service, outputs in journey("r-1")[:3]:
            write(log, service, outputs, receiver.environment)
    spans = [
        trace.span_id("request", "r-1", 1),
        trace.span_id("sample", "r-1", 0, 1),
        trace.span_id("check", "r-1", 0, 1),
    ]
    assert headers(log) == [f"00-{trace.trace_id('r-1')}-{span}-01" for span in spans]


@pytest.mark.parametrize("share", ["0", ""])
def test_a_record_of_a_request_that_is_not_traced_carries_nothing(log, share):
    with Receiver() as receiver:
        environment = receiver.environment | {"OTEL_TRACES_SAMPLER_ARG": share} if share else {}
        for service, outputs in journey("r-1")[:3]:
            write(log, service, outputs, environment)
    assert headers(log) == ["", "", ""] and not receiver.spans


def test_what_is_traced_in_one_service_is_traced_in_all(log):
    names = [f"r-{number}" for number in range(40)]
    kept = {name for name in names if trace.chosen(trace.trace_id(name), 0.25)}
    assert 3 <= len(kept) <= 20
    with Receiver() as receiver:
        environment = receiver.environment | {"OTEL_TRACES_SAMPLER_ARG": "0.25"}
        for steps in zip(*map(journey, names), strict=True):
            write(log, steps[0][0], [output for _, outputs in steps for output in outputs], environment)
    assert {(one.attributes["sluice.request"], one.name) for one in receiver.spans} == {
        (name, what) for name in kept for what in ("request", "sample", "check", "train", "drop")
    }


def test_it_is_off_unless_an_endpoint_is_set(log):
    meter = Meter("difficulty", "difficulty-0")
    assert open_tracer(meter, "test", {"OTEL_TRACES_SAMPLER_ARG": "1"}) is None
    assert meter.trace_share == 0.0
    bare = [sys.executable, "-c", "import sys, pipeline.serve; print([m for m in sys.modules if 'opentelemetry' in m])"]
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("share", ["2", "-1", "a tenth", "1e3"])
def test_a_share_that_is_none_is_refused_by_name(share):
    with pytest.raises(UserError, match="OTEL_TRACES_SAMPLER_ARG is .* accepted: a number from 0 to 1"):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_TRACES_SAMPLER_ARG": share}
        open_tracer(Meter("a", "a-0"), "test", environment)


def test_a_collector_that_is_away_costs_spans_and_no_time(log):
    begun = time.monotonic()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER_ARG": "1"}
    meter = write(log, "generation", journey("r-1")[1][1], environment)
    assert time.monotonic() - begun < 15
    found = {name: value for name, value in meter.values().items() if "spans_total" in name}
    assert found == {
        'sluice_stage_spans_total{result="made"}': 2.0,
        'sluice_stage_spans_total{result="lost"}': 2.0,
    }
    assert len(read_all(log, NAMES.topic("rollouts"))) == 2


def test_a_value_names_the_trace_it_is_of():
    from prometheus_client.openmetrics.exposition import generate_latest

    meter = Meter("generation", "generation-0")
    meter.observe("sluice_generation_response_tokens", 5, of="r-1")
    assert "trace_id" not in generate_latest(meter.registry).decode()
    meter.trace_share = 1.0
    meter.observe("sluice_generation_response_tokens", 5, of="r-1")
    assert f'trace_id="{trace.trace_id("r-1")}"' in generate_latest(meter.registry).decode()


@pytest.mark.long
def test_a_real_run_is_traced_from_request_to_step(tmp_path):
    harness = load("sluice_tests_harness", ROOT / "tests/journey/harness.py")
    with Receiver() as receiver:
        environment = os.environ | receiver.environment
        command = [sys.executable, "-m", "pipeline.cli", "run", str(harness.SMALL), "--plain", "--dir"]
        command += [str(tmp_path / "run"), "--set", "learning.steps=3", "--set", "evaluate.prompts=0"]
        subprocess.run(command, cwd=ROOT, env=environment, timeout=240, check=True, capture_output=True)
    counted = harness.audit(tmp_path / "run")
    names = [one.name for one in receiver.spans]
    assert names.count("train") >= counted["trained"] > 0, json.dumps(counted)
    spans = {one.span: one for one in receiver.spans}
    trained = next(one for one in receiver.spans if one.name == "train")
    above = [trained]
    while above[-1].parent:
        above.append(spans[above[-1].parent])
    assert [one.name for one in above] == ["train", "check", "sample", "request"]
    assert above[-1].begun <= above[-2].ended <= above[0].ended + 0.1
