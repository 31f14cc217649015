"""The warm start: what its examples say, what it is cached under, and that it learns."""

import random
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.data.prompt import build as prompt
from pipeline.errors import UserError
from services.learning.tiny import TinyModel, build
from services.learning.warmstart import (
    SLIPS,
    WarmStart,
    cache_folder,
    cache_key,
    fit,
    right_probability,
    spoken,
    warm_start,
)
from sluice.v1 import prompt_pb2


def ask(word: str):
    return prompt([("user", word)], prompt_pb2.CheckSpec(check="exact", answer=word[::-1]))


WORDS = [ask(word) for word in ("abc", "bca", "cab", "acb", "bac", "cba")]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build(tmp_path_factory.mktemp("models") / "small", TinyModel(layers=1, hidden=32, intermediate=64))


def test_each_slip_does_what_its_name_says():
    assert {name: slip("abcd") for name, slip in SLIPS.items()} == {
        "last_letter_missing": "abc",
        "first_letter_doubled": "aabcd",
        "last_two_swapped": "abdc",
    }


def test_half_of_every_batch_is_right_and_the_slips_are_as_likely_as_each_other():
    rng, said = random.Random(0), Counter()
    for _ in range(60):
        batch = Counter(spoken(["abcd"] * 64, WarmStart(), rng))
        assert batch["abcd"] == 32
        said.update(batch)
    assert all(said[slip("abcd")] == pytest.approx(640, abs=25) for slip in SLIPS.values())


def test_without_slips_every_example_is_right():
    assert spoken(["ab", "cd"], WarmStart(slip_share=0, slips=()), random.Random(0)) == ["ab", "cd"]


def test_the_loss_falls_and_progress_is_told(small):
    network, seen = AutoModelForCausalLM.from_pretrained(small), []
    settings = WarmStart(steps=60, batch=12, warmup=5, lr=1e-2, enough=1)
    fit(network, AutoTokenizer.from_pretrained(small), WORDS, settings, lambda *told: seen.append(told))
    assert [(done, steps) for done, steps, _ in seen] == [(n, 60) for n in range(10, 61, 10)]
    assert seen[-1][2] < 1.5 < seen[0][2]


def test_it_stops_once_enough_of_the_answers_are_right(small):
    network, seen = AutoModelForCausalLM.from_pretrained(small), []
    settings = WarmStart(steps=200, batch=12, warmup=5, lr=1e-2, enough=0.1, slip_share=0)
    fit(network, AutoTokenizer.from_pretrained(small), [ask("abc")] * 12, settings, lambda *told: seen.append(told))
    assert seen[-1][0] < 200


def test_the_probability_of_a_right_answer_is_the_product_over_its_tokens(small):
    network = AutoModelForCausalLM.from_pretrained(small)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    uniform = right_probability(network, 0, [([5, 6], [7, 2]), ([5, 6, 8], [2])])
    assert uniform == pytest.approx((98**-2 + 98**-1) / 2)


def test_one_example_is_too_few(small, tmp_path):
    with pytest.raises(UserError, match="there are 1 examples; accepted: at least 2"):
        warm_start(small, WORDS[:1], WarmStart(steps=1), tmp_path)


def test_it_is_made_once_and_again_only_for_other_settings_or_examples(small, tmp_path):
    told = []
    settings = WarmStart(steps=2, batch=4)
    one = warm_start(small, WORDS, settings, tmp_path, lambda *_: told.append(1))
    assert AutoTokenizer.from_pretrained(one).chat_template
    assert warm_start(small, WORDS, settings, tmp_path, lambda *_: told.append(1)) == one
    assert len(told) == 1
    assert [path.name for path in tmp_path.iterdir()] == [one.name]
    keys = {
        cache_key(small, WORDS, settings),
        cache_key(small, WORDS, WarmStart(steps=2, batch=4, seed=1)),
        cache_key(small, WORDS[:-1], settings),
        cache_key(one, WORDS, settings),
    }
    assert len(keys) == 4


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"slips": ("typo",)}, "a slip is 'typo'; accepted: first_letter_doubled, last_letter_missing"),
        ({"slip_share": 1.5}, "slip_share is 1.5; accepted: 0 to 1"),
        ({"slips": ()}, "slip_share is 0.5; accepted: .* 0 when no slip is named"),
        ({"steps": 0}, "steps is 0; accepted: more than 0"),
    ],
)
def test_a_wrong_setting_is_refused(knobs, sentence):
    with pytest.raises(UserError, match=sentence):
        WarmStart(**knobs)


def test_a_prompt_without_an_answer_cannot_be_an_example(small, tmp_path):
    bare = prompt([("user", "abc")], prompt_pb2.CheckSpec(check="exact"))
    with pytest.raises(UserError, match="has no answer"):
        warm_start(small, [bare, bare], WarmStart(steps=1), tmp_path)


def test_a_missing_model_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="accepted: an existing folder"):
        warm_start(tmp_path / "gone", WORDS, WarmStart(steps=1), tmp_path)
