"""How long a stage waits for a log that does not answer: minutes at work, seconds once it was told to leave."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline import stage as stages
from pipeline.errors import LogUnavailable
from pipeline.life import Life
from pipeline.metrics import Meter
from pipeline.stage import Stage
from pipeline.topics import Names


@pytest.fixture
def stage():
    return Stage("verification", "worker-0", None, Names("sluice", "test"), Meter("verification", "worker-0"), Life())


def silent():
    raise LogUnavailable("the log does not answer")


def test_a_worker_at_work_waits_for_its_log_and_goes_on_where_it_was(stage, monkeypatch):
    monkeypatch.setattr(stages, "LEAVING_S", 0.0)
    answers = iter([silent, silent, lambda: "here"])
    assert stage.patiently(lambda: next(answers)()) == "here" and stage.log_answers


def test_a_worker_that_is_told_to_leave_while_its_log_is_away_gives_up_in_seconds(stage, monkeypatch):
    monkeypatch.setattr(stages, "LEAVING_S", 0.3)
    threading.Timer(0.2, lambda: stage.life.leave("SIGTERM")).start()
    begun = time.monotonic()
    with pytest.raises(LogUnavailable, match="does not answer"):
        stage.patiently(silent)
    assert time.monotonic() - begun < 10 and not stage.log_answers
