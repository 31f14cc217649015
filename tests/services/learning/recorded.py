"""A finished run's directory, made by hand: what a relearn reads, without four processes and a model that samples."""

from __future__ import annotations

import random
import time
from pathlib import Path

from pipeline import config, records, topics
from pipeline.digest import rollout_sha256
from pipeline.rundir import RunDir
from services.learning import tiny
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2, weights_pb2

GROUPS, SIZE = 24, 4
Outcome = rollout_pb2.VerdictOutcome


def record(path: Path, seed: int = 0) -> RunDir:
    """A run of 24 groups of 4: one rollout failed, one never came, one verdict is a failure of ours."""
    run = config.parse(
        {
            "run": "recorded",
            "generation": {"max_tokens": 6},
            "learning": {"batch_groups": 4, "lr": 1e-3},
            "model": {"context": 32},
        }
    )
    directory = RunDir.make(path, run)
    tiny.build(directory.folder("base"), tiny.TinyModel(layers=1, hidden=16, heads=2, kv_heads=1, intermediate=32))
    draw = random.Random(seed)
    log, names = directory.open_log(), directory.names()
    topics.create(log, names, local=True)
    writer = log.writer(names.own("test"))

    def write(*nouns):
        with writer.transaction() as transaction:
            transaction.sends += [records.encode(names.topic(topic), key, noun) for topic, key, noun in nouns]
        time.sleep(0.002)  # each transaction in a millisecond of its own: a relearn reads in the order of writing

    for version in range(1, 4):
        write(("weights-manifest", "main", weights_pb2.WeightManifest(version=version, step=version - 1, epoch=1)))
    for number in range(GROUPS):
        write(*_group(number, 1 + number // 8, draw))
    write(("control", "run", control_pb2.Control(phase=control_pb2.PHASE_FINISHED)))
    writer.close()
    log.close()
    return directory


def _group(number: int, version: int, draw: random.Random):
    request = prompt_pb2.RolloutRequest(
        request_id=f"r-{number:08d}", group_id=f"g-{number}", prompt_id=f"p-{number % 6}", n=SIZE, final=True,
        deadline_ms=1, belief=prompt_pb2.Belief(mean=0.5, effective_n=4),
    )  # fmt: skip
    yield "requests", request.request_id, request
    for index in (index for index in range(SIZE) if (number, index) != (7, 2)):
        said = _rollout(request, index, version, draw)
        if (number, index) == (3, 0):
            said.ending = rollout_pb2.ENDING_FAILED
        said.sha256 = rollout_sha256(said)
        yield "rollouts", said.prompt_id, said
        outcome = Outcome.VERDICT_OUTCOME_CORRECT if index % 2 else Outcome.VERDICT_OUTCOME_WRONG
        if (number, index) == (3, 0):
            outcome = Outcome.VERDICT_OUTCOME_NOT_RUN
        if (number, index) == (5, 1):
            outcome = Outcome.VERDICT_OUTCOME_INFRA_ERROR
        right = float(outcome == Outcome.VERDICT_OUTCOME_CORRECT)
        verdict = rollout_pb2.Verdict(
            key=said.key, rollout_sha256=said.sha256, prompt_id=said.prompt_id, outcome=outcome, accuracy=right
        )
        yield "verdicts", said.prompt_id, verdict


def _rollout(request, index: int, version: int, draw: random.Random) -> rollout_pb2.Rollout:
    length = draw.randint(2, 6)
    call = rollout_pb2.Call(
        context_tokens=[draw.randrange(3, 90) for _ in range(3)] + [1],
        tokens=[draw.randrange(3, 90) for _ in range(length)],
        logprobs=[-4.6 + 0.2 * draw.random() for _ in range(length)],
        spans=[rollout_pb2.Span(version=version, temperature=1.0)],
    )
    return rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id=request.request_id, index=index, attempt=1),
        prompt_id=request.prompt_id, group_id=request.group_id, calls=[call], belief=request.belief,
        ending=rollout_pb2.ENDING_STOP,
    )  # fmt: skip
