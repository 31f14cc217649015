"""What a program that reads no requests is told to try next: it disturbs nothing, and goes on where it ended."""

import pytest

from pipeline import parts
from services.difficulty.explain import explain
from services.difficulty.sampler.curriculum_stages import CurriculumStages
from services.difficulty.sampler.uniform import Uniform
from sluice.v1 import rollout_pb2
from tests.services.difficulty.schedulers import build


def test_a_preview_changes_no_request_and_no_belief():
    scheduler, undisturbed = build(max_lag=0, batch=8, n=4), build(max_lag=0, batch=8, n=4)
    scheduler.changed()
    choices = scheduler.preview(2)
    assert [c.rollouts for c in choices] == [4, 4] and all(c.score == pytest.approx(1 / 12) for c in choices)
    assert scheduler.changed() == [] and scheduler.issue(0) == undisturbed.issue(0)


def test_previews_follow_from_the_seed_and_the_order_of_the_questions():
    one, same, other = build(seed=7), build(seed=7), build(seed=8)
    answers = [[[c.prompt_id for c in each.preview(3)] for _ in range(4)] for each in (one, same, other)]
    assert answers[0] == answers[1] != answers[2]
    assert len({tuple(answer) for answer in answers[0]}) > 1


def in_the_last_stage():
    """Of a curriculum by outcomes: no learner has told of a step."""
    scheduler = build(prompts=12, batch=8, sampler=CurriculumStages(steps_per_stage=2, replay=0.0))
    told = [
        rollout_pb2.Verdict(prompt_id=f"p{i}", outcome=1, accuracy=1 - i / 11, purpose=1)
        for i in range(12)
        for _ in range(8)
    ]
    scheduler.observe(told)
    return scheduler


def test_without_a_learner_previews_go_through_the_stages_of_a_curriculum_by_outcomes():
    scheduler = in_the_last_stage()
    assert scheduler.gate.step == 0
    assert {choice.prompt_id for choice in scheduler.preview(3)} == {"p9", "p10", "p11"}


def test_without_a_learner_a_prompt_is_explained_by_the_stage_that_it_is_chosen_by():
    scheduler = in_the_last_stage()
    scores = {f"p{i}": explain(scheduler, f"p{i}").score for i in range(12)}
    assert {name for name, score in scores.items() if score > 0} == {c.prompt_id for c in scheduler.preview(3)}


def told(scheduler, prompt_ids, tries=1):
    """So many outcomes of each; returns what they changed, committed."""
    verdict = {"outcome": 1, "accuracy": 0.5, "purpose": 1}
    scheduler.observe(rollout_pb2.Verdict(prompt_id=p, **verdict) for p in prompt_ids for _ in range(tries))
    records = scheduler.changed()
    scheduler.committed()
    return records


@pytest.mark.parametrize(
    ("sampler", "scores"), [("uniform", [1 / 2, 1 / 2]), ("difficulty_pools", None), ("spo_prioritised", None)]
)
def test_a_prompt_is_explained_by_the_score_that_it_is_chosen_by(sampler, scores):
    scheduler = build(prompts=2, sampler=parts.load("difficulty.sampler", sampler))
    told(scheduler, ["p0"], tries=3)
    chosen = {choice.prompt_id: choice.score for choice in scheduler.preview(2)}
    explained = {prompt_id: explain(scheduler, prompt_id).score for prompt_id in chosen}
    assert explained == chosen and sum(chosen.values()) == pytest.approx(1)
    assert scores is None or [chosen["p0"], chosen["p1"]] == scores


@pytest.mark.parametrize("sampler", [None, Uniform()])
def test_a_new_process_goes_on_asking_where_the_outcomes_are(sampler):
    scheduler, again = build(sampler=sampler), build(sampler=sampler)
    again.restore(told(scheduler, [choice.prompt_id for choice in scheduler.preview(5)]))
    assert [c.prompt_id for c in again.preview(5)] == [c.prompt_id for c in scheduler.preview(5)]


def test_a_pass_that_a_restart_interrupts_holds_every_prompt_once_however_often_each_was_tried():
    scheduler, again = build(prompts=100, sampler=Uniform()), build(prompts=100, sampler=Uniform())
    first = [choice.prompt_id for choice in scheduler.preview(10)]
    again.restore(told(scheduler, first, tries=8))
    assert again.changed() == []
    assert len({*first, *(choice.prompt_id for choice in again.preview(90))}) == 100


def test_an_input_that_comes_again_does_not_take_the_pass_back():
    scheduler = build(prompts=10, sampler=Uniform())
    first = [choice.prompt_id for choice in scheduler.preview(4)]
    scheduler.observe([rollout_pb2.Verdict(prompt_id=first[0], outcome=1, accuracy=0.5, purpose=1)])
    scheduler.changed()
    scheduler.undo()
    assert len({*first, *(choice.prompt_id for choice in scheduler.preview(6))}) == 10
