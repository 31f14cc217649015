import pytest

from pipeline.errors import UserError
from services.verification.check.length import Length
from sluice.v1.prompt_pb2 import CheckSpec


def judge(text, spec="", **knobs):
    return Length(**knobs)(text, CheckSpec(spec_json=spec))


@pytest.mark.parametrize(
    ("words", "penalty", "outcome"),
    [(0, -1.0, "WRONG"), (75, -0.25, "WRONG"), (100, 0, "CORRECT"), (400, 0, "CORRECT"), (500, -0.25, "WRONG")],
)
def test_the_penalty_grows_with_the_distance_from_the_bounds(words, penalty, outcome):
    found = judge("x " * words, low=100, high=400, unit="words")
    assert (found.name, found.rewards) == (outcome, (("length", penalty),))


def test_a_prompt_may_set_its_own_bounds_and_the_tag_what_is_counted():
    assert judge("long text <answer>abc</answer>", '{"low": 3, "high": 3}', tag="answer").name == "CORRECT"
    assert judge("a\nb\nc", '{"high": 2}', unit="lines").name == "WRONG"


@pytest.mark.parametrize("spec", ["", '{"low": 5, "high": 3}', '{"low": -1}', '{"low": 1.5}', '{"lo": 1}', "[]", "{"])
def test_bounds_that_cannot_be_met_are_a_users_error(spec):
    with pytest.raises(UserError, match="length: .*accepted"):
        judge("x", spec)
