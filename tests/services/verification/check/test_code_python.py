import json

import pytest

from pipeline.errors import UserError
from services.verification.check.code_python import CodePython, judge
from services.verification.code_run import Result
from sluice.v1.prompt_pb2 import CheckSpec

sandbox = pytest.mark.sandbox
ADD = {"entry": "add", "tests": [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 4}]}
ECHO = {"tests": [{"input": "a\n", "output": "a"}, {"input": "b\n", "output": "b"}]}
CHECK = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate([1, (2,)]) == [1, (2,), 1, (2,)]
    try:
        candidate(None)
    except TypeError:
        return
    assert False
"""


def found(text, spec, **knobs):
    return CodePython(**knobs)(text, CheckSpec(check="code_python", spec_json=json.dumps(spec)))


@sandbox
@pytest.mark.parametrize(
    ("source", "spec", "outcome", "tests"),
    [
        ("print(input())", ECHO, "CORRECT", (True, True)),
        ("text\n```python\nprint(input())\n```\n", ECHO, "CORRECT", (True, True)),
        ("print('a')", ECHO, "PARTIAL", (True, False)),
        ("print('c')", ECHO, "WRONG", (False, False)),
        ("print(", ECHO, "UNPARSABLE", (False, False)),
        ("", ECHO, "UNPARSABLE", ()),
        ("def add(a, b): return a + b", ADD, "CORRECT", (True, True)),
        ("def add(a, b): return 3", ADD, "PARTIAL", (True, False)),
        ("def add(a, b): return 3.0", ADD, "WRONG", (False, False)),
        ("def add(a, b): raise ValueError", ADD, "WRONG", (False, False)),
        ("def add(a, b):\n  if b == a: exit()\n  return a + b", ADD, "PARTIAL", (True, False)),
        ("import os\ndef add(a, b):\n  if a == 1: os._exit(0)\n  return a + b", ADD, "PARTIAL", (False, True)),
        ("class S:\n  def add(self, a, b): return a + b", ADD | {"entry": "S.add"}, "CORRECT", (True, True)),
        ("def other(): pass", ADD, "WRONG", (False, False)),
        ("def f(x): return 2 * x", {"entry": "f", "python": CHECK}, "CORRECT", (True,)),
        ("def f(x): return x", {"entry": "f", "python": CHECK}, "WRONG", (False,)),
        ("import os\nos._exit(0)", {"entry": "f", "python": CHECK}, "WRONG", (False,)),
    ],
)
def test_tests_decide(source, spec, outcome, tests):
    said = found(source, spec)
    assert (said.name, said.tests) == (outcome, tests), said
    assert outcome != "PARTIAL" or said.accuracy == 0.5 == dict(said.rewards)["tests"]


@sandbox
def test_tuples_equal_what_json_expected_and_literals_are_exact():
    assert (
        found("def f(): return (1, 2)", {"entry": "f", "tests": [{"args": [], "expected": [1, 2]}]}).name == "CORRECT"
    )
    exact = {"entry": "f", "tests": [{"args_python": "[{1, 2}]", "expected_python": "(1, 2)"}]}
    assert found("def f(x): return tuple(sorted(x))", exact).name == "CORRECT"
    assert found("def f(x): return sorted(x)", exact).name == "WRONG"


@sandbox
def test_a_timeout_is_the_cpus_and_sleeping_is_only_wrong():
    spec = {"tests": [{"output": "1"}]}
    assert found("while True: pass", spec, cpu_s=0.2, idle_s=60.0).name == "TIMEOUT"
    idle = found("import time; time.sleep(60)", spec, cpu_s=0.2, idle_s=0.4)
    assert (idle.name, idle.reason) == ("WRONG", "idle")


@sandbox
@pytest.mark.parametrize(
    ("source", "spec"),
    [
        ("n = input()\nwhile n != 'a': pass\nprint(n)", {"tests": [{"input": n, "output": n} for n in "abcdefgh"]}),
        ("def f(n):\n  while n: pass", {"entry": "f", "tests": [{"args": [n], "expected": None} for n in range(8)]}),
    ],
)
def test_a_program_that_hangs_hangs_once(source, spec):
    said = found(source, spec, cpu_s=0.2, idle_s=60.0)
    assert (said.name, said.tests) == ("PARTIAL", (True,) + (False,) * 7)
    assert said.cpu_s < 0.8


@sandbox
def test_an_object_that_equals_everything_and_patched_builtins_do_not_reach_the_tests():
    equal = "class A:\n  def __eq__(s, o): return True\ndef f(x): return A()"
    assert found(equal, {"entry": "f", "python": CHECK}).name == "WRONG"
    patched = f"import builtins\nbuiltins.len = lambda x: 0\n{equal}"
    assert found(patched, {"entry": "f", "python": CHECK}).name in ("WRONG", "VIOLATION")


@pytest.mark.parametrize(
    "spec",
    [{}, {"tests": []}, {"tests": [1]}, {"tests": [{"input": "a"}]}, {"tests": [{"output": 1}]}, {"python": "x"}]
    + [{"entry": "f", "tests": [{"args": []}]}, {"entry": "f", "tests": [{"args": 1, "expected": 1}]}, {"test": []}]
    + [{"entry": "f", "tests": [{"args": [], "expected_python": "f("}]}, {"tests": [{"output": "", "odd": 1}]}],
)
@sandbox
def test_a_spec_that_cannot_be_used_is_a_users_error(spec):
    with pytest.raises(UserError, match="code_python: "):
        found("print(1)", spec)


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([Result(True)], "CORRECT"),
        ([Result(True), Result(False, "wrong")], "PARTIAL"),
        ([Result(False, "wrong"), Result(False, "timeout")], "WRONG"),
        ([Result(False, "timeout", "cpu_limit: x"), Result(False, "wrong")], "TIMEOUT"),
        ([Result(True), Result(False, "violation", "channel: x")], "VIOLATION"),
        ([Result(True), Result(False, "infra")], "INFRA_ERROR"),
    ],
)
def test_one_finding_of_all_tests_and_our_failure_is_never_a_reward(results, outcome):
    said = judge(results)
    assert said.name == outcome
    assert bool(said.rewards) == (outcome != "INFRA_ERROR")
