"""Metrics for other tools."""

import json

from pipeline import config
from pipeline.rundir import RunDir
from pipeline.scalars import Scalars
from pipeline.view import View
from sluice.v1 import control_pb2, training_pb2


def test_every_step_and_evaluation_stands_once_in_the_lines_and_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = RunDir.make(tmp_path / "run", config.Run())
    scalars, view = Scalars(directory), View()
    for step in (1, 2):
        view.add(training_pb2.TrainStep(epoch=1, step=step, metrics={"loss": 0.5 * step}))
        scalars.write(view)
        scalars.write(view)
    view.add(control_pb2.Evaluation(name="after", step=2, metrics={"mean@4": 0.75}))
    scalars.write(view)
    scalars.close()
    rows = [json.loads(line) for line in directory.file("metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row.get("step/loss")) for row in rows] == [(1, 0.5), (2, 1.0), (2, None)]
    assert rows[2]["eval/after/mean@4"] == 0.75
    events = EventAccumulator(str(directory.folder("tensorboard"))).Reload()
    assert [event.value for event in events.Scalars("step/loss")] == [0.5, 1.0]
