"""The report is one file that needs nothing else, escapes what a model said, and shows what the run has."""

import re
from xml.etree import ElementTree

import pytest

from pipeline.report import RunData, render
from pipeline.report.page import audit_numbers, evaluations, facts, headline, is_clean
from sluice.v1 import control_pb2, rollout_pb2, training_pb2

AUDIT = {"requested": 16, "trained": 14, "dropped": {"stale": 2}, "in_flight": 0, "lost": [], "trained_twice": []}
SUMMARY = {
    "run": "demo",
    "recipe": "grpo",
    "eval_before": {"mean@4": 0.371, "greedy": 0.7, "version": 0},
    "eval_after": {"mean@4": 0.912, "greedy": 0.97, "version": 2},
    "steps": 2,
    "rollouts_trained": 14,
    "wall_s": 75.2,
    "drops": {"stale": 2},
    "audit": AUDIT,
}
HOSTILE = "</td><script>alert(1)</script>"


def step(number: int, lag: float) -> training_pb2.TrainStep:
    key = rollout_pb2.RolloutKey(request_id="r", index=number)
    return training_pb2.TrainStep(epoch=1, step=number, uses=[training_pb2.Use(key=key, use=1, lag=lag)])


def evaluation(name: str, at: int, mean: float) -> control_pb2.Evaluation:
    return control_pb2.Evaluation(name=name, step=at, samples=4, temperature=1.0, metrics={"mean@4": mean})


def worker(service: str, busy: float, **waits: float) -> control_pb2.WorkerStatus:
    return control_pb2.WorkerStatus(
        worker_id=f"{service}-0", service=service, busy_s=busy, waits_s=waits, started_ms=1000, written_ms=11_000
    )


@pytest.fixture
def data():
    sample = {"step": 1, "prompt": HOSTILE, "text": HOSTILE, "outcome": "WRONG", "lag": 1.0, "advantage": -0.5}
    return RunData(
        summary=SUMMARY,
        steps=[step(1, 0.0), step(2, 1.5)],
        evals=[evaluation("before", 0, 0.371), evaluation("after", 2, 0.912)],
        workers=[worker("generation", 7, weights=2), worker("learning", 4, groups=6)],
        audit=AUDIT,
        samples=[sample],
        accuracy=[(1, 0.4), (2, 0.8)],
        sampled=[(100.0, 7), (103.0, 6)],
        landscape=[(1, [0.2, 0.3, 0.5, 0.0, 0.0])],
        predictions=[(0.5, 1.0)],
    )


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(data):
    page = render(data)
    assert not re.search(r"<script|<link|<img|<iframe|src=|href=|url\(|@import|https?://", page)


def test_what_a_model_said_is_shown_and_never_becomes_markup(data):
    page = render(data)
    assert HOSTILE not in page
    assert page.count("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_every_plot_is_there_and_is_well_formed(data):
    page = render(data)
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 7
    for plot in plots:
        ElementTree.fromstring(plot)
    for title in ("Accuracy", "Who waits for whom", "Lag of what", "Throughput", "Drops", "How hard"):
        assert f"<h2>{title}" in page


def test_accuracy_before_and_after_and_the_audit_can_be_read(data):
    page = render(data)
    assert "37.1%" in page
    assert "91.2%" in page
    assert "1 min 15 s" in page
    assert "clean" in page
    assert "not clean" not in page


def test_a_run_that_lost_something_says_so(data):
    audit = AUDIT | {"lost": ["r/3"]}
    assert is_clean(audit) is False
    assert "not clean" in render(RunData(SUMMARY, audit=audit))


def test_a_run_that_has_done_nothing_still_has_a_report():
    page = render(RunData({"run": "new"}))
    assert "<h1>new</h1>" in page
    assert "<svg" not in page


def test_the_account_shows_numbers_lists_by_length_and_tables_by_entry():
    assert audit_numbers(AUDIT | {"ok": True}) == [
        ("requested", "16"),
        ("trained", "14"),
        ("dropped: stale", "2"),
        ("in flight", "0"),
        ("lost", "0"),
        ("trained twice", "0"),
    ]


def test_the_headline_of_an_evaluation_is_its_mean():
    assert headline({"pass@4": 0.9, "mean@4": 0.5, "pass@1": 0.5}) == 0.5
    assert headline({"pass@1": 0.25}) == 0.25
    assert headline({}) is None


def test_only_facts_that_are_known_are_shown(data):
    assert [heading for heading, *_ in facts(data)] == ["Held-out accuracy", "Steps", "Rollouts trained", "Wall time"]
    assert facts(RunData({})) == []


def test_a_metric_that_only_one_side_has_leaves_the_other_empty():
    rows = evaluations({"eval_before": {"mean@4": 0.5}, "eval_after": {"mean@4": 0.75, "greedy": 1.0}})
    assert rows == [("mean@4", "50.0%", "75.0%"), ("greedy", "", "100.0%")]
