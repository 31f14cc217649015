"""The reasoning-gym source: items as they are, stable ids, and generators that cannot be trained on are refused."""

import json

import pytest

from pipeline.data.load import load_source
from pipeline.errors import UserError


def spell(**knobs):
    return list(load_source("reasoning_gym", name="spell_backward", size=5, seed=1, **knobs).prompts())


def test_only_the_word_is_asked_when_the_text_says_so():
    prompts = spell(text="{word}", config={"min_word_len": 3, "max_word_len": 6})
    for prompt in prompts:
        word = prompt.messages[0].parts[0].text
        assert 3 <= len(word) <= 6
        assert prompt.check.answer == word[::-1]


def test_the_question_stands_as_it_is_without_a_text():
    assert spell()[0].messages[0].parts[0].text.startswith("Spell this word backward")


def test_the_check_carries_the_whole_item():
    prompt = spell()[0]
    spec = json.loads(prompt.check.spec_json)
    assert spec["dataset"] == "spell_backward"
    assert spec["entry"]["answer"] == prompt.check.answer
    assert spec["entry"]["metadata"]["word"] == prompt.check.answer[::-1]
    assert (prompt.check.check, prompt.family, prompt.domain) == ("reasoning_gym", "spell_backward", "algorithmic")


def test_two_readings_give_the_same_prompts():
    assert spell() == spell()
    assert len({prompt.prompt_id for prompt in spell()}) == 5


def test_a_system_prompt_goes_in_front():
    assert [message.role for message in spell(system="Only the answer.")[0].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"name": "spell_foreward"}, "the generator is 'spell_foreward'; accepted: .*spell_backward"),
        ({"name": "game_of_life_halting"}, "'game_of_life_halting', refused because it scores any text"),
        ({"name": "rush_hour"}, "'rush_hour', refused because its items have no answer"),
        ({"name": "spell_backward", "size": 0}, "size is 0; accepted: 1 or more"),
        ({"name": "spell_backward", "config": {"len": 3}}, "a setting is 'len'; accepted: data_file, max_word_len"),
        ({"name": "spell_backward", "config": {"min_word_len": 9, "max_word_len": 3}}, "max_word_len must be >="),
        ({"name": "spell_backward", "text": "{wrod}"}, "text '{wrod}' fills in is 'wrod'; accepted: .*question.*word"),
        ({"name": "spell_backward", "colour": 1}, "a knob of .* is 'colour'; accepted: .*size"),
        ({}, "needs the knob 'name'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(knobs, sentence):
    with pytest.raises(UserError, match=sentence):
        list(load_source("reasoning_gym", **knobs).prompts())


def test_no_generator_that_pays_for_nothing_has_slipped_through():
    from pipeline.data.source.reasoning_gym import UNSUITABLE

    for name in ("spell_backward", "chain_sum", "gcd", "countdown"):
        assert name not in UNSUITABLE
        assert all(p.check.answer for p in load_source("reasoning_gym", name=name, size=3).prompts())
