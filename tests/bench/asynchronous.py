"""Does asynchrony pay? The same job, seed and cores, `max_lag` 0 against 2, with long-tailed answers.

The task: spell a string of random letters backward. Lengths are lognormal (sigma 1), the longest at least eight times
the mean. Verdicts come at once, or 100 ms late. Equal rollouts; accuracy beside throughput.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import yaml

from tests.bench.runs import SPELL, accuracy, run
from tests.bench.table import machine, table

MEAN, LONGEST, STEPS = 5, 44, 30


def strings(count: int, seed: int) -> list[str]:
    """Distinct strings with lognormal lengths, 2 to `LONGEST` letters."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        length = min(LONGEST, max(2, round(rng.lognormvariate(1.1, 1.0))))
        found["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=length))] = None
    return list(found)


def write(file: Path, count: int, seed: int) -> list[int]:
    """A JSON lines file of them; their lengths."""
    words = strings(count, seed)
    rows = [{"question": word, "answer": word[::-1]} for word in words]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return [len(word) for word in words]


def main() -> str:
    """Four runs; the table."""
    with tempfile.TemporaryDirectory(prefix="sluice-async-") as folder:
        lengths = write(Path(folder, "train.jsonl"), 3000, 1)
        write(Path(folder, "examples.jsonl"), 6000, 2)
        file = _job(Path(folder))
        rows = []
        for delay in (0.0, 0.1):
            found = {lag: run(file, max_lag=lag, verification__delay_s=delay) for lag in (0, 2)}
            rows += [_row(delay, lag, found[lag], found[0]) for lag in (0, 2)]
    said = (
        f"Answers: mean {sum(lengths) / len(lengths):.1f} letters, longest {max(lengths)}. {STEPS} steps. {machine()}."
    )
    header = ["verifier delay s", "max_lag", "trained rollouts/s", "ratio", "accuracy after", "mean lag", "overlap"]
    return "\n\n".join(["# Does asynchrony pay?", said, table(header, rows)])


def _job(folder: Path) -> Path:
    tree = yaml.safe_load(SPELL.read_text())
    knobs = {"kind": "jsonl", "prompt": "question", "answer": "answer", "check": "exact"}
    tree["data"] = {"sources": [knobs | {"path": str(folder / "train.jsonl")}], "held_out": 256}
    tree["model"] |= {"context": 2 * LONGEST + 4}
    tree["model"]["warm_start"]["examples"] = knobs | {"path": str(folder / "examples.jsonl")}
    tree["generation"]["max_tokens"] = LONGEST + 2
    tree["learning"]["steps"] = STEPS
    tree["evaluate"] = {"every": 0, "prompts": 256, "samples": 4}
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def _row(delay: float, lag: int, summary: dict, synchronous: dict) -> list:
    rate = summary["rollouts_per_s"]
    ratio = rate / synchronous["rollouts_per_s"]
    after = accuracy(summary["eval_after"])
    return [delay, lag, rate, ratio, after, summary["lag_mean"], summary["overlap"]]
