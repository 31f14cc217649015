"""What cannot go together is refused at start, with the reason."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import load_recipe


def refused(match: str, **changes) -> None:
    with pytest.raises(UserError, match=match):
        load_recipe(changes)


@pytest.mark.parametrize("objective", ["disco", "drpo", "dpo", "dno", "trpa", "copg", "reg_grpo", "sdpo"])
def test_an_objective_that_never_reads_the_advantage_takes_none_and_no_modifier_and_no_weight(objective):
    refused("never reads the advantage", base=objective, advantage="group_norm", modifiers=["own_group"])
    refused("never reads the advantage", base=objective, advantage="group_norm")
    refused("never read", base=objective, weight=["ppo_clip"])


def test_one_rollout_per_prompt_makes_no_group_to_filter():
    refused("makes no group to filter", base="spo_single_stream", select=["informative_groups"])


def test_a_part_that_needs_the_reference_is_refused_where_no_copy_of_the_model_is_kept():
    load_recipe({"base": "ace"})
    refused("'ace' needs 'ref_logp'.*copies is false", base="ace", copies=False)
    refused("'kl' needs 'ref_logp'.*copies is false", base="grpo", regularizers=["kl"], copies=False)
    refused("'sdpo' needs 'teacher'.*copies is false", base="sdpo", copies=False)
    load_recipe({"base": "dno", "copies": False})


def test_a_factor_per_prompt_in_front_of_a_group_z_score_cancels(tmp_path: Path):
    part = tmp_path / "hardness.py"
    part.write_text(textwrap.dedent('''
        """Weigh rewards by how hard their prompt is believed to be.

        Source: a user's own. Odd cases: none.
        """
        from dataclasses import dataclass
        from typing import ClassVar

        @dataclass(frozen=True)
        class Hardness:
            """Belief 0.25: reward times 0.75."""

            per_prompt: ClassVar[bool] = True

            def __call__(self, batch, reward_N):
                return reward_N * (1 - batch.belief_N)
    '''))  # fmt: skip
    reward = ["outcome_table", str(part)]
    refused("a factor per prompt.*cancels", base="grpo", reward=reward)
    load_recipe({"base": "dr_grpo", "reward": reward})


def test_a_loss_needs_its_slots_unless_an_objective_has_its_own():
    whole = {"name": "x", "title": "x", "paper": "x", "year": 2025, "confidence": "paper",
             "off_policy": {"mode": "corrected", "source": "x"}}  # fmt: skip
    refused("lacks 'advantage'", **whole, denominator="token_mean")
    refused("lacks 'denominator'", **whole, advantage="group_norm")
    refused("no 'advantage' for them to modify", **whole, objective="hpt", modifiers=["own_group"])
    load_recipe({**whole, "objective": "disco"})
