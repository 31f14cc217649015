"""Which plots a report has: from a run's data to titled plots, each with what it shows in one sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report import svg
from pipeline.report.data import RunData
from pipeline.report.second_looks import decided
from pipeline.report.svg import Line, Stack, percent
from pipeline.topics import SERVICES
from sluice.v1 import control_pb2

COLUMNS = 40
"""Most columns in a plot over steps or time."""

BINS = 10
"""Bins of the calibration plot."""

LOOKS_PER_POINT = 20
"""Fewest second looks that make one point."""

LAG_CLASSES = 5
"""Lags drawn on their own: 0, 1, 2, 3, and everything above as one."""


@dataclass(frozen=True)
class Chart:
    """A titled plot. `legend`: (name, CSS colour) where there is more than one series."""

    title: str
    note: str
    plot: Markup
    legend: tuple[tuple[str, str], ...] = ()


def charts(data: RunData) -> list[Chart]:
    """Every plot that the run has data for, in reading order."""
    kinds = (accuracy, hidden, waits, lags, throughput, drops, difficulty, calibration)
    return [chart for kind in kinds if (chart := kind(data)) is not None]


def accuracy(data: RunData) -> Chart | None:
    """Training reward and held-out accuracy over steps."""
    series = [Line("trained rollouts", smoothed(data.accuracy), colour(1))] if data.accuracy else []
    held_out = sorted({one.step: mean_of(one) for one in data.evals if one.temperature and is_run_own(one)}.items())
    if held_out:
        series.append(Line("held-out problems", held_out, colour(2), dots=True))
    if not series:
        return None
    note = "Share of answers that are right. Trained rollouts: mean of the last five steps. Held-out: never trained on."
    return Chart("Accuracy", note, svg.lines(series, "step", percent, top=1.0), _legend(series))


def hidden(data: RunData) -> Chart | None:
    """What the check accepts and what the stronger one does, over the run's second looks."""
    pairs = decided(data.looked)
    size = max(LOOKS_PER_POINT, -(-len(pairs) // COLUMNS))
    windows = [pairs[at : at + size] for at in range(0, len(pairs) - size + 1, size)]
    if len(windows) < 2:
        return None
    drawn = [
        Line(name, [((n + 1) * size, sum(p[i] for p in w) / size) for n, w in enumerate(windows)], colour(i + 1))
        for i, name in enumerate(("the run's check", "the hidden check"))
    ]
    note = (
        f"Share of answers accepted, of each {size} that both looked at. Where the lines part, the reward may be gamed."
    )
    return Chart("Reward and hidden check", note, svg.lines(drawn, "second looks", percent, top=1.0), _legend(drawn))


def waits(data: RunData) -> Chart | None:
    """Who waits for whom: shares of each service's time."""
    services = [service for service in SERVICES if any(worker.service == service for worker in data.workers)]
    shares = {service: time_shares([w for w in data.workers if w.service == service]) for service in services}
    order: Counter[str] = Counter()
    for share in shares.values():
        order.update({name: value for name, value in share.items() if name not in ("busy", "other")})
    named = [name for name, _ in order.most_common(6)]
    rest = {service: sum(v for n, v in share.items() if n not in ("busy", *named)) for service, share in shares.items()}
    if not shares:
        return None
    layers = [Stack("busy", [share.get("busy", 0.0) for share in shares.values()], colour(1))]
    layers += [
        Stack(f"waits: {n}", [s.get(n, 0.0) for s in shares.values()], colour(2 + i)) for i, n in enumerate(named)
    ]
    layers += [Stack("other", list(rest.values()), "var(--muted)")]
    note = "Share of each service's time, all its workers together."
    return Chart("Who waits for whom", note, svg.bars(layers, list(shares), percent, 1.0), _legend(layers))


def lags(data: RunData) -> Chart | None:
    """Lag of what was trained on, over steps."""
    steps = [step for step in data.steps if step.uses]
    if not steps:
        return None
    groups = _cut(steps)
    counts = [Counter(min(int(use.lag), LAG_CLASSES - 1) for step in group for use in step.uses) for group in groups]
    layers = [
        Stack(_lag_name(lag), [count[lag] / count.total() for count in counts], f"var(--lag{lag})")
        for lag in range(LAG_CLASSES)
        if any(count[lag] for count in counts)
    ]
    note = "Versions between the policy that sampled a rollout and the one that was trained on it, rounded down."
    labels = [str(group[0].step) for group in groups]
    return Chart("Lag of what was trained on", note, svg.columns(layers, labels, "step", percent, 1.0), _legend(layers))


def throughput(data: RunData) -> Chart | None:
    """Tokens sampled per second, over the run's time."""
    if len(data.sampled) < 2:
        return None
    ends = [end for end, _ in data.sampled]
    first, wall = min(ends), max(max(ends) - min(ends), 1e-3)
    count = min(COLUMNS, max(1, int(wall)))
    tokens = [0.0] * count
    for end, sampled in data.sampled:
        tokens[min(count - 1, int((end - first) / wall * count))] += sampled * count / wall
    labels = [svg.compact(round(i * wall / count)) for i in range(count)]
    plot = svg.columns([Stack("tokens per second", tokens, colour(1))], labels, "seconds since the first rollout ended")
    return Chart("Throughput", "Tokens sampled per second, all generation workers together.", plot)


def drops(data: RunData) -> Chart | None:
    """Rollouts that were not trained on, by reason."""
    counts = sorted(data.summary.get("drops", {}).items(), key=lambda item: -item[1])
    if not counts:
        return None
    layer = Stack("rollouts", [float(count) for _, count in counts], colour(1))
    labels = [f"{reason}: {count:,}" for reason, count in counts]
    return Chart("Drops", "Rollouts that ended without being trained on, by reason.", svg.bars([layer], labels))


def difficulty(data: RunData) -> Chart | None:
    """What the difficulty service believed of the prompts, over steps."""
    if not data.landscape:
        return None
    size = len(data.landscape[0][1])
    layers = [
        Stack(f"{i / size:.0%} to {(i + 1) / size:.0%}", [shares[i] for _, shares in data.landscape], f"var(--lag{i})")
        for i in range(size)
    ]
    labels = [str(step) for step, _ in data.landscape]
    note = "Share of the prompts tried by then whose posterior mean of the pass rate lies there."
    plot = svg.columns(layers, labels, "step", percent, 1.0)
    return Chart("How hard the prompts seem", note, plot, _legend(layers))


def calibration(data: RunData) -> Chart | None:
    """What was believed of rollouts when they were asked for, against what came back."""
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for predicted, observed in data.predictions:
        bins[min(int(predicted * BINS), BINS - 1)].append((predicted, observed))
    if not bins:
        return None
    points = [
        (sum(predicted for predicted, _ in group) / len(group), sum(observed for _, observed in group) / len(group))
        for _, group in sorted(bins.items())
    ]
    series = [
        Line("as believed", [(0.0, 0.0), (1.0, 1.0)], "var(--muted)"),
        Line("what came back", points, colour(1), dots=True),
    ]
    brier = sum((predicted - observed) ** 2 for predicted, observed in data.predictions) / len(data.predictions)
    note = (
        "Mean accuracy of rollouts by the pass rate believed when they were asked for, in tenths. "
        f"Brier score {brier:.3f} over {len(data.predictions):,} rollouts."
    )
    plot = svg.lines(series, "believed pass rate", percent, top=1.0)
    return Chart("Is what is believed true?", note, plot, _legend(series))


def time_shares(workers: Iterable[control_pb2.WorkerStatus]) -> dict[str, float]:
    """Shares of the workers' time: busy, each reason to wait, and "other" for what neither accounts for; sum 1.

    Several waits may overlap, and work may go on while something is waited for: what sums to more than the time is
    scaled down to it.
    """
    seconds: dict[str, float] = defaultdict(float)
    lived = 0.0
    for worker in workers:
        lived += max(0.0, (worker.written_ms - worker.started_ms) / 1e3)
        seconds["busy"] += worker.busy_s
        for reason, waited in worker.waits_s.items():
            seconds[reason] += waited
    known = sum(seconds.values())
    whole = max(lived, known)
    if not whole:
        return {}
    return {name: value / whole for name, value in seconds.items()} | {"other": (whole - known) / whole}


def smoothed(points: Sequence[tuple[int, float]], last: int = 5) -> list[tuple[float, float]]:
    """Mean of each value and up to `last - 1` before it.

    >>> smoothed([(1, 0.0), (2, 1.0), (3, 0.5)], last=2)
    [(1, 0.0), (2, 0.5), (3, 0.75)]
    """
    windows = [points[max(0, i + 1 - last) : i + 1] for i in range(len(points))]
    return [(window[-1][0], sum(value for _, value in window) / len(window)) for window in windows]


def mean_of(evaluation: control_pb2.Evaluation) -> float:
    """Its mean accuracy: mean@n for whatever n it has, else pass@1."""
    named = [value for name, value in sorted(evaluation.metrics.items()) if name.startswith("mean@")]
    return named[0] if named else evaluation.metrics.get("pass@1", 0.0)


def is_run_own(evaluation: control_pb2.Evaluation) -> bool:
    """One of the evaluations on the run's own held-out problems, before, during or after it."""
    return evaluation.name.split()[0] in ("before", "during", "after") if evaluation.name else False


def colour(number: int) -> str:
    """The CSS variable of a series, from 1."""
    return f"var(--series{number})"


def _cut(steps: Sequence) -> list[Sequence]:
    size = -(-len(steps) // COLUMNS)
    return [steps[i : i + size] for i in range(0, len(steps), size)]


def _lag_name(lag: int) -> str:
    return f"lag {lag}" if lag < LAG_CLASSES - 1 else f"lag {lag} or more"


def _legend(series: Sequence[Line | Stack]) -> tuple[tuple[str, str], ...]:
    shown = [one for one in series if isinstance(one, Line) or any(value > 0 for value in one.values)]
    return tuple((one.name, one.colour) for one in shown) if len(shown) > 1 else ()
