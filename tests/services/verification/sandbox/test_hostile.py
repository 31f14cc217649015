"""Every hostile program: its verdict is one of those that are right, and nothing of it is left a second later."""

import importlib.util
import os
import time
from pathlib import Path

import psutil
import pytest

from services.verification.check.code_python import CodePython
from services.verification.sandbox import walls
from services.verification.sandbox.desk import keeper
from sluice.v1.prompt_pb2 import CheckSpec

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
__import__("sys").modules["hostile"] = hostile
_spec.loader.exec_module(hostile)

pytestmark = pytest.mark.sandbox
IDLE = CodePython(cpu_s=0.25, idle_s=0.8, memory_mb=256)
BUSY = CodePython(cpu_s=0.25, idle_s=30.0, memory_mb=256)
TRIES = 3
"""As the service does, when a busy machine kept a program from its CPU."""
SLOW = hostile.TIME + hostile.MEMORY
SAMPLE = (
    "an endless loop",
    "sleep forever",
    "64 busy threads",
    "CPU burnt in a child",
    "a bytearray loop",
    "a full /tmp",
)
CASES = [
    pytest.param(one, marks=pytest.mark.long if one in SLOW and one.name not in SAMPLE else (), id=one.name)
    for one in hostile.ALL
]


def strangers() -> list[psutil.Process]:
    """Processes of the jails' users, but for those that a jail is made of."""
    own = {child.pid for child in psutil.Process().children(recursive=True) if child.name() == "bwrap"}
    zygotes = {child.pid for pid in own for child in psutil.Process(pid).children()}
    found = []
    for one in psutil.process_iter(["uids"]):
        uid = walls.unprivileged_uid()
        if uid is not None and one.info["uids"] and one.info["uids"].real == uid and one.pid not in own | zygotes:
            found.append(one)
    return found


@pytest.mark.parametrize("one", CASES)
def test_a_hostile_program_gets_its_verdict_and_leaves_nothing(one):
    began = time.monotonic()
    for _ in range(TRIES):
        found = (IDLE if one.waits else BUSY)(one.source, CheckSpec(spec_json=one.tests))
        if not found.retryable:
            break
    took = time.monotonic() - began
    assert found.name in one.outcomes, found
    assert "BREACH" not in found.evidence
    assert took < 60
    deadline = time.monotonic() + 1.0
    while strangers() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert strangers() == []
    assert BUSY("print(input())", CheckSpec(spec_json=hostile.ECHO)).name == "CORRECT", "the next job is harmed"


def test_every_case_that_was_asked_for_is_here_and_twenty_more():
    names = [one.name for one in hostile.ALL]
    assert len(set(names)) == len(names)
    assert set(hostile.ASKED) <= set(names)
    assert len(set(names) - set(hostile.ASKED)) >= 20


def test_nothing_reached_the_host():
    assert not [path for path in ("/tmp/answer.py", "/x", "/usr/x", "/dev/x") if os.path.exists(path)]
    keeper(True).close()
