from pathlib import Path

import pytest

from pipeline import config, doctor
from services.verification.sandbox import walls


def of_the_sandbox() -> dict[str, doctor.Finding]:
    findings = doctor.examine(config.load("pipeline/jobs/spell.yaml", []))
    return {one.what.removeprefix("sandbox: "): one for one in findings if one.what.startswith("sandbox: ")}


@pytest.mark.sandbox
def test_every_wall_of_the_sandbox_is_named_and_stands():
    found = of_the_sandbox()
    names = {"bubblewrap", "system-call filter", "interpreter", "unprivileged user", "cgroup", "namespaces"}
    assert set(found) == names
    assert all(one.good for one in found.values())


def test_a_missing_wall_is_named_with_its_cure_and_fails_no_run_that_needs_none(monkeypatch):
    monkeypatch.setattr(walls.shutil, "which", lambda name: None)
    missing = of_the_sandbox()["bubblewrap"]
    assert missing.good is None
    assert "install bubblewrap" in missing.found


def test_data_and_model_that_are_there_are_rows_that_are_ok():
    found = {one.what: one for one in doctor.examine(config.load("pipeline/jobs/spell.yaml", []))}
    assert (found["data"].good, found["data"].found) == (True, "reasoning_gym")
    assert found["model"].good is not False


def test_a_missing_vllm_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = {one.what: one.found for one in doctor.examine(config.parse({"generation": {"engine": "vllm"}}))}
    assert found["vllm"] == f"missing: `{doctor.VLLM}` installs it"
    assert doctor.VLLM in Path("README.md").read_text()
    assert found["torch"] == "missing: `make setup` installs it"


def test_every_rank_of_the_learner_takes_its_own_memory():
    def learning(ranks: int) -> doctor.Finding:
        run = config.parse({"model": {"source": "builtin:tiny"}, "learning": {"ranks": ranks}})
        return next(finding for finding in doctor.examine(run) if "learning" in finding.what)

    assert learning(1).what == "memory of learning"
    assert learning(4).what == "memory of each of 4 learning ranks"
    assert learning(1).found == learning(4).found
