"""A learner whose other rank is a task of a real Ray cluster. The same killed in mid-run: tests/chaos/test_ranks.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline import config, recipe
from pipeline.errors import UserError
from services.learning import ray_ranks
from services.learning.crew import EXIT_WITHOUT_A_RANK
from services.learning.service import trainer_of
from tests.ports import free_port
from tests.ray_cluster import ray_cluster
from tests.services.learning.rollouts import random_groups, tiny_model

ROOT = Path(__file__).parents[3]
LEARNER = """
import sys
from tests.services.learning.test_ray_ranks import learner
learner(*sys.argv[1:])
"""
LEFT_ALONE = """
import ray, sys, time
from services.learning.crew import Crew
from services.learning.ranks import World
from services.learning.ray_ranks import RayRank

def fails():
    raise ValueError("no such part")

ray.init(sys.argv[1])
Crew(World(0, 2), [RayRank(1, ray.remote(fails).remote())]).watch()
time.sleep(60)
"""
HANDLED = """
import signal, sys
from services.learning.ray_ranks import connected

signal.signal(signal.SIGTERM, lambda *_: print("drains", flush=True))
connected(sys.argv[1])
signal.raise_signal(signal.SIGTERM)
"""
CROWDED = """
import sys, torch
from pathlib import Path
from pipeline import recipe
from tests.services.learning.test_ray_ranks import made
run = made(Path(sys.argv[1]), sys.argv[2], ranks=4)
ray_ranks.muster(run, recipe.compose(run), Path(sys.argv[1]), torch.device("cpu"))
"""


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(cpus=1) as address:
        yield address


def made(folder: Path, address: str, ranks: int = 2) -> config.Run:
    """A run of so many ranks, and its model in `folder`."""
    tiny_model().save_pretrained(folder)
    learning = {"ranks": ranks, "lr": 1e-2, "ray": address} if ranks > 1 else {"lr": 1e-2}
    return config.parse({"learning": learning, "model": {"device": "cpu"}})


def stepped(run: config.Run, base: Path, crew=None) -> dict:
    """One step: its gradient, its metrics and who was trained."""
    trainer = trainer_of(run, recipe.compose(run), base)
    if crew is not None:
        trainer.world = crew.world
    result = trainer.step(random_groups(7, groups=5), 3)
    found = {
        "gradient": torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).tolist(),
        "metrics": result.metrics,
        "uses": {f"{use.key.request_id} {use.key.index}": use.weight for use in result.uses},
    }
    if crew is not None:
        crew.dismiss(trainer.stop)
    return found


def learner(folder: str, address: str) -> None:
    """What rank 0 runs, in a process of its own."""
    run = made(Path(folder), address)
    crew = ray_ranks.muster(run, recipe.compose(run), Path(folder), torch.device("cpu"))
    found = stepped(run, Path(folder), crew)
    ended = [rank.wait(60) for rank in crew.processes]
    crew.end()
    Path(folder, "found.json").write_text(json.dumps(found | {"ended": ended}))


def test_a_rank_on_ray_and_one_here_have_the_step_of_one_process(tmp_path, cluster):
    done = run(LEARNER, tmp_path / "model", cluster)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "model/found.json").read_text())
    alone = stepped(made(tmp_path / "model", "", ranks=1), tmp_path / "model")
    torch.testing.assert_close(torch.tensor(found["gradient"]), torch.tensor(alone["gradient"]), rtol=1e-4, atol=1e-7)
    assert found["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    assert found["uses"].keys() == alone["uses"].keys()
    assert found["uses"] == pytest.approx(alone["uses"], rel=1e-4)
    assert found["ended"] == [0]


def test_a_rank_that_fails_on_the_cluster_ends_the_learner_and_says_why(cluster):
    done = run(LEFT_ALONE, cluster)
    assert done.returncode == EXIT_WITHOUT_A_RANK
    assert "rank 1 on the Ray cluster: ValueError: no such part" in done.stderr
    assert "rank 1 of the learner ended (exit code 1); the learner begins again at its checkpoint" in done.stderr


def test_a_learner_with_ray_still_drains_when_it_is_told_to_end(cluster):
    """Ray puts a handler of its own in the place of the service's, which ends the process at once."""
    assert run(HANDLED, cluster).stdout.splitlines()[-1] == "drains"


def test_a_cluster_without_a_place_for_a_rank_is_refused_with_what_it_needs(tmp_path, cluster):
    done = run(f"from services.learning import ray_ranks\nray_ranks.START_S = 3.0\n{CROWDED}", tmp_path, cluster)
    said = rf"{cluster} has no place for [23] of 3 ranks after 3 s; accepted: 1 CPUs and 0 GPUs free for each"
    assert re.search(said, done.stderr)
    assert "the learner begins again" not in done.stderr


def test_a_cluster_that_does_not_answer_is_refused_with_its_address(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_ranks, "START_S", 0.0)
    one = made(tmp_path, f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"learning.ray is 'ray://127.0.0.1:\d+' and no Ray cluster answers there"):
        ray_ranks.muster(one, recipe.compose(one), tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("address", ["ray:/head:1", "auto", "ray://head", "http://head:10001"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(UserError, match=r"learning.ray"):
        config.parse({"learning": {"ranks": 2, "ray": address}})


def test_a_cluster_for_one_rank_is_refused():
    said = r"learning.ray is 'ray://head:10001' with learning.ranks of 1; accepted: two ranks or more"
    with pytest.raises(UserError, match=said):
        config.parse({"learning": {"ray": "ray://head:10001"}})


def run(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """A program in a process of its own, whose Ray and torch.distributed are its own too."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/proto", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
