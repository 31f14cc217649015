"""What a person sees while a run goes on: a live view in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.config import Run
from pipeline.rundir import RunDir
from pipeline.topics import SERVICES
from pipeline.view import View
from sluice.v1 import control_pb2

LINE_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"


class Display:
    """Takes sentences and views. `live` is None where there is no terminal."""

    def __init__(self, run: Run, console: Console, live: Live | None) -> None:
        self.run, self.console, self.live = run, console, live
        self.rates = Rates()
        self._last_line = 0.0
        self._last_step = -1

    def say(self, sentence: str) -> None:
        """One line for people."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {sentence}", highlight=False)

    def show(self, view: View) -> None:
        """The run as it is now."""
        self.rates.add(view)
        if self.live is not None:
            self.live.update(screen(self.run, view, self.rates))
        elif time.monotonic() - self._last_line > LINE_EVERY_S and view.step != self._last_step:
            self._last_line, self._last_step = time.monotonic(), view.step
            self.say(line(self.run, view, self.rates))


class Rates:
    """Counters per second, from the two newest statuses of each worker."""

    def __init__(self) -> None:
        self._last: dict[str, control_pb2.WorkerStatus] = {}
        self._rate: dict[tuple[str, str], float] = {}
        self._waits: dict[str, dict[str, float]] = {}
        self._busy: dict[str, float] = {}

    def add(self, view: View) -> None:
        """Take in the newest statuses."""
        for name, status in view.workers.items():
            last = self._last.get(name)
            if last is not None and status.written_ms > last.written_ms + 400 and status.started_ms == last.started_ms:
                seconds = (status.written_ms - last.written_ms) / 1000
                self._blend(name, status, last, seconds)
                for counter, value in status.counters.items():
                    fresh = (value - last.counters.get(counter, 0.0)) / seconds
                    before = self._rate.get((name, counter), fresh)
                    self._rate[(name, counter)] = 0.6 * before + 0.4 * fresh
            if last is None or status.written_ms > last.written_ms + 400:
                self._last[name] = status

    def of(self, worker: str, counter: str) -> float:
        """Per second."""
        return self._rate.get((worker, counter), 0.0)

    def waits(self, worker: str) -> list[tuple[str, float]]:
        """(reason, share of the last seconds), longest first."""
        found = sorted(self._waits.get(worker, {}).items(), key=lambda item: -item[1])
        return [(reason, share) for reason, share in found if share > 0.02]

    def busy(self, worker: str) -> float:
        """Share of the last seconds at work."""
        return self._busy.get(worker, 0.0)

    def _blend(
        self, name: str, status: control_pb2.WorkerStatus, last: control_pb2.WorkerStatus, seconds: float
    ) -> None:
        before = self._waits.setdefault(name, {})
        for reason, total in status.waits_s.items():
            fresh = (total - last.waits_s.get(reason, 0.0)) / seconds
            before[reason] = 0.6 * before.get(reason, fresh) + 0.4 * fresh
        fresh = (status.busy_s - last.busy_s) / seconds
        self._busy[name] = 0.6 * self._busy.get(name, fresh) + 0.4 * fresh


@contextmanager
def display(run: Run, directory: RunDir, plain: bool) -> Iterator[Display]:
    """The display of one run."""
    console = Console()
    if plain or not sys.stdout.isatty():
        yield Display(run, Console(width=160, soft_wrap=True), None)
        return
    with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
        yield Display(run, console, live)
    console.print(f"[dim]{directory.path}[/dim]")


def line(run: Run, view: View, rates: Rates) -> str:
    """The run on one line."""
    step = view.steps[-1] if view.steps else None
    metrics = step.metrics if step else {}
    rollouts = sum(rates.of(status.worker_id, "rollouts") for status in view.of("generation"))
    newest = view.evaluation("during") or view.evaluation("before")
    held_out = f" held-out {_mean(newest):.2f}" if newest else ""
    return (
        f"step {view.step}/{run.learning.steps} accuracy {metrics.get('accuracy_mean', 0.0):.2f}{held_out} "
        f"lag {metrics.get('lag_mean', 0.0):.1f} {rollouts:.0f} rollouts/s; {waiting(view, rates)}"
    )


def waiting(view: View, rates: Rates) -> str:
    """Who waits for whom, in words: each service's longest wait of the last seconds."""
    said = []
    for service in SERVICES:
        for status in view.of(service)[:1]:
            said += [f"{service} waits for {reason}" for reason, _ in rates.waits(status.worker_id)[:1]]
    return ", ".join(said)


def screen(run: Run, view: View, rates: Rates) -> RenderableType:
    """The run as a panel."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1)
    head.add_column(ratio=1)
    head.add_row(_progress(run, view), _learning(view))
    return Panel(Group(head, _workers(view, rates)), title=f"sluice {run.run}", subtitle=waiting(view, rates) or None)


def _progress(run: Run, view: View) -> RenderableType:
    phase = control_pb2.Phase.Name(view.control.phase).removeprefix("PHASE_").lower()
    newest = view.evaluation("during")
    before = view.evaluation("before")
    grid = Table.grid(padding=(0, 1))
    grid.add_row("step", f"{view.step} of {run.learning.steps} ({phase})")
    grid.add_row("", ProgressBar(total=run.learning.steps, completed=view.step, width=32))
    grid.add_row("held-out before", f"{_mean(before):.3f}" if before else "-")
    grid.add_row("held-out now", f"{_mean(newest):.3f} (step {newest.step})" if newest else "-")
    grid.add_row("accuracy", _spark([step.metrics.get("accuracy_mean", 0.0) for step in view.steps[-48:]], 0.0, 1.0))
    return grid


def _learning(view: View) -> RenderableType:
    metrics = dict(view.steps[-1].metrics) if view.steps else {}
    lags = view.lag_histogram()
    total = sum(lags.values()) or 1
    grid = Table.grid(padding=(0, 1))
    for name in ("reward_mean", "loss", "grad_norm", "ess"):
        grid.add_row(name, f"{metrics.get(name, 0.0):.4g}")
    grid.add_row("lag", "  ".join(f"{lag}: {count / total:.0%}" for lag, count in sorted(lags.items())) or "-")
    grid.add_row("drops", ", ".join(f"{reason} {count}" for reason, count in view.drops.most_common(4)) or "none")
    return grid


def _workers(view: View, rates: Rates) -> RenderableType:
    table = Table("worker", "state", "version", "rate", "queue", "busy", "waits for", expand=True, box=None)
    for service in SERVICES:
        for status in view.of(service):
            table.add_row(*_row(status, rates))
    return table


def _row(status: control_pb2.WorkerStatus, rates: Rates) -> list[str]:
    speeds = [
        f"{rates.of(status.worker_id, name):.0f} {name}/s"
        for name in ("rollouts", "tokens", "verdicts", "requests", "steps")
        if name in status.counters
    ]
    queue = [
        f"{name} {value:.0f}"
        for name, value in sorted(status.gauges.items())
        if name in ("running", "backlog", "room", "buffered")
    ]
    state = control_pb2.WorkerState.Name(status.state).removeprefix("WORKER_STATE_").lower()
    return [
        status.worker_id,
        f"{state} {status.reason}".strip(),
        str(status.version),
        " ".join(speeds),
        " ".join(queue),
        f"{rates.busy(status.worker_id):.0%}",
        ", ".join(f"{reason} {share:.0%}" for reason, share in rates.waits(status.worker_id)[:2]),
    ]


def _rank(name: str) -> tuple[str, int]:
    kind, _, number = name.partition("@")
    return kind, int(number or 0)


def _mean(evaluation: control_pb2.Evaluation) -> float:
    return next((value for name, value in evaluation.metrics.items() if name.startswith("mean@")), 0.0)


def _spark(values: list[float], low: float, high: float) -> str:
    return "".join(BARS[min(7, int(8 * (value - low) / (high - low)))] for value in values)


def conclude(run: Run, directory: RunDir, summary: dict[str, Any], report: Path, reached: bool) -> None:
    """The table at the end."""
    console = Console()
    before, after = summary["eval_before"], summary["eval_after"]
    table = Table("held-out accuracy", "before", "after", title=f"{run.run}: {summary['steps']} steps")
    for name in sorted(
        (key for key in after if key not in ("unchecked", "prompts", "version", "tokens_mean")), key=_rank
    ):
        table.add_row(name, f"{before.get(name, float('nan')):.3f}", f"{after[name]:.3f}")
    if after:
        console.print(table)
    audit = summary["audit"]
    console.print(
        f"{summary['rollouts_trained']} rollouts in {summary['wall_s']:.0f} s ({summary['rollouts_per_s']:.0f}/s), "
        f"mean lag {summary['lag_mean']:.2f}, generation and learning at once {summary['overlap']:.0%} of the time",
        highlight=False,
    )
    console.print(
        f"audit: requested {audit['requested']}, trained {audit['trained']}, lost {audit['lost']}, "
        f"trained twice {audit['trained_twice']}, in flight {audit['in_flight']}",
        highlight=False,
    )
    if not reached:
        console.print(f"stopped at step {summary['steps']}; `sluice run` with the same directory goes on")
    console.print(f"report: {report}\nmodel:  {directory.folder('model')}", highlight=False)
