"""How fast verification is: math against bare math-verify, programs against `subprocess.run`, the service's overhead.

All in one run, turn by turn, so that a slow moment of the machine meets both sides. Math: answers of the project's own
table, one worker process, against math-verify in a plain loop on the same texts. Programs: `print(1)`.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from services.verification.checker import Checker, Question
from services.verification.pool import Pool
from services.verification.sandbox import Limits
from services.verification.sandbox.jail import Jail
from services.verification.worker import Job, run
from sluice.v1 import prompt_pb2
from tests.bench.table import machine, middle, table

ROUNDS, PROGRAMS, FRESH = 5, 60, 8
VERDICTS, HANGING = 10_000, 0.05
TABLE = Path(__file__).parents[1] / "services" / "verification" / "check" / "math_pairs.txt"


def main() -> str:
    """All of it; the table."""
    rows = [*math_rows(), *program_rows(), overhead_row(), *hanging_rows()]
    said = f"Median of {ROUNDS} rounds, interleaved. {machine()}."
    return "\n\n".join(["# Verification", said, table(["what", "rate or time", "ratio", "target"], rows)])


def numbers() -> list[tuple[str, str]]:
    """(expected, said) of the table's kinds that a training run is made of."""
    pairs = re.findall(r"^(\S[^=!\n]*?) (?:==|!=) (.*)$", TABLE.read_text(), re.MULTILINE)
    found = [(gold, said.strip()) for gold, answers in pairs for said in answers.split(" || ")]
    return [one for one in found if re.fullmatch(r"[\d\s\\{}a-z/.+*^()-]+", "".join(one))][:300]


def math_rows() -> list[list[object]]:
    """Math checks per second of one worker, and of math-verify in a loop."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    pairs = numbers()
    jobs = [Job("{}", said, "math", gold, "") for gold, said in pairs]
    pool = Pool(workers=1)
    pool.run(jobs)

    def bare() -> None:
        for gold, said in pairs:
            verify(
                parse(f"${gold}$", parsing_timeout=None), parse(f"${said}$", parsing_timeout=None), timeout_seconds=None
            )

    bare()
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(len(pairs) / seconds(bare))
        ours.append(len(pairs) / seconds(lambda: pool.run(jobs)))
    pool.close()
    return [
        ["math-verify in a loop, answers/s", middle(theirs), 1.0, ""],
        ["math checks of one worker, answers/s", middle(ours), median(ours) / median(theirs), ">= 0.9"],
    ]


def program_rows() -> list[list[object]]:
    """Programs per second: a Python each, a reused jail, a jail each."""
    rates: dict[str, list[float]] = {"subprocess": [], "reused": [], "fresh": []}
    jail = Jail()
    one_program(jail)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write("print(1)")
        file.flush()
        command = [sys.executable, "-I", file.name]
        for _ in range(ROUNDS):
            rates["subprocess"].append(
                FRESH
                / seconds(lambda: [subprocess.run(command, capture_output=True, check=True) for _ in range(FRESH)])
            )
            rates["reused"].append(PROGRAMS / seconds(lambda: [one_program(jail) for _ in range(PROGRAMS)]))
            rates["fresh"].append(FRESH / seconds(lambda: [one_fresh() for _ in range(FRESH)]))
    jail.close()
    base = median(rates["subprocess"])
    return [
        ["subprocess.run([python, -I, file]), programs/s", middle(rates["subprocess"]), 1.0, ""],
        ["sandbox, jail reused, programs/s", middle(rates["reused"]), median(rates["reused"]) / base, ">= 5"],
        ["sandbox, reuse: false, programs/s", middle(rates["fresh"]), median(rates["fresh"]) / base, ">= 0.3"],
    ]


def one_program(jail: Jail) -> None:
    ran = jail.start("program", Limits(), {"source": "print(1)"}).finish()
    assert ran.stdout == b"1\n", ran


def one_fresh() -> None:
    jail = Jail(warm=False)
    one_program(jail)
    jail.close()


def overhead_row() -> list[object]:
    """What the checker and its pool add to a bare check, one answer at a time: p99."""
    pool = Pool(workers=1)
    checker = Checker(pool, remember=0)
    entry = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
    spec_json = json.dumps({"dataset": "spell_backward", "entry": entry})
    spec = prompt_pb2.CheckSpec(check="reasoning_gym", spec_json=spec_json)
    job = Job("{}", "olleh", "reasoning_gym", "", spec_json)
    checker.findings([Question("olleh", spec)])
    run(job)
    bare = sorted(seconds(lambda: run(job)) for _ in range(1000))
    served = sorted(seconds(lambda n=n: checker.findings([Question(f"ollef{n}", spec)])) for n in range(1000))
    pool.close()
    return ["p99 over the bare check, ms", 1e3 * (served[990] - bare[990]), "", "<= 5"]


def hanging_rows() -> list[list[object]]:
    """Verdicts per second on words, and the same with some answers that hang until their CPU limit."""
    rates = []
    for share in (0.0, HANGING):
        pool = Pool(workers=2)
        spin = Job("{}", "a" * 64 + "b", "regex", "(a+)+$", "", cpu_s=0.1)
        word = Job("{}", "abc", "regex", "[a-c]+", "", cpu_s=0.1)
        every = round(1 / share) if share else VERDICTS + 1
        jobs = [spin if n % every == every - 1 else word for n in range(VERDICTS)]
        pool.run(jobs[: every - 1][:200])
        rates.append(VERDICTS / seconds(lambda pool=pool, jobs=jobs: pool.run(jobs)))
        pool.close()
    return [
        [f"{VERDICTS} regex verdicts, none hangs, verdicts/s", rates[0], 1.0, ""],
        [f"the same, {HANGING:.0%} use up 0.1 s of CPU each, verdicts/s", rates[1], rates[1] / rates[0], ">= 0.8"],
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
