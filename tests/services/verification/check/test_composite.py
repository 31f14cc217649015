import json

import pytest

from pipeline.errors import UserError
from services.verification.check.composite import Composite
from sluice.v1.prompt_pb2 import CheckSpec

BROKEN = '''
"""Fails as a checker can fail."""
from dataclasses import dataclass

from services.verification.finding import infra_error


@dataclass(frozen=True)
class Broken:
    version = "1"

    def __call__(self, answer_text, spec):
        return infra_error("wall_limit")
'''


def judge(text, *checks, answer="7"):
    return Composite()(text, CheckSpec(answer=answer, spec_json=json.dumps({"checks": list(checks)})))


RIGHT = {"name": "right", "check": "exact", "decides": True}
SHAPE = {"name": "shape", "check": "format", "knobs": {"tags": ["answer"]}}
SHORT = {"name": "short", "check": "length", "spec": {"high": 4}}


def test_every_component_is_a_named_reward_and_the_deciding_one_is_the_accuracy():
    found = judge("so <answer>7</answer>", RIGHT, SHAPE, SHORT)
    assert found.name == "CORRECT"
    assert dict(found.rewards) == {"right": 1.0, "shape": 0.0, "short": 0.0, "short.length": -1.0}
    assert "shape: WRONG" in found.evidence


def test_a_wrong_deciding_check_is_the_outcome_whatever_the_others_say():
    found = judge("<answer>8</answer>", RIGHT, SHAPE)
    assert (found.name, found.accuracy, dict(found.rewards)["shape"]) == ("WRONG", 0.0, 1.0)


def test_several_deciding_checks_must_all_be_content():
    assert judge("so <answer>7</answer>", RIGHT, SHAPE | {"decides": True}).name == "WRONG"
    assert judge("<answer>7</answer>", RIGHT, SHAPE | {"decides": True}).name == "CORRECT"


def test_where_none_is_marked_the_first_decides():
    assert judge("so <answer>7</answer>", {**RIGHT, "decides": False}, SHAPE).name == "CORRECT"


def test_a_component_whose_checker_fails_makes_no_reward_of_the_whole(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    found = judge("<answer>7</answer>", RIGHT, {"name": "extra", "check": str(path)})
    assert (found.name, found.reason, found.rewards) == ("INFRA_ERROR", "wall_limit", ())


@pytest.mark.parametrize(
    "checks",
    [[], [{"check": "exact"}], [RIGHT, RIGHT], [{"name": "a", "check": "composite"}], [RIGHT | {"odd": 1}], [1]]
    + [[{"name": "a", "check": "no_such_check"}], [{"name": "a", "check": 3}]],
)
def test_components_that_cannot_be_used_are_a_users_error(checks):
    with pytest.raises(UserError, match="accepted"):
        judge("x", *checks)
