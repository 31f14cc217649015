"""Every recipe on one task of mixed difficulty: rollouts to a pass rate of 0.8, and the pass rate after one stream.

A policy of a few thousand weights answers a pair (a, b) with one or two tokens of eleven; right is the first token, by
the first number of the pair: an even one (a < 4, about half are right by chance), one of three (a < 7), or a itself.
The pass rate is exact: the probability of right answers to pairs that are never trained on. Each recipe samples, checks
and trains in one process, with one optimiser rate for all. Then all of them learn, off-policy, from one stream that
GRPO's policy sampled while it learned: what `sluice relearn` does with a recorded run.

SEEDS=0-2 RECIPES=grpo,dapo make bench-recipes      some of them
KEEP=FOLDER make bench-recipes    goes on where a run of the same tree and seeds that kept its rows there was broken off
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from pipeline.recipe import load_recipe, shipped
from tests.bench.table import machine, table
from tests.services.learning.learning_world import HELD_OUT, OnLine

STEPS, ROLLOUTS, REACHED, EVERY, LR = 100, 64, 0.8, 4, 1e-2
STREAM_STEPS = 40
PICTURE = Path(__file__).parents[2] / "docs" / "bench" / "recipes.svg"


class Mixed(OnLine):
    """The learning world with three kinds of pairs."""

    def __init__(self, recipe: str, seed: int, steps: int = STEPS) -> None:
        super().__init__(recipe, seed, steps=steps, rollouts=ROLLOUTS, lr=LR)
        self.stream: list[list[tuple[str, Any]]] = []

    def right(self, pair: tuple[int, int], tokens: list[int]) -> bool:
        return tokens[0] in answers(pair)

    @torch.no_grad()
    def rate(self) -> float:
        """Probability of a right answer, mean over pairs that are never asked."""
        share_CV = self.model(torch.tensor(HELD_OUT)).logits[:, -1].softmax(-1)
        return fmean(float(share_CV[i, answers(pair)].sum()) for i, pair in enumerate(HELD_OUT))

    def reach(self) -> int | None:
        """Rollouts sampled until the pass rate is `REACHED`; None when the steps end before."""
        sampled = 0
        while self.learner.step < self.steps and sampled < 2 * self.steps * ROLLOUTS:
            for nouns in self.sample():
                sampled += self.size
                self.take(nouns)
            if sampled % (EVERY * ROLLOUTS) == 0 and self.rate() >= REACHED:
                return sampled
        return None

    def record(self) -> list[list[tuple[str, Any]]]:
        """Every group that was sampled while it learned."""
        found = []
        while self.learner.step < self.steps:
            groups = list(self.sample())
            for nouns in groups:
                found.append(nouns)
                self.take(copied(nouns))
        return found

    def relearn(self, stream: Sequence[Sequence[tuple[str, Any]]]) -> float:
        """The pass rate after learning from a stream that another policy sampled."""
        for nouns in stream:
            self.take(copied(nouns))
        for _ in self.learner.end():
            pass
        return self.rate()


def answers(pair: tuple[int, int]) -> list[int]:
    """First tokens that are right."""
    a = pair[0]
    return [0, 2, 4, 6, 8, 10] if a < 4 else [a - 1, a, a + 1] if a < 7 else [a]


def copied(nouns: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The nouns again: who learns from them may mark them."""
    found = []
    for topic, noun in nouns:
        own = type(noun)()
        own.CopyFrom(noun)
        found.append((topic, own))
    return found


def main() -> str:
    """Run them all; the table. The picture is written beside it."""
    first, _, last = os.environ.get("SEEDS", "0-2").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    names = os.environ.get("RECIPES", "").split(",") if os.environ.get("RECIPES") else shipped()
    start = time.monotonic()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_row, names, [seeds] * len(names)))
    before = fmean(Mixed("grpo", seed).rate() for seed in seeds)
    rows = sorted(found, key=lambda row: (-row[2], row[3] or 1e9, -row[5]))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(rows))
    shown = [[*row[:2], f"{row[2]} of {len(seeds)}", _count(row[3]), _spread(row[4]), f"{row[5]:.2f}"] for row in rows]
    header = ["recipe", "confidence", "reached", "rollouts to 0.8", "each seed", "after the stream"]
    return "\n\n".join(
        [
            "# Every recipe on one task of mixed difficulty",
            f"Pass rate {before:.2f} at first; at most {STEPS} steps of {ROLLOUTS} rollouts, {len(seeds)} seeds, AdamW "
            f"at {LR:g} (the recipe's own optimiser where it has another, at that rate). `-`: not in these steps; a "
            "recipe that leaves rollouts out samples more of them a step. After the stream: pass rate after "
            f"{len(_stream())} groups of 8 that GRPO sampled over {STREAM_STEPS} steps, seed {seeds[0]}. Methods of "
            "several turns, demonstrations or special rewards act as what they stand on here. "
            f"{machine()}" + ("." if os.environ.get("KEEP") else f", {(time.monotonic() - start) / 60:.0f} minutes."),
            "![rollouts to a pass rate of 0.8](recipes.svg)",
            table(header, shown),
        ]
    )


@lru_cache(maxsize=1)
def _stream() -> list[list[tuple[str, Any]]]:
    """What every recipe learns from again: the same in every process."""
    return Mixed("grpo", 100, STREAM_STEPS).record()


def _row(name: str, seeds: Sequence[int]) -> list[Any]:
    """Name, confidence, seeds that reached it, their median rollouts, each seed's, pass rate after the stream."""
    keep = Path(os.environ.get("KEEP") or os.devnull) / f"{name}.json"
    if keep.is_file():
        return json.loads(keep.read_text())
    row = _learn(name, seeds)
    if keep.parent.is_dir():
        keep.write_text(json.dumps(row))
    return row


def _learn(name: str, seeds: Sequence[int]) -> list[Any]:
    torch.set_num_threads(1)
    each = [Mixed(name, seed).reach() for seed in seeds]
    reached = [one for one in each if one is not None]
    after = Mixed(name, seeds[0], steps=1 << 30).relearn(_stream())
    print(name, each, round(after, 3), file=sys.stderr, flush=True)
    return [name, load_recipe(name).confidence, len(reached), median(reached) if reached else None, each, after]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _spread(each: Sequence[int | None]) -> str:
    return ", ".join(_count(one) for one in each)


def picture(rows: Sequence[Sequence[Any]]) -> str:
    """Dots: rollouts of each seed, on a logarithmic scale; a cross where a seed did not get there."""
    left, right, step = 190, 700, 13
    values = [value for row in rows for value in row[4] if value is not None] or [ROLLOUTS]
    least = 2 ** int(math.log2(min(values)))
    most = max(STEPS * ROLLOUTS, *values)

    def across(x: float) -> float:
        return left + (right - left) * math.log(x / least) / math.log(most / least)

    height = step * len(rows) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="760" height="{height}" fill="white"/>',
        f'<text x="{left}" y="14" font-size="12">rollouts to a pass rate of {REACHED} (x: not in {STEPS} steps)</text>',
    ]
    marks = [x for power in range(6, 14) for x in (2**power, 3 * 2 ** (power - 1)) if least <= x <= most]
    for x in marks:
        lines.append(f'<line x1="{across(x):.0f}" x2="{across(x):.0f}" y1="34" y2="{height - 10}" stroke="#ddd"/>')
        lines.append(f'<text x="{across(x):.0f}" y="30" text-anchor="middle">{x:,}</text>')
    for i, (name, _, _, _, each, _) in enumerate(rows):
        y = 46 + i * step
        lines.append(f'<text x="{left - 8}" y="{y + 3}" text-anchor="end">{name}</text>')
        for value in each:
            if value is None:
                lines.append(f'<text x="{right + 14}" y="{y + 3}" fill="#b03030">x</text>')
            else:
                lines.append(f'<circle cx="{across(value):.0f}" cy="{y}" r="3" fill="#2060a0" fill-opacity="0.6"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"
