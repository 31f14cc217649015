"""A learner of two ranks, either of them killed in mid-run: it goes on, and nobody is left behind."""

from __future__ import annotations

import psutil
import pytest

from tests.chaos.test_kills import SETS, conserved
from tests.journey.harness import Running
from tests.ray_cluster import ray_cluster, workers

STEPS = 14


def other_ranks(directory) -> list[psutil.Process]:
    """The processes of a run's ranks above 0, whoever their parent is."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "services.learning.crew" in line and str(directory) in line:
            found.append(process)
    return found


@pytest.mark.long
def test_a_rank_killed_and_then_the_learner_lose_no_rollout_and_leave_nobody_behind(tmp_path):
    directory = tmp_path / "run"
    with Running(directory, SETS | {"learning.ranks": 2, "learning.steps": STEPS}) as run:
        run.until(lambda view: view.step >= 3, "the third step")
        (rank,) = other_ranks(directory)
        rank.kill()
        at = run.until(lambda view: view.rewinds >= 2, "a second learner").step
        run.until(lambda view: view.step >= min(at + 4, STEPS - 4), "four steps more")
        (rank,) = other_ranks(directory)
        run.kill("learning")
        rank.wait(10)
        assert run.wait() == 0, run.said() + run.logs()
        assert "learning died (exit code 4)" in run.said()
    said = (directory / "logs/learning.log").read_text()
    assert "rank 1 of the learner ended (exit code -9)" in said
    assert "Traceback" not in said
    assert conserved(directory, STEPS)["epochs"] == 3
    assert not other_ranks(directory)


@pytest.mark.long
def test_a_rank_on_ray_killed_and_then_the_learner_lose_no_rollout_and_leave_nobody_behind(tmp_path):
    directory = tmp_path / "run"
    with ray_cluster(cpus=1) as address:
        sets = {"learning.ranks": 2, "learning.steps": STEPS, "learning.ray": address}
        with Running(directory, SETS | sets) as run:
            run.until(lambda view: view.step >= 3, "the third step")
            (rank,) = workers("follow")
            rank.kill()
            at = run.until(lambda view: view.rewinds >= 2, "a second learner").step
            run.until(lambda view: view.step >= min(at + 4, STEPS - 4), "four steps more")
            (rank,) = workers("follow")
            run.kill("learning")
            rank.wait(60)
            assert run.wait() == 0, run.said() + run.logs()
            assert "learning died (exit code 4)" in run.said()
        assert not workers("follow")
    assert "rank 1 of the learner ended" in (directory / "logs/learning.log").read_text()
    assert conserved(directory, STEPS)["epochs"] == 3
