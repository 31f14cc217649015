"""The same rollouts get the same verdicts: three times, in other orders, on other workers, by every rule check."""

import json
import random

import pytest

from pipeline import parts
from services.verification.checker import Checker
from services.verification.handler import VerificationHandler
from services.verification.pool import Pool
from sluice.v1 import prompt_pb2, rollout_pb2

WORD = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
ECHO = {"tests": [{"input": "a\n", "output": "a"}, {"input": "b\n", "output": "b"}]}
CALL = {"name": "add", "arguments": {"a": 1}}
PARTS = [
    {"name": "right", "check": "exact", "answer": "7"},
    {"name": "short", "check": "length", "spec": {"low": 1, "high": 3}},
]
ASKED = {
    "exact": ("7", {}, ["7", " 7", "8", ""]),
    "regex": ("[ab]+", {}, ["ab", "abc", "", "(a+)+$"]),
    "math": ("1/2", {}, ["0.5", r"\boxed{\frac{2}{4}}", "50%", "1/3", r"\frac{", "9^{9^{9}}", "__import__('os')"]),
    "multiple_choice": ("B", {}, ["B", "The answer is (b).", "A", "both"]),
    "json_schema": ("", {"schema": {"type": "object"}}, ["{}", "[]", "{", '{"a": [1, NaN]}']),
    "tool_calls": ("", {"expected": [CALL]}, [json.dumps([CALL]), "[]", "x"]),
    "ranking": ("", {"relevance": {"a": 2, "b": 1}}, ["a, b", "b, a", "c", ""]),
    "format": ("", {}, ["<think>1</think> <answer>2</answer>", "1"]),
    "length": ("", {"low": 1, "high": 3}, ["abc", "abcd", ""]),
    "reasoning_gym": ("", {"dataset": "spell_backward", "entry": WORD}, ["olleh", "olle", "hello", ""]),
    "composite": ("", {"checks": PARTS}, ["7", "8", "seven of them all"]),
}
CODE = {
    "code_python": ("", ECHO, ["print(input())", "print('a')", "print(", "1/0", "import os; os._exit(0)", ""]),
}
NOT_RULES = {"judge", "reward_model", "delayed"}
TIMES = ("wall_s", "cpu_s")


def rollouts(asked):
    """(prompts by id, rollouts) of every answer of the table."""
    prompts, made = {}, []
    for check, (answer, spec, texts) in asked.items():
        spec_json = json.dumps(spec) if spec else ""
        prompts[check] = prompt_pb2.Prompt(
            prompt_id=check, check=prompt_pb2.CheckSpec(check=check, answer=answer, spec_json=spec_json)
        )
        for text in texts:
            key = rollout_pb2.RolloutKey(request_id="r", index=len(made))
            made.append(rollout_pb2.Rollout(key=key, prompt_id=check, calls=[rollout_pb2.Call(text=text)]))
    return prompts, made


def verdicts(pool, prompts, made):
    """Verdicts by the rollout's index, as bytes, without how long they took."""
    found = {}
    for verdict in VerificationHandler(Checker(pool, remember=0), prompts.get)(made).verdicts:
        for name in TIMES:
            verdict.ClearField(name)
        found[verdict.key.index] = verdict.SerializeToString(deterministic=True)
    return found


def same_three_times(asked):
    prompts, made = rollouts(asked)
    orders = [made, made[::-1], random.Random(3).sample(made, len(made))]
    said = []
    for order in orders:
        pool = Pool(workers=2)
        try:
            said.append(verdicts(pool, prompts, order))
        finally:
            pool.close()
    assert len(said[0]) == len(made)
    assert said[0] == said[1] == said[2]
    return [rollout_pb2.Verdict.FromString(said[0][at]) for at in range(len(made))]


def test_every_check_but_those_that_ask_a_model_is_in_the_table():
    assert set(ASKED) | set(CODE) == set(parts.names("verification.check")) - NOT_RULES


def test_rule_checks_say_the_same_three_times_in_other_orders_on_other_workers():
    said = same_three_times(ASKED)
    assert not [one for one in said if one.outcome == rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR]
    right = {one.prompt_id for one in said if one.outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT}
    assert right == set(ASKED)


@pytest.mark.sandbox
def test_programs_get_the_same_verdicts_three_times_in_other_orders_in_other_jails():
    said = same_three_times(CODE)
    names = [rollout_pb2.VerdictOutcome.Name(one.outcome).removeprefix("VERDICT_OUTCOME_") for one in said]
    assert names == ["CORRECT", "PARTIAL", "UNPARSABLE", "WRONG", "WRONG", "UNPARSABLE"]
