"""Where a learner begins: the newest named checkpoint that verifies, a new epoch, the highest version ever announced.

Called after the writer has fenced every older learner, so that nothing it reads changes under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from pipeline import records
from pipeline.errors import UserError
from pipeline.lineage import Lineage
from pipeline.log.api import Log, Record, read_all, read_batches
from pipeline.topics import Names
from services.learning import checkpoint
from services.learning.checkpoint import Damaged
from sluice.v1 import training_pb2, weights_pb2

TAIL = 50
"""Records at the end of `steps` that are looked at for the highest epoch: epochs only rise."""


@dataclass(frozen=True)
class Beginning:
    """What a start goes by. `checkpoint` and `state` are None on the first start of a run.

    `epoch`: the new one. `damaged`: a sentence for each checkpoint that was passed over. `taken`: outcomes that stand
    although the checkpoint does not know them; only after a fall back to an older one.
    """

    epoch: int
    checkpoint: training_pb2.Checkpoint | None = None
    state: dict[str, Any] | None = None
    manifest: weights_pb2.WeightManifest | None = None
    named: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    taken: tuple[training_pb2.Outcome, ...] = ()


def find(log: Log, names: Names, root: Path) -> Beginning:
    """Read the log and the checkpoint folder.

    Raises `Damaged` when there are checkpoints and none verifies, `UserError` when the folder is of another log.
    """
    checkpoints = _nouns(log, names.topic("checkpoints"), training_pb2.Checkpoint)
    manifests = _nouns(log, names.topic("weights-manifest"), weights_pb2.WeightManifest)
    manifest = max(manifests, key=lambda one: one.version, default=None)
    stamped = [*checkpoints, *manifests, *(records.decode(record) for record in _tail(log, names.topic("steps")))]
    epoch = 1 + max((one.epoch for one in stamped), default=0)
    candidates = in_force(checkpoints)
    chosen, state, damaged = _first_that_verifies(root, candidates)
    if chosen is None:
        if damaged:
            raise Damaged(f"no checkpoint of this run can be loaded: {'; '.join(damaged)}")
        _refuse_another_log(root)
        return Beginning(epoch, manifest=manifest)
    # A newer checkpoint that is damaged, now or at an earlier start, named outcomes that this one does not know.
    fell_back = any(one.step > chosen.step for one in checkpoints)
    taken = _outcomes_until(log, names, chosen.step, epoch) if fell_back else ()
    named = tuple(one.uri for one in candidates if one.step <= chosen.step)
    return Beginning(epoch, chosen, state, manifest, named, tuple(damaged), taken)


def _refuse_another_log(root: Path) -> None:
    """A log names a checkpoint before the first step: one that names none never saw the steps that lie here."""
    if step := checkpoint.newest_step(root):
        raise UserError(
            f"{str(root)!r} holds a checkpoint of step {step} and the log names none: it is not the log of this run; "
            "accepted: an address of that log, or another run directory"
        )


def in_force(checkpoints: Iterable[training_pb2.Checkpoint]) -> list[training_pb2.Checkpoint]:
    """Checkpoints that stand, newest first. For each step the newest record counts.

    Every epoch begins by naming the checkpoint it begins from, so an older epoch's checkpoints stand up to the lowest
    step that a later one names.
    """
    newest = {one.step: one for one in checkpoints}
    found: list[training_pb2.Checkpoint] = []
    for one in sorted(newest.values(), key=lambda one: (one.epoch, one.step), reverse=True):
        if all(one.step <= later.step for later in found if later.epoch > one.epoch):
            found.append(one)
    return found


def _first_that_verifies(
    root: Path, candidates: list[training_pb2.Checkpoint]
) -> tuple[training_pb2.Checkpoint | None, dict[str, Any] | None, list[str]]:
    damaged: list[str] = []
    for one in candidates:
        try:
            return one, checkpoint.load(root, one.uri, one.sha256), damaged
        except Damaged as error:
            damaged.append(str(error))
    return None, None, damaged


def _outcomes_until(log: Log, names: Names, step: int, epoch: int) -> tuple[training_pb2.Outcome, ...]:
    rewinds = _nouns(log, names.topic("steps"), training_pb2.Rewind)
    lineage = Lineage(Lineage.of(rewinds).rewinds | {epoch: step})
    outcomes = _nouns(log, names.topic("outcomes"), training_pb2.Outcome)
    return tuple(one for one in outcomes if lineage.stands(one.epoch, one.step))


def _nouns(log: Log, topic: str, noun: type[Message]) -> list[Any]:
    wanted = noun.DESCRIPTOR.name
    found = (record for record in read_all(log, topic) if record.value and records.noun_name(record) == wanted)
    return [records.decode(record) for record in found]


def _tail(log: Log, topic: str) -> list[Record]:
    bounds = log.bounds(topic)
    since = {partition: end - TAIL for partition, (_, end) in bounds.items()}
    return [record for batch in read_batches(log, topic, since, bounds) for record in batch]
