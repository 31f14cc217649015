import json

import pytest

from pipeline.errors import UserError
from services.verification.check.multiple_choice import MultipleChoice
from sluice.v1.prompt_pb2 import CheckSpec

CITIES = ["Rome", "Paris", "Bern", "Oslo"]


def judge(text, answer="B", choices=CITIES):
    return MultipleChoice()(text, CheckSpec(answer=answer, spec_json=json.dumps({"choices": choices}))).name


@pytest.mark.parametrize(
    "text",
    ["B", "b", "(B)", "B.", "**B**", "[B]", "The answer is B.", "The answer is (B)", "answer: b", "#### B"]
    + [r"\boxed{B}", r"\boxed{\text{B}}", "<answer>B</answer>", "B) Paris", "(B) Paris", "B. Paris", "Paris", "paris."]
    + ["First A, then \nthe answer is B", r"\boxed{A} no, \boxed{B}", "<answer> Paris </answer>"],
)
def test_every_way_to_name_the_right_choice_is_correct(text):
    assert judge(text) == "CORRECT"


@pytest.mark.parametrize("text", ["A", "The answer is C", "A or B", "A and B", "B, C", "Rome", r"\boxed{AB}", "ABCD"])
def test_another_choice_and_a_hedge_are_wrong(text):
    assert judge(text) == "WRONG"


@pytest.mark.parametrize(
    "text", ["", "I do not know", "A dog", "E", "Paris or Rome", "B) Rome", "1", "Both are B-like"]
)
def test_what_names_no_choice_is_unparsable(text):
    assert judge(text) == "UNPARSABLE"


@pytest.mark.parametrize(
    ("text", "outcome"), [("A, C", "CORRECT"), ("C and A", "CORRECT"), ("AC", "CORRECT"), ("A", "WRONG")]
)
def test_several_right_choices_are_a_set(text, outcome):
    assert judge(text, answer="AC") == outcome


def test_two_choices_of_one_text_are_not_told_apart_by_it():
    assert judge("same", answer="A", choices=["same", "Same"]) == "UNPARSABLE"


@pytest.mark.parametrize("answer", ["", "E", "1", "AE"])
def test_an_expected_answer_that_is_no_choice_is_a_users_error(answer):
    with pytest.raises(UserError, match="accepted: letters from A to D"):
        judge("A", answer=answer)


def test_a_long_text_takes_no_time():
    assert judge("( " * 500_000 + "B" * 100_000) == "UNPARSABLE"


def test_the_counts_of_said_right_and_expected_choices_are_raw_rewards():
    spec = CheckSpec(answer="ABC")
    found = MultipleChoice()("The answer is A and D.", spec)
    assert dict(found.rewards) == {"said": 2, "right": 1, "expected": 3}
