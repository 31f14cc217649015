"""The figures of `summary.json` that are computed here, by hand."""

from __future__ import annotations

import pytest

from pipeline.summary import attended
from pipeline.view import View
from sluice.v1 import control_pb2


def life(worker: str, began_s: float, ended_s: float, busy_s: float = 0.0) -> control_pb2.WorkerStatus:
    return control_pb2.WorkerStatus(
        worker_id=worker,
        service="generation",
        started_ms=int(began_s * 1000),
        written_ms=int(ended_s * 1000),
        busy_s=busy_s,
    )


def test_the_week_between_two_sessions_is_not_wall_time():
    week = 7 * 86400.0
    lives = [life("generation-0", 0, 100), life("generation-0", week, week + 50)]
    assert attended(lives, [(10, 90), (week + 5, week + 45)]) == pytest.approx(90 + 45)


def test_a_worker_that_starts_before_the_first_work_adds_nothing():
    assert attended([life("generation-0", 0, 100)], [(20, 30), (40, 60)]) == pytest.approx(40)


def test_work_of_a_worker_that_left_no_status_counts_for_itself():
    assert attended([], [(0, 5), (5, 8), (20, 21)]) == pytest.approx(9)


def test_a_run_without_work_took_no_time():
    assert attended([life("generation-0", 0, 100)], []) == 0.0


def test_a_view_keeps_the_status_of_a_process_that_another_replaced():
    view = View()
    for status in (life("generation-0", 0, 1, 0.5), life("generation-0", 0, 9, 7.0), life("generation-0", 20, 21, 1.0)):
        view.add(status)
    assert view.workers["generation-0"].started_ms == 20000
    assert [status.busy_s for status in view.lives_of("generation")] == [7.0, 1.0]
