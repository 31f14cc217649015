import json

import pytest

from pipeline.data.source.reasoning_gym import UNSUITABLE
from pipeline.errors import UserError
from services.verification.check.reasoning_gym import REFUSED, ReasoningGym, refusal
from sluice.v1.prompt_pb2 import CheckSpec


def spec(dataset, answer, config=None, **metadata):
    entry = {"question": "?", "answer": answer, "metadata": metadata}
    given = {"dataset": dataset, "entry": entry} | ({"config": config} if config else {})
    return CheckSpec(check="reasoning_gym", answer=str(answer), spec_json=json.dumps(given))


def judge(text, *args, **metadata):
    return ReasoningGym()(text, spec(*args, **metadata))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("olleh", "CORRECT"), ("OLLEH", "CORRECT"), ("<answer>olleh</answer>", "CORRECT"), ("hello", "WRONG")]
    + [("x", "WRONG"), ("olle", "WRONG"), ("olleho", "WRONG"), ("", "UNPARSABLE"), ("x" * 30_000, "UNPARSABLE")],
)
def test_a_word_spelt_backward_is_right_or_wrong(text, outcome):
    assert judge(text, "spell_backward", "olleh").name == outcome


def test_a_wrong_word_keeps_its_raw_score_as_a_reward():
    found = judge("olle", "spell_backward", "olleh")
    assert found.accuracy == 0
    assert found.rewards == (("score", pytest.approx(0.8)),)


@pytest.mark.parametrize("length", range(3, 16))
def test_letters_behind_a_right_word_make_it_wrong_at_every_length(length):
    word = "abcdefghijklmnopqrst"[:length]
    assert judge(word + "zz", "spell_backward", word).name == "WRONG"


COUNTDOWN = {"numbers": [3, 4, 2], "target": 14}


@pytest.mark.parametrize(
    ("text", "dataset", "answer", "metadata"),
    [
        ("garbage", "countdown", "(3 + 4)*2", COUNTDOWN),
        ("3 + 4 + 2", "countdown", "(3 + 4)*2", COUNTDOWN),
        ("__import__('os').getpid()", "countdown", "(3 + 4)*2", COUNTDOWN),
        ("9**9**9", "countdown", "(3 + 4)*2", COUNTDOWN),
        ("6*4*1*1", "puzzle24", "(8 - 2)*4*1", {"numbers": [8, 2, 4, 1]}),
        ("8*3+1/2", "puzzle24", "(8 - 2)*4*1", {"numbers": [8, 3, 1, 2]}),
        ("garbage", "puzzle24", "(8 - 2)*4*1", {"numbers": [8, 2, 4, 1]}),
        ("x", "prime_factorization", "2 \u00d7 3", {}),
        ("nan", "complex_arithmetic", "3.0 + 4.0i", {"result": [3.0, 4.0]}),
        ("0", "coin_flip", "0.109375", {}),
        ("zzz", "polynomial_equations", "", {}),
        ("[NaN, NaN]", "number_sorting", "['1', '2']", {"direction": "ascending"}),
        ("['1.5', '2.5']", "number_sorting", "['1', '2']", {"direction": "ascending"}),
        ("a, b, junk", "word_sorting", "a, b", {"sorted_words": ["a", "b"]}),
        ("cat dog junk", "letter_jumble", "cat dog", {}),
        ("[[1], [1]]", "game_of_life", "[[1]]", {}),
        ("{}", "game_of_life", "[[1]]", {}),
        ("[print('x')]", "spiral_matrix", "1 2 3", {}),
        ("[1, 2, 4]", "spiral_matrix", "1 2 3", {}),
        ("15", "chain_sum", "5", {}),
        ("100 days", "time_intervals", "99 days", {"task_type": "date"}),
        ("wrong text", "propositional_logic", "A", {"variables": ["A"], "premises": ["A"]}),
    ],
)
def test_what_the_library_pays_for_but_is_wrong_is_not_correct(text, dataset, answer, metadata):
    found = judge(text, dataset, answer, **metadata)
    assert found.name in ("WRONG", "UNPARSABLE"), found
    assert found.accuracy == 0


@pytest.mark.parametrize(
    ("text", "dataset", "answer", "metadata"),
    [
        ("2*(3+4)", "countdown", "(3 + 4)*2", COUNTDOWN),
        ("4*(8-2)*1", "puzzle24", "(8 - 2)*4*1", {"numbers": [8, 2, 4, 1]}),
        ("2 \u00d7 3", "prime_factorization", "2 \u00d7 3", {}),
        ("3.0 + 4.0i", "complex_arithmetic", "3.0 + 4.0i", {"result": [3.0, 4.0]}),
        ("7/64", "coin_flip", "0.109375", {}),
        ("['1', '2']", "number_sorting", "['1', '2']", {"direction": "ascending"}),
        ("1 2 3", "spiral_matrix", "1 2 3", {}),
        ("x**2/2 + C", "simple_integration", "x**2/2 + C", {"variable": "x", "integrand": "x"}),
    ],
)
def test_right_answers_pass_the_second_look(text, dataset, answer, metadata):
    assert judge(text, dataset, answer, **metadata).name == "CORRECT"


def test_a_right_product_that_is_not_prime_is_partial_with_half_its_accuracy():
    found = judge("4 \u00d7 3", "prime_factorization", "2 \u00d7 2 \u00d7 3")
    assert (found.name, found.accuracy) == ("PARTIAL", 0.5)


def test_generators_that_cannot_be_trusted_are_refused_with_the_reason():
    assert "any text" in refusal("game_of_life_halting")
    with pytest.raises(UserError, match="refused: its scorer gives 1 to any text"):
        judge("True", "game_of_life_halting", "True")


@pytest.mark.parametrize(
    "spec_json", ["", "[]", "{}", '{"dataset": "gcd", "entry": 3}', '{"dataset": "gcd", "entry": {}}']
)
def test_a_spec_without_an_entry_is_a_users_error(spec_json):
    with pytest.raises(UserError, match="accepted"):
        ReasoningGym()("1", CheckSpec(check="reasoning_gym", spec_json=spec_json))


def test_an_unknown_generator_or_setting_is_a_users_error():
    with pytest.raises(UserError, match="dataset is 'no_such'"):
        judge("1", "no_such", "1")
    with pytest.raises(UserError, match="config of 'gcd'"):
        judge("1", "gcd", "1", {"no_such": 1})


GARBAGE = ("zzz", "nan", "[NaN]", "(", "{}", "9**9**9", "None")
SAMPLE = ("countdown", "complex_arithmetic", "game_of_life", "prime_factorization", "spell_backward", "word_sorting")
SHARDS = 8
NO_ANSWER = (None, "")
"""Of an item that has none, or whose answer is to say nothing, as some of `ab` have: no prompt is made of them."""


def faults(name, items):
    """What is amiss with a generator: its own answers, by way of JSON, have to be CORRECT, and garbage has not."""
    import reasoning_gym

    entries = list(reasoning_gym.create_dataset(name, size=items, seed=11))
    answered = sum(entry["answer"] not in NO_ANSWER for entry in entries)
    found = [] if answered >= 0.5 * items or name in UNSUITABLE else [(name, f"{answered} of {items} have an answer")]
    for entry in entries:
        given = CheckSpec(spec_json=json.dumps({"dataset": name, "entry": entry}, default=str))
        if entry["answer"] not in NO_ANSWER and ReasoningGym()(str(entry["answer"]), given).name != "CORRECT":
            found.append((name, entry["answer"]))
        said = {garbage: ReasoningGym()(garbage, given).name for garbage in GARBAGE}
        found += [(name, one, outcome) for one, outcome in said.items() if outcome not in ("WRONG", "UNPARSABLE")]
    return found


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_generators_accepts_its_own_answers_and_no_garbage(name):
    assert faults(name, items=2) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_usable_generator_accepts_twenty_of_its_own_answers_and_no_garbage(shard):
    from reasoning_gym.factory import DATASETS

    names = sorted(set(DATASETS) - set(REFUSED))
    assert len(names) >= 103
    assert [one for name in names[shard::SHARDS] for one in faults(name, items=20)] == []
