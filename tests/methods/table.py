"""`docs/methods.csv`: of every recipe its parts, the test that holds their numbers and the test that it learns.

Nothing is kept by hand: recipes are found in their folder, tests by walking `tests/`. A part's golden test is one that
names the part and holds the numbers of its worked example: of several the one that holds most of them. Where none does
and the example is a doctest, that is the test. `python -m tests.methods.table` writes the file, prints done of total,
and fails on a blank; with `--check` it writes nothing.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import sys
from functools import cache
from pathlib import Path

from pipeline import partspec
from pipeline.methods import own_parts
from pipeline.recipe import load_recipe, shipped

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "methods.csv"
COLUMNS = ("method", "paper", "part", "recipe", "golden test", "learning test", "confidence")
LEARNING = ROOT / "tests" / "services" / "learning" / "test_recipes_learn.py"


def rows() -> list[tuple[str, ...]]:
    """One row per recipe, in name order; see `COLUMNS`. A cell that nothing was found for is empty."""
    found = []
    for name in shipped():
        recipe = load_recipe(name)
        parts = own_parts(recipe)
        golden = [golden_test(part) for part in parts]
        told = "; ".join(dict.fromkeys(golden)) if all(golden) else ""
        learns = learning_test(name, recipe.confidence)
        found.append((recipe.title, recipe.paper, "; ".join(parts), name, told, learns, recipe.confidence))
    return found


def text() -> str:
    """The file."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows())
    return out.getvalue()


def blanks() -> list[str]:
    """What is missing: "recipe: column"."""
    return [f"{row[3]}: {column}" for row in rows() for column, cell in zip(COLUMNS, row, strict=True) if not cell]


def done() -> str:
    """Rows without a blank, of all."""
    found = rows()
    return f"{sum(all(row) for row in found)} of {len(found)} methods have their golden and their learning test"


@cache
def golden_test(part: str) -> str:
    """The test that holds a part ("room.name") to its worked example, or the example itself where it is a doctest with
    a result. Empty when there is none."""
    room, _, name = part.partition(".")
    service = next(one for one in ("learning", "difficulty") if f"{one}.{room}" in partspec.rooms(one))
    spec = partspec.read(f"{service}.{room}", name)
    tests = [
        (file.parent.name == room, file, test)
        for file in sorted((ROOT / "tests" / "services" / service).rglob("test_*.py"))
        for test in _tests(file)
        if _names(test, name) or file.name == f"test_{name}.py"
    ]
    for wanted, least in ((_telling(spec.example), 1), (_numbers(spec.example), len(_numbers(spec.example)) / 2)):
        scored = [(len(_numbers(_source(file, test)) & wanted), near, file, test) for near, file, test in tests]
        held, _, file, test = max(scored, key=lambda each: each[:2], default=(0, False, ROOT, None))
        if held and held >= least:
            return f"{file.relative_to(ROOT)}::{test.name}"
    return f"services/{service}/{room}/{name}.py::doctest" if ">>>" in spec.example and _numbers(spec.example) else ""


def learning_test(recipe: str, confidence: str) -> str:
    """The test that a recipe learns; one marked guess is held to run. Both go over every recipe that ships."""
    wanted = "test_every_recipe_that_is_a_guess_runs" if confidence == "guess" else "test_every_recipe_learns"
    for test in _tests(LEARNING):
        marks = " ".join(ast.unparse(mark) for mark in test.decorator_list)
        if test.name == wanted and "shipped()" in marks + LEARNING.read_text():
            return f"{LEARNING.relative_to(ROOT)}::{test.name}[{recipe}]"
    return ""


@cache
def _tests(file: Path) -> tuple[ast.FunctionDef, ...]:
    return tuple(node for node in _nodes(file) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


@cache
def _nodes(file: Path) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse(file.read_text()).body) if file.is_file() else ()


def _names(test: ast.FunctionDef, name: str) -> bool:
    class_name = "".join(word.capitalize() for word in name.split("_"))
    source = ast.unparse(test)
    return class_name in source or name in source


def _source(file: Path, test: ast.FunctionDef) -> str:
    """A test with the constants of its module that it names."""
    nodes = [node for node in _nodes(file) if isinstance(node, ast.Assign)]
    used = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    kept = [node for node in nodes if used & {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}]
    return "\n".join(map(ast.unparse, [*kept, test]))


def _numbers(text: str) -> frozenset[float]:
    """The sizes of the numbers in a text.

    >>> sorted(_numbers("b = .571429 at lam2 0.5; A [-0.25, 1, 3e-4]"))
    [0.0003, 0.25, 0.5, 0.571429, 1.0]
    """
    found = re.findall(r"(?<![\w.])(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", text)
    return frozenset(abs(float(each)) for each in found)


def _telling(text: str) -> frozenset[float]:
    """Those that hardly stand in two texts by chance.

    >>> sorted(_telling("b = .571429 at 0.5, 1 and 8"))
    [0.571429]
    """
    return frozenset(one for one in _numbers(text) if one % 1 and one != 0.5)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        FILE.write_text(text(), encoding="utf-8")
    print(done())
    sys.exit("\n".join(blanks()) or 0)
