import pytest

from pipeline.errors import UserError
from services.verification.check.format import Format
from sluice.v1.prompt_pb2 import CheckSpec


def judge(text, **knobs):
    return Format(**knobs)(text, CheckSpec()).name


@pytest.mark.parametrize(
    ("text", "knobs", "outcome"),
    [
        ("<think>a</think><answer>b</answer>", {}, "CORRECT"),
        ("\n<think>a</think>\n\n<answer>b</answer>\n", {}, "CORRECT"),
        ("<answer>b</answer><think>a</think>", {}, "WRONG"),
        ("<think>a</think><answer>b", {}, "WRONG"),
        ("<think>a</think>b", {}, "WRONG"),
        ("<think>a</think><answer>b</answer><answer>c</answer>", {}, "WRONG"),
        ("<think>a<answer>b</answer></think>", {}, "WRONG"),
        ("<think>a</think>so<answer>b</answer>", {}, "WRONG"),
        ("<think>a</think>so<answer>b</answer>", {"outside": True}, "CORRECT"),
        ("<think> </think><answer>b</answer>", {}, "WRONG"),
        ("<think> </think><answer>b</answer>", {"empty": ("think",)}, "CORRECT"),
        ("</think><think><answer>b</answer>", {}, "WRONG"),
        ("<answer>b</answer>", {"tags": ("answer",)}, "CORRECT"),
    ],
)
def test_sections_stand_once_in_order_and_alone(text, knobs, outcome):
    assert judge(text, **knobs) == outcome


@pytest.mark.parametrize("tags", [(), ("a b",), ("",)])
def test_sections_without_a_name_are_refused(tags):
    with pytest.raises(UserError, match="accepted: one or more names"):
        Format(tags=tags)
