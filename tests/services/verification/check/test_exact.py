import pytest

from pipeline import parts
from pipeline.errors import UserError
from sluice.v1.prompt_pb2 import CheckSpec


def check(text, answer, **knobs):
    return parts.load("verification.check", "exact", **knobs)(text, CheckSpec(check="exact", answer=answer)).name


@pytest.mark.parametrize(
    ("text", "answer", "knobs", "outcome"),
    [
        ("42", "42", {}, "CORRECT"),
        (" 42\n", "42", {}, "CORRECT"),
        (" 42", "42", {"strip": False}, "WRONG"),
        ("43", "42", {}, "WRONG"),
        ("Paris", "paris", {}, "WRONG"),
        ("Paris", "paris", {"case": "fold"}, "CORRECT"),
        ("a  b", "a b", {}, "WRONG"),
        ("a  b", "a b", {"normalise": "whitespace"}, "CORRECT"),
        ("\uff11", "1", {"normalise": "nfkc"}, "CORRECT"),
        ("I think <answer>7</answer>, no, <answer>8</answer>", "8", {}, "CORRECT"),
        ("<answer>7</answer>", "7", {"tag": ""}, "WRONG"),
        ("", "1", {}, "UNPARSABLE"),
        ("<answer></answer>", "1", {}, "UNPARSABLE"),
    ],
)
def test_the_answer_is_compared_after_the_stated_normalisation(text, answer, knobs, outcome):
    assert check(text, answer, **knobs) == outcome


def test_an_expected_answer_that_is_empty_is_a_users_error():
    with pytest.raises(UserError, match="expected answer is ''"):
        check("x", "")


def test_an_unknown_way_to_normalise_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="accepted: fold, keep"):
        check("x", "x", case="upper")
