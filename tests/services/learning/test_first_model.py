"""The model that a run begins with, made by a process of its own."""

from __future__ import annotations

import yaml

from pipeline import config
from pipeline.base_model import get_model
from pipeline.rundir import RunDir
from tests.journey.harness import ROOT

SPELL = ROOT / "pipeline/jobs/spell.yaml"


def test_a_cold_model_is_the_warm_one_before_any_training_and_is_made_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    asked = yaml.safe_load(SPELL.read_text())
    assert asked["model"]["warm_start"]["steps"] > 0
    directory = RunDir.make(tmp_path / "run", config.load(SPELL, []))
    get_model(directory, cold=True)
    base = directory.folder("base").resolve()
    assert (base / "config.json").is_file() and base.name.startswith("tiny-")
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [base.name]
