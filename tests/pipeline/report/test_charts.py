"""What the plots are of: shares that add up, evaluations of the run's own problems, columns that stay few."""

import pytest

from pipeline.report import charts
from pipeline.report.collect import accuracy_by_step, chosen
from pipeline.report.data import RunData
from pipeline.report.svg import columns, lines
from sluice.v1 import control_pb2, rollout_pb2, training_pb2


def worker(busy: float, lived: float, **waits: float) -> control_pb2.WorkerStatus:
    return control_pb2.WorkerStatus(busy_s=busy, waits_s=waits, started_ms=0, written_ms=int(lived * 1000))


def test_a_services_time_is_split_over_all_its_workers():
    shares = charts.time_shares([worker(6, 10, log=2), worker(2, 10)])
    assert shares == pytest.approx({"busy": 0.4, "log": 0.1, "other": 0.5})


def test_waits_that_overlap_are_scaled_down_to_the_time_there_was():
    shares = charts.time_shares([worker(10, 10, log=10)])
    assert shares == pytest.approx({"busy": 0.5, "log": 0.5, "other": 0.0})


def test_a_worker_that_has_not_lived_has_no_shares():
    assert charts.time_shares([worker(0, 0)]) == {}


def test_held_out_accuracy_is_of_the_runs_own_sampled_evaluations():
    def made(name, step, temperature):
        return control_pb2.Evaluation(name=name, step=step, temperature=temperature, metrics={"mean@4": 0.5})

    evals = [made("before", 0, 1), made("before greedy", 0, 0), made("during", 5, 1), made("other set", 5, 1)]
    plot = charts.accuracy(RunData({}, evals=evals)).plot
    assert plot.count("<circle") == 2


def test_lags_are_shares_of_each_column_and_high_ones_share_a_class():
    def step(number, *lags):
        uses = [training_pb2.Use(key=rollout_pb2.RolloutKey(index=i), lag=lag) for i, lag in enumerate(lags)]
        return training_pb2.TrainStep(step=number, uses=uses)

    chart = charts.lags(RunData({}, steps=[step(1, 0, 0, 1.5, 9), step(2)]))
    assert [name for name, _ in chart.legend] == ["lag 0", "lag 1", "lag 4 or more"]
    assert "lag 0, step 1: 50%" in chart.plot


def test_a_long_run_has_no_more_columns_than_a_screen_can_show():
    steps = [training_pb2.TrainStep(step=n, uses=[training_pb2.Use(lag=0)]) for n in range(1, 1001)]
    assert charts.lags(RunData({}, steps=steps)).plot.count("<rect") == 40


def test_throughput_counts_every_token_once():
    chart = charts.throughput(RunData({}, sampled=[(0.0, 10), (1.0, 20), (2.0, 30)]))
    assert "tokens per second, seconds since the first rollout ended 0: 10" in chart.plot
    assert "tokens per second, seconds since the first rollout ended 1: 50" in chart.plot


def test_one_point_and_no_points_can_be_drawn():
    assert lines([], "step") == ""
    assert columns([], [], "step") == ""
    assert "<circle" in lines([charts.Line("one", [(0, 0.0)], "red", dots=True)], "step")


def row(prompt: str, step: int | None, accuracy: float | None = 1.0) -> dict:
    return {"prompt_id": prompt, "step": step, "accuracy": accuracy}


def test_samples_are_of_the_first_steps_and_the_last_one_for_each_prompt():
    rows = [row(f"p{step}", step) for step in range(1, 10) for _ in range(3)] + [row("never", None)]
    assert [one["step"] for one in chosen(rows, 2)] == [1, 2, 8, 9]
    assert [one["step"] for one in chosen(rows[:3], 2)] == [1]


def test_accuracy_by_step_is_the_mean_of_what_was_checked():
    rows = [row("a", 2, 1.0), row("b", 2, 0.0), row("c", 1, 0.5), row("d", 2, None), row("e", None)]
    assert accuracy_by_step(rows) == [(1, 0.5), (2, 0.5)]


def test_the_landscape_is_stacked_by_class_over_the_steps():
    chart = charts.difficulty(RunData({}, landscape=[(5, [0.5, 0, 0, 0, 0.5]), (10, [0.25, 0.25, 0, 0, 0.5])]))
    assert [name for name, _ in chart.legend] == ["0% to 20%", "20% to 40%", "80% to 100%"]
    assert "0% to 20%, step 5: 50%" in chart.plot and "20% to 40%, step 10: 25%" in chart.plot


def test_calibration_shows_what_came_back_of_each_tenth_and_the_brier_score():
    chart = charts.calibration(RunData({}, predictions=[(0.2, 0.0), (0.2, 1.0), (0.95, 1.0)]))
    assert "what came back, believed pass rate 0.2: 50%" in chart.plot
    assert "what came back, believed pass rate 0.95: 100%" in chart.plot
    assert "Brier score 0.228 over 3 rollouts" in chart.note


def test_without_beliefs_neither_is_drawn():
    assert charts.difficulty(RunData({})) is None and charts.calibration(RunData({})) is None
