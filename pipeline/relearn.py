"""Relearning: train again from the recorded stream of a finished run, or of its archive, under another recipe.

    RUN/log     requests, rollouts, verdicts        read, never written
    NEW/        run.json  relearn.json  base/  model/  log.db (steps, outcomes)  summary.json  metrics.jsonl

What staleness means here. The recorded rollouts were sampled by RUN's policies, not by NEW's, so `max_lag` bounds
nothing: it says how far a sampler may fall behind its own learner. What holds is what was recorded of every token: its
behaviour log-prob, which the recipe's ratios and weights are taken to, and its version. Ages (`replay.max_lag`,
`lag_mean`) count on the record's clock: the newest version that the stream has shown so far, less the token's. A recipe
that is on-policy only is refused whatever `max_lag` says.

The account of NEW is made of RUN's requests, rollouts and verdicts and of NEW's steps and outcomes, by the same law.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import config, recipe, records, topics
from pipeline.audit import Audit, Facts, account, audit_log, read
from pipeline.errors import UserError
from pipeline.log.api import Log, Record, read_all, read_in_time
from pipeline.rundir import RunDir, write_atomically
from pipeline.topics import Names
from sluice.v1 import control_pb2, weights_pb2

FILE = "relearn.json"
STREAM = ("requests", "rollouts", "verdicts")
SEED_HELP = "shuffles groups within blocks of four batches; without it groups come in the recorded order"


@dataclass(frozen=True)
class Origin:
    """What a relearn was made from: `relearn.json`.

    `source`: the run directory it reads, from its own. `run`: that run's name. `sha256`: digest of the stream as it was
    read, empty before. `records`: how many of each topic. `steps`: most optimiser steps; None is all that the stream
    gives. `seed`: see `SEED_HELP`.
    """

    source: str
    run: str
    steps: int | None = None
    seed: int | None = None
    sha256: str = ""
    records: dict[str, int] | None = None


@dataclass(frozen=True)
class Stream:
    """The recorded stream in the order in which it was written, and its digest."""

    records: tuple[Record, ...]
    sha256: str
    counts: dict[str, int]
    ends: dict[tuple[str, int], int]
    """(full topic, partition) -> next offset."""


def prepare(
    source: str | Path, new: str | Path, method: str, steps: int | None = None, seed: int | None = None,
    overrides: Sequence[str] = (),
) -> RunDir:  # fmt: skip
    """Make the run directory of a relearn, ready to train. Raises `UserError` for whatever cannot be."""
    if str(source).endswith((".parquet", ".jsonl")):
        raise UserError(
            f"{str(source)!r} is an export, which holds texts but no tokens and log-probs; accepted: a run directory, "
            "or a folder that `sluice archive` wrote"
        )
    old, target = RunDir.of(source), Path(new)
    if steps is not None and steps < 1:
        raise UserError(f"--steps is {steps}; accepted: 1 or more")
    if origin_of(old) is not None:
        raise UserError(
            f"{str(source)!r} is itself a relearn and recorded no stream; accepted: the run it was made from"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--dir is {str(new)!r}, which exists; accepted: a new folder")
    run = old.run()
    changed = {"recipe": method, "run": f"{run.run[:40]}-relearn", "log": "embedded", "claims": ""}
    changed |= {} if seed is None else {"seed": seed}
    planned = config.parse(run.model_dump(mode="json") | changed, list(overrides), where="the relearn's run file")
    _refuse_on_policy(recipe.load_recipe(planned.recipe))
    recipe.compose(planned)
    _refuse_unfinished(old)
    directory = RunDir.make(target, planned)
    os.symlink(old.folder("base").resolve(), directory.folder("base"), target_is_directory=True)
    write(directory, Origin(os.path.relpath(old.path.resolve(), target.resolve()), run.run, steps, seed))
    log = directory.open_log()
    topics.create(log, directory.names(), local=True)
    log.close()
    return directory


def write(directory: RunDir, origin: Origin) -> None:
    """Write `relearn.json`."""
    write_atomically(directory.file(FILE), json.dumps(asdict(origin), indent=2))


def origin_of(directory: RunDir) -> Origin | None:
    """What a relearn was made from; None for a directory that is no relearn."""
    file = directory.file(FILE)
    return Origin(**json.loads(file.read_text())) if file.is_file() else None


def source_of(directory: RunDir, origin: Origin) -> RunDir:
    """The run directory that a relearn reads. Raises `UserError` when it is gone."""
    return RunDir.of(directory.path / origin.source)


def stream(log: Log, names: Names) -> Stream:
    """The whole recorded stream, in memory: by when each record was written, then topic, partition and offset."""
    found = read_in_time(log, [names.topic(topic) for topic in STREAM])
    digest = hashlib.sha256()
    for one in found:
        head = f"{names.short(one.topic)} {one.partition} {one.offset} {hashlib.sha256(one.value).hexdigest()}\n"
        digest.update(head.encode())
    counts = {topic: sum(one.topic == names.topic(topic) for one in found) for topic in STREAM}
    ends = {
        (names.topic(topic), p): end
        for topic in STREAM
        for p, (_, end) in log.bounds(names.topic(topic)).items()
    }  # fmt: skip
    return Stream(tuple(found), digest.hexdigest(), counts, ends)


def audit_directory(directory: RunDir) -> Audit:
    """The account of a run directory, a relearn's too."""
    origin = origin_of(directory)
    if origin is not None:
        return audit(directory, origin)
    log = directory.open_log()
    try:
        return audit_log(log, directory.names(), int(time.time() * 1000))
    finally:
        log.close()


def audit(directory: RunDir, origin: Origin) -> Audit:
    """The account of a relearn: what RUN recorded, against what NEW says became of it."""
    old = source_of(directory, origin)
    then, names = old.open_log(), old.names()
    now = directory.open_log()
    try:
        found = account(joined(read(then, names), read(now, directory.names())), int(time.time() * 1000))
        digest = stream(then, names).sha256
    finally:
        then.close()
        now.close()
    said = f"relearned from run {origin.run}, whose stream has the digest {origin.sha256[:12]}"
    if digest == origin.sha256:
        return replace(found, source=said)
    differs = f"the stream of run {origin.run} is not the one that was read: its digest is {digest[:12]} now"
    return replace(found, source=said, problems=(*found.problems, differs))


def joined(recorded: Facts, own: Facts) -> Facts:
    """Requests, rollouts and verdicts as recorded; steps, outcomes and checkpoints of the relearn. Pure.

    Of the recorded run's manifests the versions count, for tokens name them; the steps that made them do not.
    """
    kept = {"requests", "requests_twice", "rollouts", "verdicts", "retried", "gate", "dead", "unreadable"}
    facts = replace(own, **{name: getattr(recorded, name) for name in kept})
    facts.manifests = [weights_pb2.WeightManifest(version=one.version) for one in recorded.manifests]
    facts.bounds = own.bounds | {topic: recorded.bounds[topic] for topic in STREAM}
    return facts


def summary(found: dict[str, Any], origin: Origin, metrics: dict[str, float], seconds: float) -> dict[str, Any]:
    """A run's summary as a relearn has it: `found` from its log, and what only a relearn has."""
    trained = found["rollouts_trained"]
    return found | {
        "source": asdict(origin),
        "wall_s": seconds,
        "rollouts_per_s": trained / seconds if seconds else 0.0,
        "metrics": metrics,
    }


def _refuse_on_policy(found: recipe.Recipe) -> None:
    if found.off_policy.mode == "on_policy_only":
        raise UserError(
            f"recipe {found.name!r} is on-policy only ({found.off_policy.source}) and a recorded stream was sampled by "
            "other policies; accepted: a recipe whose off_policy is corrected or any_behaviour"
        )


def _refuse_unfinished(directory: RunDir) -> None:
    log = directory.open_log()
    try:
        said = [
            records.decode_as(control_pb2.Control, one) for one in read_all(log, directory.names().topic("control"))
        ]
    finally:
        log.close()
    phase = said[-1].phase if said else control_pb2.PHASE_UNSPECIFIED
    if phase != control_pb2.PHASE_FINISHED:
        name = control_pb2.Phase.Name(phase).removeprefix("PHASE_").lower()
        raise UserError(
            f"run {str(directory.path)!r} is {name}; accepted: a finished run (`sluice stop` drains one that goes on)"
        )
