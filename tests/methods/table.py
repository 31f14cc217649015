"""`docs/methods.csv`: of every recipe its parts, the test that holds their numbers and the test that it learns.

Nothing is kept by hand: recipes are found in their folder, tests by walking `tests/`. A part's golden test is a test in
the file or room of that part which names it. `python -m tests.methods.table` writes the file and prints done of total.
"""

from __future__ import annotations

import ast
import csv
import io
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
    """The test that holds a part ("room.name") to its numbers: in the part's own test file, else in its room, else in
    its service, a test that names the part; of several the one with most decimal numbers. Empty when there is none."""
    room, _, name = part.partition(".")
    service = next(one for one in ("learning", "difficulty") if f"{one}.{room}" in partspec.rooms(one))
    folder = ROOT / "tests" / "services" / service
    own = folder / room / f"test_{name}.py"
    for files in ([own], sorted((folder / room).glob("test_*.py")), sorted(folder.rglob("test_*.py"))):
        tests = [(file, test) for file in files for test in _tests(file) if file == own or _names(test, name)]
        if tests:
            file, test = max(tests, key=lambda pair: _decimals(pair[1]))
            return f"{file.relative_to(ROOT)}::{test.name}"
    return ""


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
    if not file.is_file():
        return ()
    nodes = ast.parse(file.read_text()).body
    return tuple(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def _names(test: ast.FunctionDef, name: str) -> bool:
    class_name = "".join(word.capitalize() for word in name.split("_"))
    source = ast.unparse(test)
    return class_name in source or name in source


def _decimals(test: ast.FunctionDef) -> int:
    return sum(isinstance(node, ast.Constant) and isinstance(node.value, float) for node in ast.walk(test))


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(done())
