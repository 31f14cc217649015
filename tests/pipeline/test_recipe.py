"""Recipes are checked whole, early, and without torch."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import UserError
from pipeline.recipe import compose, load_recipe, methods, shipped

ROOT = Path(__file__).parents[2]


def refused(what) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(what)
    return str(caught.value)


def test_the_spine_ships_six_recipes():
    assert {"grpo", "dapo", "rloo", "dr_grpo", "spo_single_stream", "grpo_tis"} <= set(shipped())


def test_an_unknown_recipe_names_those_that_ship():
    assert refused("grop").startswith("the recipe is 'grop'; accepted: ") and "grpo_tis" in refused("grop")


def test_an_unknown_slot_part_knob_and_value_are_each_refused_in_one_sentence():
    assert "'advantages' is no slot" in refused({"base": "grpo", "advantages": "group_norm"})
    assert "the learning.advantage part is 'gruop_norm'; accepted: " in refused(
        {"base": "grpo", "advantage": "gruop_norm"}
    )
    knob = refused({"base": "grpo", "advantage": {"name": "group_norm", "dof": 1}})
    assert "'dof'; accepted: center, ddof, eps, scale, singleton" in knob
    value = refused({"base": "grpo", "weight": [{"name": "ppo_clip", "low": -0.1}]})
    assert "knob 'low' of learning.weight 'ppo_clip' is -0.1; accepted: float >= 0 and <= 1" in value
    assert "is 'median'; accepted: mean, loo, none" in refused(
        {"base": "grpo", "advantage": {"name": "group_norm", "center": "median"}}
    )
    assert "'wide'; accepted: float | None > 1" in refused(
        {"base": "grpo", "weight": [{"name": "ppo_clip", "dual": "wide"}]}
    )


def test_a_recipe_without_an_advantage_is_refused():
    assert "lacks 'advantage'" in refused(
        {k: v for k, v in load_recipe("grpo").model_dump().items() if k != "advantage"}
    )


def test_spo_with_a_group_filter_is_refused_with_the_reason():
    sentence = refused({"base": "spo_single_stream", "select": ["informative_groups"]})
    assert "one rollout per prompt makes no group to filter" in sentence


def test_a_need_that_nothing_produces_is_refused(tmp_path):
    part = tmp_path / "needy.py"
    part.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n\n\n"
        '@dataclass(frozen=True)\nclass Needy:\n    needs: ClassVar[frozenset[str]] = frozenset({"values"})\n'
    )
    assert "'values'; accepted: " in refused({"base": "grpo", "modifiers": [str(part)]})


def test_a_modifier_is_no_advantage_and_an_advantage_no_modifier():
    assert "'adora', which changes an advantage; accepted: modifiers" in refused({"base": "grpo", "advantage": "adora"})
    sentence = refused({"base": "grpo", "modifiers": ["bnpo"]})
    assert "modifiers has 'bnpo'" in sentence and sentence.endswith("accepted: advantage")


def test_ngrpo_with_a_filter_that_drops_wrong_groups_is_refused_with_the_reason():
    assert "groups of wrong answers, which NGRPO is for" in refused({"base": "ngrpo", "select": ["informative_groups"]})


def test_a_recipe_file_may_change_a_shipped_one(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: grpo\nname: mine\nweight: [{name: ppo_clip, high: 0.28}]\n")
    recipe = load_recipe(str(file))
    assert recipe.name == "mine" and recipe.weight[0].knobs == {"high": 0.28}
    assert recipe.advantage == load_recipe("grpo").advantage


def test_a_part_is_written_as_a_run_file_writes_it():
    assert dict(load_recipe("dapo").budget) == {"name": "fixed", "n": 16}


def test_on_policy_only_is_refused_when_rollouts_may_be_stale():
    recipe = {"base": "grpo", "off_policy": {"mode": "on_policy_only", "source": "its paper"}}
    assert compose(config.parse({"recipe": recipe, "max_lag": 0})).off_policy.mode == "on_policy_only"
    with pytest.raises(UserError, match=r"max_lag is 2 and recipe 'grpo' is on-policy only \(its paper\)"):
        compose(config.parse({"recipe": recipe, "max_lag": 2}))


def test_the_run_overrides_learning_rate_and_difficulty():
    run = config.parse(
        {"recipe": "grpo", "learning": {"lr": 3e-4}, "difficulty": {"budget": {"name": "fixed", "n": 4}}}
    )
    recipe = compose(run)
    assert recipe.optimizer.knobs == {"lr": 3e-4, "clip_norm": 1.0}
    assert dict(recipe.budget) == {"name": "fixed", "n": 4}


@pytest.mark.parametrize(
    ("room", "part", "said"),
    [
        ("budget", {"name": "fixed", "n": 0}, "knob 'n' of difficulty.budget 'fixed' is 0; accepted: int >= 1"),
        ("budget", {"name": "knapsack", "n": 1}, "n is 1; accepted: from low, 2, to high, 128"),
        ("budget", {"name": "knapsack", "low": 9}, "n is 8; accepted: from low, 9, to high, 128"),
        ("estimate", {"name": "beta", "prior_alpha": -1}, "is -1; accepted: float > 0"),
        ("estimate", {"name": "ema", "rate": 3}, "is 3; accepted: float > 0 and < 1"),
        ("estimate", {"name": "spo_tracker", "rho_min": 0.97}, "rho_min is 0.97; accepted: up to rho_max, 0.96"),
        ("sampler", {"name": "vade_thompson", "uniform_share": 2}, "is 2; accepted: float >= 0 and <= 1"),
        ("sampler", {"name": "spo_prioritised", "floor": -1}, "is -1; accepted: float >= 0"),
        ("sampler", {"name": "mmr1_vps", "alpha": math.inf}, "is inf; accepted: float >= 0"),
        ("sampler", {"name": "domain_mixture", "shares": {"math": "three"}}, "of 'math' is 'three'; accepted: float"),
        ("sampler", {"name": "domain_mixture", "shares": {"math": -1}}, "of 'math' is -1; accepted: float >= 0"),
        ("sampler", {"name": "domain_mixture", "shares": {"math": math.nan}}, "of 'math' is nan; accepted: float >= 0"),
        ("sampler", {"name": "domain_mixture", "shares": {1: 2}}, "shares has the name 1; accepted: a text"),
        ("sampler", {"name": "domain_mixture", "shares": {"math": 0}, "rest": 0}, "accepted: a share above 0"),
        ("sampler", {"name": "equitable", "costs": {"math": 0}}, "of 'math' is 0; accepted: float > 0"),
    ],
)
def test_what_the_difficulty_service_would_refuse_is_refused_before_anything_starts(room, part, said):
    with pytest.raises(UserError) as caught:
        compose(config.parse({"difficulty": {room: part}}))
    assert said in str(caught.value)


def test_methods_are_listed_without_torch():
    says = "methods(); describe(sys.argv[1]); print('torch' in sys.modules)"
    code = f"import sys; from pipeline.recipe import describe, methods; {says}"
    found = subprocess.run(
        [sys.executable, "-c", code, "grpo"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "False"
    assert {row["name"] for row in methods()} == set(shipped())
