"""What the tally says to Prometheus is what prometheus-client's own metrics say of the same counts."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.metrics import DECLARED
from pipeline.tally import COUNTER, HISTOGRAM, Metric, Tally

PEERS = {COUNTER: Counter, HISTOGRAM: Histogram}


def said(registry: CollectorRegistry) -> list[str]:
    """Lines of the page that Prometheus reads, without the times at which the library made its metrics."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def fresh(*metrics: Metric) -> tuple[Tally, CollectorRegistry, CollectorRegistry, dict]:
    """(tally, its registry, the peer's registry, the peer's metrics by name)."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally({one.name: one for one in metrics}, lambda: ())
    ours.register(tally)
    peers = {}
    for one in metrics:
        more = {"buckets": one.buckets} if one.buckets else {}
        peers[one.name] = PEERS.get(one.kind, Gauge)(one.name, one.text, one.labels, registry=theirs, **more)
    return tally, ours, theirs, peers


@pytest.mark.parametrize("metric", DECLARED.values(), ids=DECLARED)
def test_the_page_is_the_librarys_own_to_the_letter(metric):
    tally, ours, theirs, peers = fresh(metric)
    rng = random.Random(metric.name)
    for _ in range(40):
        labels = {label: rng.choice(("a", 'quoted "b"', "line\nbreak")) for label in metric.labels}
        value = rng.choice((0.0, 0.5, 1, 3.0, 64, 65537.0, rng.expovariate(0.1)))
        peer = peers[metric.name].labels(**labels) if labels else peers[metric.name]
        if metric.kind == HISTOGRAM:
            tally.observe(metric.name, [(value, "")], labels)
            peer.observe(value)
        elif metric.kind == COUNTER:
            tally.add(metric.name, value, labels)
            peer.inc(value)
        else:
            tally.set(metric.name, value, labels)
            peer.set(value)
    assert said(ours) == said(theirs)


def test_a_batch_counts_as_its_values_one_after_the_other():
    metric = DECLARED["sluice_learning_lag_versions"]
    (at_once, ours, _, _), (singly, others, _, _) = fresh(metric), fresh(metric)
    values = [(lag / 2, f"r-{lag}") for lag in range(70)]
    at_once.observe(metric.name, iter(values), {})
    for one in values:
        singly.observe(metric.name, [one], {})
    assert said(ours) == said(others)


def test_only_what_has_a_value_is_said():
    _, ours, _, _ = fresh(*DECLARED.values())
    assert said(ours) == []


def test_a_total_that_is_kept_elsewhere_is_read_when_it_is_asked_for():
    busy = [1.5]
    name = "sluice_stage_busy_seconds_total"
    tally = Tally(DECLARED, lambda: [(name, busy[0], {})])
    for seconds in (1.5, 4.0):
        busy[0] = seconds
        (family,) = tally.collect()
        assert [(row.name, row.value) for row in family.samples] == [(name, seconds)]


def test_each_bucket_keeps_the_trace_of_the_last_value_that_fell_into_it():
    metric = DECLARED["sluice_generation_response_tokens"]
    tally, _, _, _ = fresh(metric)
    tally.trace_share = 1.0
    tally.observe(metric.name, [(3, "r-1"), (4, "r-2"), (1000, "r-3")], {})
    (family,) = tally.collect()
    found = {row.labels["le"]: row.exemplar.value for row in family.samples if row.exemplar}
    assert found == {"4.0": 4, "1024.0": 1000}
