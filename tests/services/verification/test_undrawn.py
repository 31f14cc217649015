"""The image of verification holds no matplotlib; what stands in its place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.verification import undrawn

PLAYED = """
import reasoning_gym
data = reasoning_gym.create_dataset("game_of_life", size=1, seed=0)
print(data.score_answer(data[0]["answer"], data[0]), data.score_answer("[[9]]", data[0]))
"""
DRAWN = """
import cellpylib
cellpylib.plot(cellpylib.init_simple(9))
"""


@pytest.fixture(scope="module")
def without_matplotlib(tmp_path_factory):
    """Runs code in a Python that finds these modules first."""
    folder = tmp_path_factory.mktemp("undrawn")
    undrawn.main(folder)
    environment = os.environ | {"PYTHONPATH": str(folder)}

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_puzzle_that_counts_cells_is_scored_without_matplotlib(without_matplotlib):
    done = without_matplotlib(PLAYED)
    assert done.returncode == 0, done.stderr
    right, wrong = map(float, done.stdout.split())
    assert right == 1.0 and wrong < 0.5


def test_who_draws_is_told_that_matplotlib_is_not_there(without_matplotlib):
    done = without_matplotlib(DRAWN)
    assert done.returncode and "matplotlib is not installed here, nothing is drawn" in done.stderr
