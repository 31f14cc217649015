"""The pages of methods are what the code says, and no method lacks its tests."""

from __future__ import annotations

from pipeline import cli, methods
from pipeline.recipe import describe, load_recipe, shipped
from tests.methods import table


def test_the_page_of_methods_is_what_the_command_prints(capsys):
    assert cli.main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out == (table.ROOT / "docs/methods.md").read_text(), "run `make methods`"


def test_the_table_of_tests_is_what_the_folders_hold():
    assert table.FILE.read_text() == table.text(), "run `make methods`"


def test_every_method_has_a_golden_and_a_learning_test():
    print(table.done())
    assert table.blanks() == []


def test_a_part_without_a_test_shows_as_a_blank(monkeypatch, tmp_path):
    monkeypatch.setattr(table, "ROOT", tmp_path)
    assert table.golden_test.__wrapped__("advantage.group_norm") == ""


def test_a_part_is_held_by_the_test_of_its_worked_number():
    assert table.golden_test("advantage.group_norm").startswith("tests/services/learning/advantage/test_group_norm.py")


def test_the_command_lists_every_recipe_with_paper_and_confidence(capsys):
    assert cli.main(["methods"]) == 0
    said = "".join(capsys.readouterr().out.split())
    for name in shipped():
        recipe = load_recipe(name)
        assert name[:8] in said and str(recipe.year) in said and recipe.confidence[:4] in said


def test_a_method_is_described_with_formula_knobs_odd_cases_and_worked_number():
    said = describe("grpo")
    for wanted in ("A_i = (r_i - b_i) / s_i", "ddof = 1", "Odd case", "1.499997", "arXiv:2402.03300"):
        assert wanted in said
    assert methods.own_parts(load_recipe("grpo"))[0] == "advantage.group_norm"
