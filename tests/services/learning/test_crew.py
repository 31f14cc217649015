"""Who starts, watches and ends the ranks above 0. That they train as one: test_ranks.py; killed: tests/chaos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from services.learning import crew
from services.learning.ranks import World

ROOT = Path(__file__).parents[3]
LEFT_ALONE = """
import subprocess, sys, time
from services.learning.crew import Crew
from services.learning.ranks import World

one = Crew(World(0, 2), [subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])])
one.watch()
time.sleep(60)
"""


def test_more_ranks_than_gpus_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"learning.ranks is 4 and this machine has 2 GPUs; accepted: 1 to 2"):
        crew.muster(tmp_path, 4, torch.device("cuda"))


def test_a_rank_that_ends_before_it_may_ends_the_learner_with_a_sentence():
    done = subprocess.run(
        [sys.executable, "-c", LEFT_ALONE], cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT}/proto"}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == crew.EXIT_WITHOUT_A_RANK
    assert "rank 1 of the learner ended (exit code 7); the learner begins again at its checkpoint" in done.stderr


@pytest.mark.parametrize("dismissed", [True, False])
def test_ranks_are_gone_at_the_end_whether_they_were_told_or_not(dismissed):
    line = "input()" if dismissed else "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", line], stdin=subprocess.PIPE)
    one = crew.Crew(World(0, 2), [process])
    if dismissed:
        one.dismiss(lambda: process.stdin.write(b"\n") and process.stdin.close())
    one.end()
    assert process.returncode == (0 if dismissed else -9)
