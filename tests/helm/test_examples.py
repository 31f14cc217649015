"""The chart's examples as they stand, without Helm and without a network: the run in each is one that could begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config, recipe
from pipeline.data.load import load_source

EXAMPLES = sorted((Path(__file__).parents[2] / "helm/sluice/examples").glob("*.yaml"))


def run_of(path: Path) -> config.Run:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return config.parse(values["run"] | {"log": f"kafka://{values['kafka']['bootstrapServers']}"}, where=path.name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_run_of_an_example_is_accepted_and_its_method_composes(path):
    recipe.compose(run_of(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_prompt_sources_of_an_example_have_only_knobs_that_exist(path, monkeypatch):
    # Files of a volume are not here; what is asked is whether the knobs are.
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    for source in run_of(path).data.sources:
        load_source(**source)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_that_asks_gsm8k_takes_the_number_behind_the_mark_not_the_whole_solution(path):
    asked = [one for one in run_of(path).data.sources if "gsm8k" in one.get("path", "")]
    assert all((one["subset"], one["answer_after"]) == ("main", "####") for one in asked)
