"""What the machine costs: the small job against a plain synchronous loop, and its CPU spent in log and codec.

The plain loop (`plain_loop.py`) has the same model, batch and loss in one process, no log and no services, and as many
threads as it is fastest with. With a verifier delay it waits for it after every batch, as a synchronous loop must. It
is timed before, between and after the runs of Sluice: these machines are slower for minutes at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline import config
from pipeline.data.register import prompts_of
from pipeline.rundir import RunDir
from tests.bench.runs import ROOT, SPELL, run
from tests.bench.table import machine, middle, table

STEPS = 60
DELAYS = (0.0, 0.1)


def main() -> str:
    """Two runs of Sluice and three plain loops around them; the table."""
    batch = 32 * 8
    loops_s, runs = [_plain_seconds_per_step()], []
    for delay in DELAYS:
        runs.append(run(verification__delay_s=delay, learning__steps=STEPS, evaluate__prompts=0, evaluate__every=0))
        loops_s.append(_plain_seconds_per_step())
    rows, shares = [], []
    for at, (delay, found) in enumerate(zip(DELAYS, runs, strict=True)):
        around = [batch / (seconds + delay) for seconds in loops_s[at : at + 2]]
        rate = found["rollouts_per_s"]
        rows.append([delay, rate, middle(around), f"{rate / max(around):.2f} to {rate / min(around):.2f}"])
        cpu, log = sum(found["cpu_s"].values()), sum(found["cpu_log_s"].values())
        shares.append([delay, cpu, log, f"{log / cpu:.1%}"])
    return "\n\n".join(
        [
            "# What the machine costs",
            f"The small job, {STEPS} steps of {batch} rollouts. {machine()}.",
            table(["verifier delay s", "sluice rollouts/s", "plain loop rollouts/s", "ratio"], rows),
            table(["verifier delay s", "CPU s of all services", "of it in log and codec", "share"], shares),
        ]
    )


def _plain_seconds_per_step() -> float:
    """Seconds of a step of the plain loop, on the job's own warm-started model."""
    with tempfile.TemporaryDirectory(prefix="sluice-plain-") as folder:
        job = config.load(SPELL)
        RunDir.make(folder, job)
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "services.learning.first_model", folder], cwd=ROOT, check=True
        )
        words = Path(folder, "words.jsonl")
        pairs = [(p.messages[-1].parts[0].text, p.check.answer) for p in prompts_of(job) if p.split == "train"]
        words.write_text("\n".join(json.dumps(pair) for pair in pairs))
        code = (
            "import json, sys, torch\n"
            "from tests.bench import plain_loop as p\n"
            "pairs = [tuple(json.loads(line)) for line in open(sys.argv[2])]\n"
            "rates = []\n"
            f"for threads in (1, {os.cpu_count()}):\n"
            "    torch.set_num_threads(threads)\n"
            "    rates.append(p.run(p.Policy(sys.argv[1]), pairs, 20 * 256, p.PlainLoop()))\n"
            "print(256 / max(rates))\n"
        )
        command = [sys.executable, "-W", "ignore", "-c", code, str(Path(folder, "base").resolve()), str(words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=900)
        return float(done.stdout.split()[-1])
