"""The synchronous limit: with `max_lag: 0` and one worker the real run takes the steps of a plain loop.

With AdamW's `beta1` at 0 a checkpoint holds the gradient of its step as the first moment. The plain loop here is
written from the formula: one rollout at a time, on the policy of the checkpoint before, with no log-probs but its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipeline import records
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from sluice.v1 import rollout_pb2, training_pb2
from tests.journey.harness import Running, audit

STEPS = 3
BATCH = 16
RECIPE = {
    "base": "grpo",
    "name": "grpo",
    "budget": {"name": "fixed", "n": 4},
    "optimizer": {"name": "adamw", "beta1": 0.0, "clip_norm": None},
}


@pytest.fixture(scope="module")
def synchronous(tmp_path_factory) -> Path:
    """A finished run of three steps; half the answers of a random model hold a letter before "n"."""
    folder = tmp_path_factory.mktemp("synchronous")
    rows = [{"question": f"{i:02d}", "answer": r"[\s\S]*[a-m][\s\S]*"} for i in range(48)]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = {"kind": "jsonl", "path": str(folder / "rows.jsonl"), "prompt": "question", "check": "regex"}
    sets = {
        "max_lag": 0,
        "data.sources": [source],
        "data.held_out": 0,
        "evaluate.prompts": 0,
        "recipe": RECIPE,
        "generation.max_tokens": 3,
        "learning.steps": STEPS,
        "learning.lr": 0.01,
        "learning.checkpoint_every": 1,
        "learning.keep_checkpoints": 10,
    }
    with Running(folder / "run", sets) as run:
        assert run.wait() == 0, run.said() + run.logs()
    return folder / "run"


def nouns(directory: Path, topic: str, noun: type) -> list:
    run = RunDir.of(directory)
    log = run.open_log()
    try:
        found = [records.decode(record) for record in read_all(log, run.names().topic(topic))]
    finally:
        log.close()
    return [one for one in found if isinstance(one, noun)]


def name(key: rollout_pb2.RolloutKey) -> tuple[str, int]:
    return key.request_id, key.index


def shards(directory: Path, step: int, shard: str) -> dict[str, torch.Tensor]:
    (folder,) = (directory / "checkpoints").glob(f"step-{step:012d}-epoch-1")
    return load_file(folder / f"{shard}.safetensors")


def plain_gradient(model: torch.nn.Module, groups: list[list[tuple[rollout_pb2.Rollout, float]]]) -> torch.Tensor:
    """Of GRPO at ratio 1: the mean over rollouts of -A times the mean log-prob of what was said."""
    model.zero_grad()
    for members in groups:
        rewards = torch.tensor([reward for _, reward in members])
        for (rollout, _), advantage in zip(members, (rewards - rewards.mean()) / (rewards.std() + 1e-6), strict=True):
            (said,) = rollout.calls
            context, tokens = list(said.context_tokens), list(said.tokens)
            logits = model(torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1]
            logp = logits.log_softmax(-1)[range(len(tokens)), tokens]
            (-advantage * logp.mean() / BATCH).backward()
    return torch.cat([parameter.grad.flatten() for _, parameter in sorted(model.named_parameters())])


def test_the_gradients_of_its_steps_are_those_of_a_plain_loop(synchronous):
    account = audit(synchronous)
    assert account["trained"] == STEPS * BATCH and account["lost"] == account["trained_twice"] == 0
    rollouts = {name(one.key): one for one in nouns(synchronous, "rollouts", rollout_pb2.Rollout)}
    accuracy = {name(one.key): one.accuracy for one in nouns(synchronous, "verdicts", rollout_pb2.Verdict)}
    model = AutoModelForCausalLM.from_pretrained(synchronous / "base", dtype=torch.float32).eval()
    for step in nouns(synchronous, "steps", training_pb2.TrainStep):
        groups = defaultdict(list)
        for use in step.uses:
            assert use.lag == 0
            groups[use.key.request_id].append((rollouts[name(use.key)], accuracy[name(use.key)]))
        expected = plain_gradient(model, list(groups.values()))
        moments = shards(synchronous, step.step, "optimizer")
        found = torch.cat([moments[f"{one}/exp_avg"].flatten() for one, _ in sorted(model.named_parameters())])
        assert expected.norm() > 0.01
        assert (found - expected).norm() / expected.norm() < 1e-5
        model.load_state_dict(shards(synchronous, step.step, "model"), strict=False)
