"""A run that trains a LoRA adapter: what is sampled from is what is trained, and nothing else travels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline import records
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from sluice.v1 import training_pb2, weights_pb2
from tests.journey.harness import Running, audit, sluice


def nouns(directory: Path, topic: str, noun: type) -> list:
    run = RunDir.of(directory)
    log = run.open_log()
    try:
        found = [records.decode(record) for record in read_all(log, run.names().topic(topic)) if record.value]
    finally:
        log.close()
    return [one for one in found if isinstance(one, noun)]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_trains_an_adapter_publishes_it_alone_and_leaves_a_merged_model(tmp_path):
    rows = [{"question": f"{i:02d}", "answer": r"[\s\S]*[a-m][\s\S]*"} for i in range(48)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "prompt": "question", "check": "regex"}
    sets = {
        "data.sources": [source],
        "data.held_out": 0,
        "evaluate.prompts": 0,
        "generation.max_tokens": 3,
        "model.policy": "lora",
        "model.lora.rank": 2,
        "learning.lr": 0.01,
        "max_lag": 0,
    }
    directory = tmp_path / "run"
    with Running(directory, sets) as run:
        assert run.wait() == 0, run.said() + run.logs()
    audit(directory)
    manifests = nouns(directory, "weights-manifest", weights_pb2.WeightManifest)
    names = {spec.name for spec in manifests[-1].tensors}
    assert len(names) == 2 * 7 and all(".lora_" in name for name in names)
    assert len({one.base_sha256 for one in manifests}) == 1 and len(manifests[0].base_sha256) == 32
    adapter = load_file(directory / "model" / "adapter" / "adapter_model.safetensors")
    assert adapter.keys() == names and any(adapter[name].any() for name in names if ".lora_B." in name)
    steps = nouns(directory, "steps", training_pb2.TrainStep)
    assert len(steps) == 12 and max(step.metrics["logprob_gap_max"] for step in steps) < 1e-3
    again = sluice("run", str(run.file), "--dir", str(directory), "--plain", *changed(sets | {"model.policy": "full"}))
    assert again.returncode == 2 and "model.policy was 'lora', is 'full'" in again.stderr


def changed(sets: dict) -> list[str]:
    return [word for name, value in sets.items() for word in ("--set", f"{name}={json.dumps(value)}")]
