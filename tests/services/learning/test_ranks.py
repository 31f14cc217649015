"""Two gloo processes have the gradients, metrics and account of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning.ranks import ALONE, deal, deal_by_prompt, pack, unpack
from services.learning.trainer import Trainer
from tests.ports import free_port
from tests.services.learning.rollouts import group, random_groups, tiny_model

ROOT = Path(__file__).parents[3]
CHILD = """
import sys
from tests.services.learning.test_ranks import child
child(sys.argv[1])
"""
RECIPES = {
    "grpo": {},
    "dapo": {"denominator": {"name": "token_mean", "shrink": True}},
    "spo_single_stream": {},
    "grpo_tis": {"regularizers": [{"name": "kl", "coef": 0.1}]},
    "d3s": {},
    "hapo": {},
    "kl_cov": {"regularizers": [{"name": "kl_cov", "share": 0.2}]},
    "clip_cov": {"weight": [{"name": "clip_cov", "share": 1.0, "cov_low": 0.05}]},
    "capo": {"weight": ["ppo_clip", {"name": "capo", "tau_h": 3e-3}]},
    "m2po": {},
    "epo": {},
    "ter": {},
    "ppo": {},
    "ap_grpo": {},
    "tw_grpo": {},
    "otb": {},
    "prompt_gdro": {"weight": ["ppo_clip", {"name": "prompt_gdro", "bins": 4, "form": "share"}]},
    "hc_rlhf": {},
    "harpg": {"optimizer": {"name": "harpg", "lr": 1e-2, "normalised": True}},
}
"""With what differs from the shipped recipe: enough of every kind that reckons over the whole step."""


def made(recipe: str):
    found = random_groups(7, groups=9, size=1) if recipe.startswith("spo") else random_groups(7, groups=5)
    for number, each in enumerate(m for g in found for m in g.members):
        each.verdict.rewards.add(name="cost", value=(number % 7) / 3 - 0.8)
    return found


def trained(recipe: str, world=ALONE) -> Trainer:
    knobs = {"base": recipe, "optimizer": {"name": "adamw", "lr": 1e-2, "clip_norm": None}, **RECIPES[recipe]}
    return Trainer(tiny_model(), load_recipe(knobs), max_tokens=6, world=world)


def two_steps(one: Trainer, recipe: str) -> dict:
    """Two steps; the gradient of the last, its metrics and its account."""
    one.step(made(recipe), 3)
    state = one.state()
    one.step(made(recipe), 9)  # and back again, as a learner that begins at its checkpoint
    one.load_state(state)
    result = one.step(made(recipe), 4)
    return {
        "gradient": torch.cat([p.grad.flatten() for p in one.model.parameters()]).tolist(),
        "metrics": result.metrics,
        "uses": [(use.key.request_id, use.key.index, use.weight, use.advantage, use.lag) for use in result.uses],
        "dropped": [(*member.name, reason) for member, reason in result.dropped],
        "shifts": sorted((s.prompt_id, s.mean_abs_logprob_change) for s in result.shifts),
        "shards": sorted(one.state()),
    }


def child(folder: str) -> None:
    """What each process of the world runs."""
    from services.learning.crew import join, open_store

    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), 2
    world = join(rank, size, open_store(rank, size, int(os.environ["MEET"])))
    for recipe in RECIPES:
        one = trained(recipe, world)
        if world.rank:
            one.follow()
        else:
            Path(folder, recipe).write_text(json.dumps(two_steps(one, recipe)))
            one.stop()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """The folder in which two processes together left what they found, one file per recipe."""
    folder = tmp_path_factory.mktemp("world")
    place = {"MEET": str(free_port()), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            cwd=ROOT,
            env={**os.environ, **place, "RANK": str(rank), "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=240) for process in children] == [0, 0]
    finally:
        for process in children:
            process.kill()
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_ranks_have_the_gradients_of_one(recipe, two_processes):
    found, wanted = json.loads((two_processes / recipe).read_text()), two_steps(trained(recipe), recipe)
    a, b = torch.tensor(found["gradient"]), torch.tensor(wanted["gradient"])
    assert float((a - b).norm() / b.norm()) < 1e-6
    for name, value in wanted["metrics"].items():
        assert found["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-9), name
    assert [use[:2] for use in found["uses"]] == [list(use[:2]) for use in wanted["uses"]]
    for mine, theirs in zip(found["uses"], wanted["uses"], strict=True):
        assert mine[2:] == pytest.approx(theirs[2:], rel=1e-5)
    assert found["dropped"] == [list(each) for each in wanted["dropped"]]
    assert [name for name, _ in found["shifts"]] == [name for name, _ in wanted["shifts"]]
    assert [x for _, x in found["shifts"]] == pytest.approx([x for _, x in wanted["shifts"]], rel=1e-4)
    if recipe.startswith("spo"):
        assert found["shifts"] and "controller-prompt_shift-1" in found["shards"]


def test_groups_survive_the_way_between_ranks():
    sent = random_groups(1, groups=2)
    got, version = unpack(pack(sent, 9))
    assert version == 9 and got == sent


def test_whole_groups_are_dealt_to_the_rank_with_fewest_tokens():
    groups = random_groups(2, groups=6)
    parts = deal(groups, 2)
    assert sorted(parts[0] + parts[1]) == list(range(6)) and parts[0] and parts[1]


def test_a_sticky_prompt_always_goes_to_the_same_rank():
    groups = random_groups(2, groups=6)
    homes = {groups[i].prompt_id: rank for rank, part in enumerate(deal_by_prompt(groups, 3)) for i in part}
    again = deal_by_prompt([group(p, []) for p in reversed(homes)], 3)
    assert {list(reversed(homes))[i]: rank for rank, part in enumerate(again) for i in part} == homes
