"""The steps' metrics for other tools: one JSON line per step, and TensorBoard events where TensorBoard is installed."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from pipeline.rundir import RunDir
from pipeline.view import View
from sluice.v1 import control_pb2, training_pb2


class Scalars:
    """Writes what is new in a view. A step that a rewind voided and that was made again stands twice, by epoch."""

    def __init__(self, directory: RunDir) -> None:
        self._lines = directory.file("metrics.jsonl")
        self._events = _event_writer(str(directory.folder("tensorboard")))
        self._last = (0, 0)
        self._evals = 0

    def write(self, view: View) -> None:
        """Everything since the last call."""
        for step in view.steps[-1000:]:
            if (step.epoch, step.step) > self._last:
                self._last = (step.epoch, step.step)
                self._write(step.step, step.ended_ms, _of_step(step), epoch=step.epoch, version=step.version)
        for evaluation in view.evals[self._evals :]:
            self._write(evaluation.step, evaluation.ended_ms, _of_evaluation(evaluation), version=evaluation.version)
        self._evals = len(view.evals)

    def close(self) -> None:
        """Flush and close."""
        if self._events is not None:
            self._events.close()

    def _write(self, step: int, at_ms: int, values: dict[str, float], **more: int) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": at_ms / 1000, **more, **values}) + "\n")
        if self._events is not None:
            self._events.add_event(_event(step, at_ms / 1000, values))


def _of_step(step: training_pb2.TrainStep) -> dict[str, float]:
    said = {"waited_s": step.waited_s, "computed_s": step.computed_s, "rollouts": float(len(step.uses))}
    return {f"step/{name}": value for name, value in sorted((dict(step.metrics) | said).items())}


def _of_evaluation(evaluation: control_pb2.Evaluation) -> dict[str, float]:
    return {f"eval/{evaluation.name}/{name}": value for name, value in sorted(evaluation.metrics.items())}


def _event_writer(folder: str) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    return EventFileWriter(folder)


def _event(step: int, at: float, values: dict[str, float]) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    return Event(wall_time=at, step=step, summary=summary)
