"""Every sampler and budget on a simulated learner with known pass rates, at equal rollouts.

The learner. 10,000 prompts of 5 domains; pass rate of prompt q: sigmoid(skill + own_q - difficulty_q). First 20 %
pass at 0.95 or more, 40 % at 0.01 or less, the rest between. A group of n rollouts with k right teaches
n * (k / n) * (1 - k / n): the skill rises by that (shared by all prompts), and so does the prompt's own bonus. Own
bonuses drift by a random walk. A step spends 1,024 rollouts, and its outcomes are observed before the next; a run tries
each prompt 2.6 times on the average. The filter of DAPO throws groups without signal away and generates until the step
is full: what it throws away counts as spent.

Shown: share of informative groups, accuracy on 1,000 fixed held-out problems of the same difficulties after an equal
number of rollouts, and the rollouts to the accuracy that uniform ends with, as a share of uniform's (inf: on some seed
it never came there). The best sampler is tried with every budget. The best is chosen on five seeds and confirmed on
five others. A simulation says which parts use rollouts well, not what a model gains. `single_stream` learns nothing
here by construction: a group of one has k = 0 or k = n and teaches 0. Its rows say nothing of a real run, where its
baseline is the tracker's value.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pipeline import parts
from services.difficulty.estimate.beta import Beta
from services.difficulty.store import Store
from tests.bench.table import machine, table

PROMPTS, HELD_OUT, DOMAINS = 10_000, 1000, 5
GROUPS, N, STEPS = 128, 8, 200
LEARNED, OWN, DRIFT = 4e-4, 0.1, 0.02
CHOSEN, CONFIRMED = range(5), range(5, 10)
FILTER = "uniform + fixed + DAPO filter"
STAGES = {
    "curriculum_stages": {"steps_per_stage": STEPS // 3},
    "easy_to_hard": {"anneal_steps": 2 * STEPS // 3},
    "historical_variance": {"best": GROUPS},
}


def difficulties(rng: np.random.Generator, size: int) -> np.ndarray:
    """A fifth solved, two fifths hopeless, the rest between."""
    rate = np.concatenate([
        rng.uniform(0.95, 0.995, size // 5),
        rng.uniform(0.001, 0.01, 2 * size // 5),
        rng.uniform(0.01, 0.95, size - size // 5 - 2 * size // 5),
    ])  # fmt: skip
    return rng.permutation(-np.log(rate / (1 - rate)))


@dataclass
class Learner:
    """Known pass rates that training and drift move."""

    rng: np.random.Generator
    skill: float = 0.0
    own_P: np.ndarray = field(default_factory=lambda: np.zeros(PROMPTS))

    def __post_init__(self) -> None:
        fixed = np.random.default_rng(0)
        self.difficulty_P = difficulties(self.rng, PROMPTS)
        self.held_out_H = difficulties(fixed, HELD_OUT)

    def rates(self, rows: np.ndarray) -> np.ndarray:
        """True pass rates."""
        return 1 / (1 + np.exp(self.difficulty_P[rows] - self.skill - self.own_P[rows]))

    def accuracy(self) -> float:
        """On the held-out problems."""
        return float((1 / (1 + np.exp(self.held_out_H - self.skill))).mean())

    def train(self, rows: np.ndarray, right: np.ndarray, tried: np.ndarray) -> None:
        """One step on these groups."""
        signal = tried * (right / tried) * (1 - right / tried)
        self.skill += LEARNED * float(signal.sum())
        np.add.at(self.own_P, rows, OWN * signal / N)
        self.own_P += DRIFT * self.rng.normal(size=PROMPTS)


@dataclass
class Played:
    """One run."""

    informative: float
    spent: np.ndarray
    accuracy: np.ndarray

    def rollouts_to(self, wanted: float) -> float:
        """Rollouts spent when the accuracy was first reached; inf when it was not."""
        reached = np.flatnonzero(self.accuracy >= wanted)
        return float(self.spent[reached[0]]) if len(reached) else float("inf")


def played(ways: dict[str, tuple[str, str, bool]], seeds: range) -> dict[str, list[Played]]:
    """Every way on every seed, on all cores."""
    asked = [(*ways[way], seed) for way in ways for seed in seeds]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = iter(pool.map(play, *zip(*asked, strict=True)))
        return {way: [next(found) for _ in seeds] for way in ways}


def play(sampler_name: str, budget_name: str, filtered: bool, seed: int) -> Played:
    """A run of one sampler and one budget: STEPS * GROUPS * N rollouts."""
    rng = np.random.default_rng(seed)
    learner, store = Learner(rng), Store(Beta(), learner=True)
    rows_P = np.array([store.add(f"p{number}") for number in range(PROMPTS)])
    store.domains = {f"d{number}": number for number in range(DOMAINS)}
    store.columns["domain"][:PROMPTS] = np.argsort(np.argsort(learner.difficulty_P)) * DOMAINS // PROMPTS
    knobs = {} if sampler_name == "uniform" else {"uniform_share": 0.1} if sampler_name != "mmr1_vps" else {}
    sampler = parts.load("difficulty.sampler", sampler_name, **knobs, **STAGES.get(sampler_name, {}))
    budget = parts.load("difficulty.budget", budget_name, **({} if budget_name == "single_stream" else {"n": N}))
    spent, drawn, useful, groups, curve = 0, 0, 0, 0, []
    while spent < STEPS * GROUPS * N:
        store.step += 1
        store.checkpoint_step = store.step
        kept: list[np.ndarray] = []
        room = GROUPS * N
        while room >= budget.typical:
            view = store.view(rows_P, (), drawn, seed)
            chosen = sampler(view, budget.prompts(room) or room // budget.typical, rng)
            drawn += len(chosen)
            tried = budget(view.take(chosen), room)
            right = rng.binomial(tried, learner.rates(chosen))
            spent += int(tried.sum())
            told = (
                np.repeat(chosen, tried),
                np.concatenate([np.arange(t) < r for t, r in zip(tried, right, strict=True)]),
            )
            store.observe(told[0], told[1].astype(float), np.zeros(len(told[0]), int), np.zeros(len(told[0]), int))
            store.clean()
            informative = (right > 0) & (right < tried)
            useful, groups = useful + int(informative.sum()), groups + len(chosen)
            keep = informative if filtered else np.ones(len(chosen), bool)
            kept.append(np.stack([chosen[keep], right[keep], tried[keep]]))
            room -= int(tried[keep].sum()) if filtered else room
        learner.train(*np.concatenate(kept, axis=1))
        curve.append((spent, learner.accuracy()))
    return Played(useful / max(groups, 1), *np.array(curve).T)


def main() -> str:
    """Choose on five seeds, confirm on five others; the whole table."""
    budgets = [name for name in parts.names("difficulty.budget") if name != "fixed"]
    ways = {f"{name} + fixed": (name, "fixed", False) for name in parts.names("difficulty.sampler")}
    ways |= {f"uniform + {name}": ("uniform", name, False) for name in budgets}
    ways[FILTER] = ("uniform", "fixed", True)
    found = played(ways, CHOSEN)
    wanted = [played.accuracy[-1] for played in found["uniform + fixed"]]
    # Then the best sampler with every other budget.
    sampler = min((_row(way, found[way], wanted)[3], ways[way][0]) for way in ways if ways[way][1] == "fixed")[1]
    more = {f"{sampler} + {name}": (sampler, name, False) for name in budgets}
    ways, found = ways | more, found | played(more, CHOSEN)
    rows = sorted((_row(way, runs, wanted) for way, runs in found.items()), key=lambda row: (row[3], -row[2]))
    best = next(row[0] for row in rows if row[0] != FILTER)
    again = played({way: ways[way] for way in ("uniform + fixed", best, FILTER)}, CONFIRMED)
    end = [played.accuracy[-1] for played in again["uniform + fixed"]]
    header = ["what", "informative groups", "accuracy at the end", "rollouts to uniform's end, share"]
    said = f"{PROMPTS:,} prompts, {STEPS * GROUPS * N:,} rollouts a run, means of five seeds. {machine()}."
    return "\n\n".join([
        "# Samplers and budgets on a simulated learner", *(__doc__ or "").strip().split("\n\n")[1:], said,
        table(header, rows), f"Chosen: {best}. On five other seeds:",
        table(header, [_row(way, runs, end) for way, runs in again.items()]),
    ])  # fmt: skip


def _row(way: str, runs: list[Played], wanted: list[float]) -> list[object]:
    total = STEPS * GROUPS * N
    shares = [run.rollouts_to(goal) / total for run, goal in zip(runs, wanted, strict=True)]
    return [
        way,
        *(float(np.mean(each)) for each in ([r.informative for r in runs], [r.accuracy[-1] for r in runs], shares)),
    ]
