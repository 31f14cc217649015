"""Weights on advantages against the worked numbers of their papers."""

from __future__ import annotations

import torch

from services.learning.advantage.a_grae import AGrae
from services.learning.advantage.adora import Adora
from services.learning.advantage.ap_grpo import ApGrpo
from services.learning.advantage.dagrpo import Dagrpo
from services.learning.advantage.group_norm import GroupNorm
from services.learning.advantage.grpo_s_dr_irl import GrpoSDrIrl
from services.learning.advantage.pshw import Pshw
from services.learning.advantage.xrpo_novelty import XrpoNovelty
from tests.services.learning.made import lists
from tests.services.learning.numbers import near

GRPO = GroupNorm()


def test_a_grae_of_the_paper_and_of_the_code():
    paper = lists([1, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    near(AGrae()(paper, GRPO(paper))[:4], [0.447845, -0.373204, -0.373204, -0.373204], 1e-5)
    code = lists([1, 0, 0, 0], [0.55] * 4)
    near(AGrae(form="code")(code, GRPO(code))[:4], [0.599998, -0.499998, -0.499998, -0.499998], 1e-5)


def test_a_grae_keeps_groups_that_are_all_right_or_all_wrong_and_takes_tokens():
    batch = lists([1, 1], [0, 0], [1, 0])
    found = AGrae()(batch, torch.ones(6, 3, dtype=torch.float64))
    near(found[:, 0], [0.5, 0.5, 0.5, 0.5, 0.125**0.5, 0.125**0.5])


def test_adora_keeps_groups_whose_right_answer_is_longer():
    longer, shorter = (lists([1, 0, 0, 0], lengths=[n, 5, 6, 7], longest=40) for n in (9, 3))
    near(Adora()(longer, GRPO(longer)), [1.5, -0.5, -0.5, -0.5])
    near(Adora()(shorter, GRPO(shorter)), [0.15, -0.05, -0.05, -0.05])


def test_adora_reads_an_empty_side_in_two_ways():
    batch = lists([0, 0], [1, 1], [1])
    near(Adora().weight(batch), [0.1, 0.1, 1, 1, 1])
    near(Adora(empty="vl").weight(batch), [1, 1, 0.1, 0.1, 1])


def test_adora_does_not_count_wrong_answers_at_the_cap():
    batch = lists([1, 0, 0], lengths=[3, 1, 8], longest=8)
    near(Adora().weight(batch), [1, 1, 1])
    near(Adora(cap=9.0).weight(batch), [0.1, 0.1, 0.1])


def test_pshw_weighs_hard_prompts():
    batch = lists([1, -1, -1, -1])
    near(Pshw()(batch, GroupNorm(scale="none")(batch)), [2.076, -0.692, -0.692, -0.692])


def test_ap_grpo_weighs_advantages_by_the_reward_above_the_mean():
    batch = lists([1, 0, 0, 1])
    near(ApGrpo()(batch, GRPO(batch)), [1.125833, -0.606218, -0.606218, 1.125833])
    one = lists([1, 0, 0, 0])
    near(ApGrpo()(one, torch.ones(4, dtype=torch.float64)), [1.45, 0.85, 0.85, 0.85])


def test_xrpo_novelty_raises_unlikely_right_answers():
    capped = lists([1, 1, 0, 0], logps=[-0.9, -0.5, -0.5, -0.5])
    near(XrpoNovelty().novelty(capped), [0.740818, 1.105171, 1.105171, 1.105171])
    near(XrpoNovelty()(capped, GRPO(capped)), [1.299036, 0.866024, -0.866024, -0.866024])
    free = lists([1, 1, 0, 0], logps=[-0.6, -0.5, -0.5, -0.5])
    near(XrpoNovelty().novelty(free)[:1], [0.927743])
    near(XrpoNovelty()(free, GRPO(free))[:1], [1.046665])


def test_xrpo_eta_of_three():
    batch = lists([1, 1, 1], logps=[-0.2, -0.5, -0.9])
    near(XrpoNovelty().novelty(batch), [1.3956, 1.0339, 0.6930], 1e-4)


def test_dagrpo_weighs_by_how_distinct_a_rollout_is_from_the_other_sign():
    batch = lists([1, 1, 0, 0], raw={"judge": [0.9, 0.5, 0.45, 0.1]})
    part = Dagrpo(quality="judge")
    near(part.weight(batch, GRPO(batch)), [1, 0.5, 0.5, 1])
    near(part(batch, GRPO(batch)), [0.866024, 0.433012, -0.433012, -0.866024])


def test_dagrpo_without_an_opposite_or_without_a_quality_changes_nothing():
    batch = lists([1, 1], [0, 1, 0])
    near(Dagrpo(quality="judge").weight(batch, GRPO(batch)), [1.0] * 5)


def test_grpo_s_of_dr_irl_weighs_prompts():
    raw = {"similarity": [0.9, 0.9, 0.6, 0.6], "gap": [0.2, 0.2, 1.5, 1.5]}
    batch = lists([1, 0], [1, 0], raw=raw)
    near(GrpoSDrIrl().weight(batch)[[0, 2]], [0.569298, 0.922810])
    near(GrpoSDrIrl(gap="absent").weight(batch)[[0, 2]], [0.4, 1.6])
    near(GrpoSDrIrl(similarity="absent").weight(batch)[[0, 2]], [1.423244, 0.576756])
