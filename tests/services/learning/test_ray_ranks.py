"""A learner whose other rank is a task of a real Ray cluster. The same killed in mid-run: tests/chaos/test_ranks.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline import config, processes, recipe
from pipeline.errors import UserError
from services.learning import ray_ranks
from services.learning.crew import EXIT_REFUSED, EXIT_WITHOUT_A_RANK
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
from pipeline.errors import UserError
from services.learning.crew import Crew
from services.learning.ranks import World
from services.learning.ray_ranks import RayRank, Wait, connected

def fails(kind):
    raise {"UserError": UserError, "ValueError": ValueError}[kind]("part is './mine.py'; accepted: one of every node")

connected(sys.argv[1], Wait(lambda: False))
Crew(World(0, 2), [RayRank(1, ray.remote(fails).remote(sys.argv[2]))]).watch()
time.sleep(60)
"""
HANDLED = """
import signal, sys
from services.learning.ray_ranks import Wait, connected

signal.signal(signal.SIGTERM, lambda *_: print("drains", flush=True))
connected(sys.argv[1], Wait(lambda: False))
signal.raise_signal(signal.SIGTERM)
"""
CROWDED = """
import sys, time, torch
from pathlib import Path
from pipeline import processes, recipe
from services.learning import ray_ranks
from tests.services.learning.test_ray_ranks import made, stays

asks = ray_ranks.connected

def connected(address, wait):
    found = asks(address, wait)
    wait.begun = time.monotonic() - processes.RAY_S + 15
    return found

ray_ranks.connected = connected
run = made(Path(sys.argv[1]), sys.argv[2], ranks=4)
ray_ranks.muster(run, recipe.compose(run), Path(sys.argv[1]), torch.device("cpu"), stays)
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


def stays() -> bool:
    """Nobody tells this process to end."""
    return False


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
    crew = ray_ranks.muster(run, recipe.compose(run), Path(folder), torch.device("cpu"), stays)
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
    done = run(LEFT_ALONE, cluster, "ValueError")
    assert done.returncode == EXIT_WITHOUT_A_RANK
    assert "rank 1 on the Ray cluster: ValueError: part is './mine.py'" in done.stderr
    assert "rank 1 of the learner ended (exit code 1); the learner begins again at its checkpoint" in done.stderr


def test_an_error_of_the_users_that_a_rank_finds_ends_the_learner_for_good(cluster):
    """Exit code 2: whoever starts it does not try again."""
    done = run(LEFT_ALONE, cluster, "UserError")
    assert done.returncode == EXIT_REFUSED
    assert "UserError: part is './mine.py'; accepted: one of every node" in done.stderr
    assert "begins again" not in done.stderr


def test_a_learner_with_ray_still_drains_when_it_is_told_to_end(cluster):
    """Ray puts a handler of its own in the place of the service's, which ends the process at once."""
    assert run(HANDLED, cluster).stdout.splitlines()[-1] == "drains"


def test_a_cluster_without_a_place_for_a_rank_is_refused_with_what_it_needs(tmp_path, cluster):
    done = run(CROWDED, tmp_path, cluster)
    said = rf"{cluster} has no place for [23] of 3 ranks after 1200 s; accepted: 1 CPUs and 0 GPUs free for each"
    assert re.search(said, done.stderr)
    assert "the learner begins again" not in done.stderr


def test_a_cluster_that_does_not_answer_is_refused_with_its_address(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "RAY_S", 0.0)
    one = made(tmp_path, f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"learning.ray is 'ray://127.0.0.1:\d+' and no Ray cluster answers there"):
        ray_ranks.muster(one, recipe.compose(one), tmp_path, torch.device("cpu"), stays)


def test_a_learner_that_is_told_to_end_waits_for_no_cluster(tmp_path):
    one = made(tmp_path, f"ray://127.0.0.1:{free_port()}")
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        ray_ranks.muster(one, recipe.compose(one), tmp_path, torch.device("cpu"), lambda: True)
    assert ended.value.code == 128 + signal.SIGTERM
    assert time.monotonic() - begun < ray_ranks.AGAIN_S


def test_a_rank_that_cannot_reach_the_first_one_says_where_it_is():
    port = free_port()
    with pytest.raises(UserError, match=rf"rank 1 on .* cannot reach rank 0 at 127.0.0.1:{port} .*refused"):
        ray_ranks.follow(1, "{}", recipe.compose(config.parse({})).model_dump_json(), 2, "127.0.0.1", port)


def test_ranks_train_on_the_kind_of_device_that_the_first_one_has_found():
    """A worker of Ray sees its node's GPUs, also where it has asked for none."""
    told = ray_ranks._on(config.parse({"model": {"device": "auto"}}), torch.device("cuda", 0))
    assert config.parse(json.loads(told)).model.device == "cuda"


def test_an_infinite_knob_of_a_users_own_part_is_as_infinite_on_every_rank():
    weight = {"weight": [{"name": "my_package:Mine", "high": float("inf")}]}
    one = recipe.load_recipe({"base": "grpo"} | weight)
    told = json.dumps(one.model_dump(mode="json"))
    assert recipe.Recipe.model_validate(json.loads(told)) == one
    run = config.parse({"recipe": {"base": "grpo"} | weight})
    assert config.parse(json.loads(config.canonical(run))) == run


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
