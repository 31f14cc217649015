import json

import pytest

from pipeline.errors import UserError
from services.verification.check.tool_calls import ToolCalls
from sluice.v1.prompt_pb2 import CheckSpec

ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
SAY = {"name": "say", "arguments": {"text": "hi"}}


def calls(*given):
    return "".join(f"<tool_call>{json.dumps(one)}</tool_call>" for one in given)


def judge(text, *expected, ignore=(), **knobs):
    spec = json.dumps({"expected": list(expected), "ignore": list(ignore)})
    return ToolCalls(**knobs)(text, CheckSpec(spec_json=spec))


@pytest.mark.parametrize(
    "text",
    [
        calls(ADD, SAY),
        calls(SAY, ADD),
        json.dumps([ADD, SAY]),
        "<answer>" + json.dumps([ADD, SAY]) + "</answer>",
        calls({"function": {"name": "add", "arguments": json.dumps(ADD["arguments"])}}, SAY),
    ],
)
def test_the_expected_calls_in_any_order_are_correct(text):
    assert judge(text, ADD, SAY).name == "CORRECT"


def test_order_counts_where_it_is_asked_for():
    assert judge(calls(SAY, ADD), ADD, SAY, ordered=True).name == "WRONG"
    assert judge(calls(ADD, SAY), ADD, SAY, ordered=True).name == "CORRECT"


def test_a_missing_and_a_needless_call_cost_the_same():
    assert judge(calls(ADD), ADD, SAY).accuracy == 0.5
    assert judge(calls(ADD, SAY), ADD).accuracy == 0.5
    assert judge(calls(ADD), ADD, SAY).tests == (True, False)


@pytest.mark.parametrize("arguments", [{"a": 1.0, "b": 2}, {"a": True, "b": 2}, {"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_arguments_are_compared_with_exact_types(arguments):
    assert judge(calls({"name": "add", "arguments": arguments}), ADD).name == "WRONG"


def test_ignored_arguments_do_not_count():
    assert judge(calls({"name": "add", "arguments": {"a": 1, "b": 9}}), ADD, ignore=["b"]).name == "CORRECT"


@pytest.mark.parametrize(
    "text", ["", "add(1, 2)", "<tool_call>{</tool_call>", '<tool_call>{"arguments": {}}</tool_call>']
)
def test_what_is_no_call_is_unparsable(text):
    assert judge(text, ADD).name == "UNPARSABLE"


def test_where_no_call_is_expected_silence_is_correct_only_as_an_empty_list():
    assert judge("[]").name == "CORRECT"
    assert judge(calls(ADD)).name == "WRONG"


@pytest.mark.parametrize("spec", ['{"expected": 1}', '{"expected": [1]}', "{}", '{"expected": [{"name": 1}]}'])
def test_an_expected_call_that_is_none_is_a_users_error(spec):
    with pytest.raises(UserError, match="tool_calls: expected"):
        ToolCalls()("[]", CheckSpec(spec_json=spec))
