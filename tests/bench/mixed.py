"""Does it pay? The real job on problems of mixed difficulty: uniform, uniform with DAPO's filter, and chosen samplers.

The task: spell a string of letters backward. A fifth of the problems has two letters (the warm start solves them), two
fifths ten to twelve (never solved), the rest four to six, where the warm start has slips in half of its examples. The
held-out problems are of the same mixture, other strings, and the same for every way of one seed. Each run samples about
as many rollouts; every rollout that was generated counts, the filtered ones and those in flight among them.

    reached    rollouts until the held-out accuracy, as the mean of three evaluations, first comes to the goal: what
               uniform has gained over its start by its end, nine tenths of it, on the same seed
    share      that, divided by uniform's on the same seed; inf where it never came there
    of means   the same of two curves, each the mean over the seeds, with the goal of uniform's: one seed's share is
               anything between half and twice the median, and this has about half of that noise

SEEDS=0-4 WAYS=uniform,vade_thompson,uniform+knapsack make bench
    which seeds (default 0-2), and which ways: SAMPLER, then +BUDGET, +ESTIMATOR and +filter where wanted, each with
    :KNOB=VALUE where wanted; `filter` is uniform+filter; `all` stands for every sampler but
    `historical_variance` (it trains on a few prompts) and every budget but `single_stream` (its groups of one have no
    signal for the filter)
LR=2.5e-4 make bench
    another learning rate (default 2.5e-4, at which uniform gains most), the same for every way
KEEP=FOLDER make bench
    goes on where a bench of the same tree that kept its curves there was broken off
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from statistics import mean, median
from typing import Any

import numpy as np
import yaml

from pipeline import config, parts, records
from pipeline.base_model import get_model
from pipeline.log.api import read_all
from pipeline.report.charts import mean_of
from pipeline.rundir import RunDir
from pipeline.view import View
from sluice.v1 import rollout_pb2
from tests.bench.runs import SPELL, ran
from tests.bench.table import machine, table

TRAIN, HELD_OUT = 480, 240
GROUPS, N, ROLLOUTS = 12, 8, 14_400
EVERY_ROLLOUTS = 960
DEFAULT = "uniform,filter,vade_thompson,vade_thompson+filter"
TARGET = {"uniform": 0.6, "filter": 0.85}


@dataclass(frozen=True)
class Curve:
    """One run: (rollouts generated so far, held-out accuracy) in order, and the share of groups with signal."""

    points: tuple[tuple[float, float], ...]
    informative: float

    def smoothed(self) -> list[tuple[float, float]]:
        """Means of three evaluations, at the last one's rollouts."""
        points = self.points
        return [(points[i][0], mean(a for _, a in points[max(0, i - 2) : i + 1])) for i in range(len(points))]

    def reached(self, goal: float) -> float | None:
        """Rollouts at which the smoothed accuracy first comes to the goal."""
        return crossing(self.smoothed(), goal)

    @property
    def goal(self) -> float:
        """Nine tenths of what was gained from the first evaluation to the end."""
        return goal_of(self.smoothed())


def crossing(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Rollouts at which the accuracy first comes to the goal, between two evaluations by a line; None: never."""
    before = None
    for spent, accuracy in points:
        if accuracy >= goal:
            if before is None or accuracy == before[1]:
                return spent
            return before[0] + (goal - before[1]) / (accuracy - before[1]) * (spent - before[0])
        before = (spent, accuracy)
    return None


def goal_of(points: Sequence[tuple[float, float]]) -> float:
    """Nine tenths of what was gained from the first point to the last."""
    return points[0][1] + 0.9 * (points[-1][1] - points[0][1])


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """The mean of smoothed curves at the same rollouts, up to where the shortest ends."""
    each = [np.array(curve.smoothed()) for curve in curves]
    grid = np.arange(0.0, min(points[-1, 0] for points in each) + 1, EVERY_ROLLOUTS / 4)
    means = np.mean([np.interp(grid, points[:, 0], points[:, 1]) for points in each], axis=0)
    return list(zip(grid.tolist(), means.tolist(), strict=True))


def main() -> str:
    """Every way on every seed; the table."""
    first, _, last = os.environ.get("SEEDS", "0-2").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    ways = _ways(os.environ.get("WAYS", DEFAULT))
    with tempfile.TemporaryDirectory(prefix="sluice-mixed-") as folder:
        jobs = {seed: _job(Path(folder), seed) for seed in seeds}
        curves = _each_on_a_core([(jobs[seed], way, seed) for way in ways for seed in seeds])
        found = {way: {seed: next(curves) for seed in seeds} for way in ways}
    measured = {way: _row(way, found, seeds) for way in ways}
    header = ["way", "groups with signal", "accuracy before", "after", "rollouts to the goal", "share of uniform's"]
    header.append("of means: of uniform's")
    if "filter" in ways:
        header += ["share of the filter's", "of means: of the filter's"]
        share, of_means = measured["filter"][5:7]
        measured = {way: [*row, row[5] / share, row[6] / of_means] for way, row in measured.items()}
    rows = sorted(measured.values(), key=lambda row: row[6])
    asked = f"{TRAIN} problems, {HELD_OUT} held out, {ROLLOUTS:,} rollouts a run"
    said = f"{asked}, seeds {list(seeds)}; medians. {machine()}."
    return "\n\n".join(
        ["# The real job on problems of mixed difficulty", *(__doc__ or "").strip().split("\n\n")[1:3], said,
         table(header, rows), _verdict(rows)]
    )  # fmt: skip


def _each_on_a_core(runs: list[tuple[Path, str, int]]) -> Iterator[Curve]:
    """Curves in the order of the runs, made as many at a time as there are cores."""
    cores: Queue[int] = Queue()
    for core in os.sched_getaffinity(0):
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize(), initializer=lambda: os.sched_setaffinity(0, {cores.get()})) as pool:
        yield from list(pool.map(_kept, *zip(*runs, strict=True)))


def _verdict(rows: list[list[Any]]) -> str:
    best = next((row for row in rows if row[0] not in TARGET), rows[0])
    told = [f"{best[0]}, share and share of means, wanted at most"]
    for name, at in zip(TARGET, range(5, len(best), 2), strict=False):
        found = " and ".join(
            f"{share:.2f} {'reached' if share <= TARGET[name] else 'missed'}" for share in best[at : at + 2]
        )
        told.append(f"{TARGET[name]} of {name}'s: {found}")
    return "; ".join(told)


def _ways(named: str) -> list[str]:
    """The ways of a comma-separated list, uniform first; `all` is every sampler and every budget, and the filter."""
    samplers = [name for name in parts.names("difficulty.sampler") if name != "historical_variance"]
    budgets = [name for name in parts.names("difficulty.budget") if name not in ("fixed", "single_stream")]
    every = ["filter", *samplers, *(f"uniform+{name}" for name in budgets)]
    given = [every if way == "all" else [way] for way in named.split(",")]
    return list(dict.fromkeys(["uniform", *itertools.chain(*given)]))


def words(rng: random.Random, count: int) -> list[str]:
    """Distinct strings of letters: a fifth of two, two fifths of ten to twelve, the rest of four to six."""
    sizes = [(2, 2)] * (count // 5) + [(10, 12)] * (2 * count // 5)
    sizes += [(4, 6)] * (count - len(sizes))
    found: dict[str, None] = {}
    for low, high in sizes:
        size = len(found) + 1
        while len(found) < size:
            found["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(low, high)))] = None
    return list(found)


def examples(rng: random.Random, count: int) -> list[dict[str, str]]:
    """Solved problems of two to six letters; of those of four and more half carry a slip."""
    found = []
    for _ in range(count):
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.choice((2, 4, 5, 6))))
        right = word[::-1]
        slips = (right[:-1], right[0] + right, right[:-2] + right[-1] + right[-2])
        slipped = len(word) > 2 and rng.random() < 0.5
        found.append({"question": word, "answer": rng.choice(slips) if slipped else right})
    return found


def _write(file: Path, rows: list[dict[str, str]]) -> dict[str, str]:
    file.write_text("\n".join(map(json.dumps, rows)))
    return {"kind": "jsonl", "path": str(file), "prompt": "question", "answer": "answer", "check": "exact"}


def _job(folder: Path, seed: int) -> Path:
    rng = random.Random(f"mixed {seed}")
    asked = [{"question": word, "answer": word[::-1]} for word in words(rng, TRAIN + HELD_OUT)]
    tree = yaml.safe_load(SPELL.read_text())
    tree["seed"] = seed
    tree["data"] = {"sources": [_write(folder / f"train-{seed}.jsonl", asked)], "held_out": HELD_OUT}
    shown = _write(folder / f"examples-{seed}.jsonl", examples(random.Random(f"shown {seed}"), 12_000))
    tree["model"]["warm_start"] |= {"examples": shown, "slip_share": 0.0, "slips": [], "enough": 1.0}
    tree["generation"]["max_tokens"] = 14
    tree["recipe"]["optimizer"] = {"name": "adamw", "beta2": 0.99}
    tree["learning"] |= {"batch_groups": GROUPS, "checkpoint_every": 50, "lr": float(os.environ.get("LR", 2.5e-4))}
    file = folder / f"job-{seed}.yaml"
    file.write_text(yaml.safe_dump(tree))
    get_model(RunDir.make(file.with_suffix(""), config.parse(tree)))
    return file


def _model_of(job: Path, directory: Path) -> AbstractContextManager[None]:
    """Puts the seed's model into a run's directory, before the run would make it again."""
    shutil.copytree(job.with_suffix("") / "base", directory / "base")
    return nullcontext()


def _kept(job: Path, way: str, seed: int) -> Curve:
    """The run's curve, or the one that an earlier sitting left in $KEEP."""
    keep = Path(os.environ.get("KEEP") or os.devnull) / f"mixed-{way}-{seed}.json"
    if keep.is_file():
        points, informative = json.loads(keep.read_text())
        return Curve(tuple((spent, accuracy) for spent, accuracy in points), informative)
    curve = _curve(job, way, seed)
    if keep.parent.is_dir():
        keep.write_text(json.dumps([curve.points, curve.informative]))
    return curve


def _curve(job: Path, way: str, seed: int) -> Curve:
    sampler, *more = ("uniform+filter" if way == "filter" else way).split("+")
    per_step, filtered = GROUPS * N, "filter" in more
    tree = yaml.safe_load(job.read_text())
    recipe = tree["recipe"] | {"select": ["informative_groups"]} if filtered else tree["recipe"]
    # The filter's steps take about 2.5 times as many rollouts: fewer of them, evaluated as often by rollouts.
    slower = 2.5 if filtered else 1.0
    difficulty: dict[str, Any] = {"sampler": _part(sampler)}
    if difficulty["sampler"]["name"] != "uniform":
        difficulty["sampler"] |= {"uniform_share": 0.1}
    for part in (_part(each) for each in more if each != "filter"):
        estimates = part["name"] in parts.names("difficulty.estimate")
        difficulty |= {"estimate": part} if estimates else {"budget": part | {"n": N}}
    steps, every = round(ROLLOUTS / per_step / slower), max(1, round(EVERY_ROLLOUTS / per_step / slower))
    evaluate = {"every": every, "prompts": HELD_OUT, "prompts_during": HELD_OUT, "samples": 2}
    sets = {"recipe": recipe, "difficulty": difficulty, "learning__steps": steps, "evaluate": evaluate}
    with ran(job, partial(_model_of, job), **sets) as (_, directory):
        found = curve_of(directory)
    print(way, seed, found, file=sys.stderr, flush=True)
    return found


def _part(text: str) -> dict[str, Any]:
    """NAME:KNOB=VALUE:... as the run file has it."""
    name, *knobs = text.split(":")
    return {"name": name} | {knob: yaml.safe_load(value) for knob, _, value in (each.partition("=") for each in knobs)}


def curve_of(directory: RunDir) -> Curve:
    """A run's evaluations by the rollouts that were generated when their version was made."""
    log, names = directory.open_log(), directory.names()
    try:
        view, topic = View(), names.topic
        for record in (*read_all(log, topic("steps")), *read_all(log, topic("evals"))):
            view.add(records.decode(record))
        rollouts = [records.decode_as(rollout_pb2.Rollout, each) for each in read_all(log, topic("rollouts"))]
        verdicts = [records.decode_as(rollout_pb2.Verdict, each) for each in read_all(log, topic("verdicts"))]
    finally:
        log.close()
    ended = np.sort([rollout.timings.ended_ms for rollout in rollouts])
    made = {step.version: step.ended_ms for step in view.steps}
    points = sorted(
        (float(np.searchsorted(ended, made.get(one.version, 0), "right")), mean_of(one))
        for one in view.evals
        if one.temperature
    )
    groups: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.key.request_id].append(verdict.accuracy)
    return Curve(tuple(points), mean(max(group) > min(group) for group in groups.values()))


def _row(way: str, found: dict[str, dict[int, Curve]], seeds: Sequence[int]) -> list[Any]:
    curves = [found[way][seed] for seed in seeds]
    uniform = [found["uniform"][seed] for seed in seeds]
    spent = [c.reached(u.goal) or math.inf for c, u in zip(curves, uniform, strict=True)]
    shares = [each / (u.reached(u.goal) or 1) for each, u in zip(spent, uniform, strict=True)]
    never = sum(c.reached(u.goal) is None for c, u in zip(curves, uniform, strict=True))
    return [
        f"{way} (never on {never} of {len(seeds)} seeds)" if never else way,
        median(curve.informative for curve in curves),
        median(curve.points[0][1] for curve in curves),
        median(curve.smoothed()[-1][1] for curve in curves),
        median(spent),
        median(shares),
        _of_means(curves, uniform),
    ]


def _of_means(curves: Sequence[Curve], uniform: Sequence[Curve]) -> float:
    base = mean_curve(uniform)
    goal = goal_of(base)
    return (crossing(mean_curve(curves), goal) or math.inf) / (crossing(base, goal) or 1)
