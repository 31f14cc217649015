"""Prompt-GDRO: bins, their scores and what they weigh, against the reference's numbers."""

from __future__ import annotations

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning import checkpoint
from services.learning.trainer import Trainer
from services.learning.weight._bins import Bins, told
from services.learning.weight.prompt_gdro import PromptGdro
from tests.services.learning.made import lists, vector
from tests.services.learning.numbers import batch_of, near
from tests.services.learning.rollouts import random_groups, tiny_model

SCORE, COUNT = vector([0.2, -0.1, 0.5]), vector([2, 1, 1])


def test_prompt_gdro_weight_of_the_paper():
    near(PromptGdro().weights(SCORE, COUNT), [1.138828, 0.937067, 1.384031])
    assert float(PromptGdro(most=1.2).weights(SCORE, COUNT)[2]) == pytest.approx(1.2)


def test_prompt_gdro_shares_of_the_code():
    near(PromptGdro(form="share").shares(SCORE, COUNT > 0), [0.329190, 0.271459, 0.399351])
    standard = PromptGdro(form="share", z_score=True)
    near(standard.shares(SCORE, COUNT > 0), [0.273240, 0.125086, 0.601674])
    near(standard.weights(SCORE, COUNT), [0.858408, 0.392969, 1.890214])


def test_a_bin_without_a_rollout_has_no_share_and_a_single_bin_weight_one():
    one = PromptGdro(form="share", gamma=0.0, z_score=True)
    near(one.weights(SCORE, vector([0, 4, 0])), [0, 1, 0])
    near(one.shares(SCORE, vector([1, 0, 1]) > 0), one.shares(vector([0.2, 9.0, 0.5]), vector([1, 0, 1]) > 0).tolist())


def test_prompt_gdro_bins_average_their_losses():
    running = PromptGdro(edges=(0.4, 0.75)).open(None)
    batch = lists([1, 0]).with_signals(gdro_weight=vector([1, 1]))
    for loss, wanted in ((0.2, 0.2), (0.6, 0.248)):
        running._found = vector([2, 0, 0]), vector([2 * loss, 0, 0])
        running.after_step(batch, None)
        near(running.score_B, [wanted, 0, 0])
    assert running.bins.known == {"g0": ("11", 2)}
    assert running.bins.of(batch).tolist() == [2, 2]


def test_the_loss_of_a_bin_is_the_clipped_surrogate_before_the_step():
    logp = torch.log(torch.tensor([[1.5, 0.5]]).double())
    batch = batch_of([[0.0, 0.0], [0.0, 0.0]], advantage=[1.0, -1.0], step_logp=[logp[0].tolist(), logp[0].tolist()])
    near(PromptGdro().losses(batch), [-(1.28 + 0.5) / 2, (1.5 + 0.8) / 2])


def test_a_prompt_changes_its_bin_only_beyond_the_slack():
    bins = Bins([0.4, 0.75], slack=0.03, horizon=4, prompts=9)
    assert [bins.moved(*pair) for pair in ((0.41, 0), (0.44, 0), (0.38, 1), (0.36, 1), (0.99, 0))] == [0, 1, 1, 0, 2]
    for right in (1, 0, 0, 0, 0, 1):
        bins.see([("p", bool(right))])
    assert bins.known["p"][0] == "0001"
    small = Bins([0.5], 0.0, 4, prompts=1)
    small.see([("p", True), ("q", False)])
    assert list(small.known) == ["q"]


def test_a_group_with_one_right_answer_counts_as_solved():
    assert told(lists([1, 0], [0, 0])) == [("g0", True), ("g1", False)]


def test_a_run_goes_on_with_the_bins_of_its_checkpoint(tmp_path):
    recipe = {"base": "prompt_gdro", "weight": ["ppo_clip", {"name": "prompt_gdro", "bins": 4, "form": "share"}]}
    changed = load_recipe(recipe | {"optimizer": {"name": "adamw", "lr": 1e-2}})
    one, other = (Trainer(tiny_model(seed), changed, max_tokens=6) for seed in (0, 9))
    for _ in range(3):
        one.step(random_groups(1), 3)
    saved = checkpoint.save(tmp_path, 1, 3, one.state())
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    assert one.step(random_groups(2), 3).metrics == other.step(random_groups(2), 3).metrics
    assert one.controllers["prompt_gdro"].bins == other.controllers["prompt_gdro"].bins
    assert set(one.controllers["prompt_gdro"].seen_B.tolist()) != {0.0}
