"""The learning service as one process: trainer, handler, stage and door; rank 0 of its world."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import torch

from pipeline import config, lora, parts, recipe, records
from pipeline.errors import LogUnavailable
from pipeline.log.api import Follower, Position
from pipeline.metrics import Meter
from pipeline.serve import Context
from pipeline.stage import Decoded
from pipeline.ways import Transactions, run_follow
from services.learning import crew, ray_ranks
from services.learning import model as policy
from services.learning.account import StepResult
from services.learning.assembler import Assembler
from services.learning.door import Door
from services.learning.ends import BELIEVED
from services.learning.export import export
from services.learning.group import Group
from services.learning.handler import LearningHandler, Settings
from services.learning.lora import adapted
from services.learning.model import Compute
from services.learning.publish import Plan
from services.learning.trainer import Trainer
from sluice.v1 import control_pb2, learning_pb2, learning_pb2_grpc, training_pb2

POLICY_ID = "main"
ALARMING = ("stale", "nan_step")
"""Reasons of drops that an alert asks for."""
POLL_S = 0.1
Phase = control_pb2.Phase


def build(context: Context) -> LearningService:
    """The service of this process."""
    return LearningService(context)


class Measured:
    """The trainer as the handler asks for it, counted."""

    def __init__(self, trainer: Trainer, meter: Meter, dtype: str) -> None:
        self.trainer, self.meter, self.dtype = trainer, meter, dtype
        self.failed: Callable[[], None] = lambda: None
        """Called where a step raises, before the error goes on."""
        self.vocabulary = trainer.model.get_input_embeddings().num_embeddings
        meter.add("sluice_learning_rollouts_total", 0.0)
        for reason in ALARMING:  # also where there are none, so that the first one is a rise
            for believed in BELIEVED:
                meter.add("sluice_learning_drops_total", 0.0, reason=reason, difficulty=believed)

    def refuses(self, group: Group) -> str:
        """Why a closed group is not worth a place in a batch; empty keeps it.

        A token that the model has no row for would end the process at every start: such a group is dropped.
        """
        if group.highest_token >= self.vocabulary:
            return "token_outside_vocabulary"
        return self.trainer.refuses(group)

    def step(self, groups: Sequence[Group], version: int) -> StepResult:
        """One optimiser step."""
        begun = time.monotonic()
        try:
            result = self.trainer.step(groups, version)
        except RuntimeError:
            self.failed()
            raise
        seconds = time.monotonic() - begun
        self.meter.worked(seconds)
        self.meter.observe("sluice_learning_step_seconds", seconds)
        self._count(groups, result)
        return result

    def state(self) -> Mapping[str, Any]:
        """Shards for a checkpoint."""
        return self.trainer.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        self.trainer.load_state(state)

    def weights(self) -> Iterable[tuple[str, Any]]:
        """The policy in its serving dtype."""
        return self.trainer.weights(self.dtype)

    def _count(self, groups: Sequence[Group], result: Any) -> None:
        meter = self.meter
        sizes = {member.name: member.tokens for group in groups for member in group.members}
        meter.add("sluice_learning_rollouts_total", len(result.uses))
        meter.add("sluice_learning_tokens_total", sum(sizes[(u.key.request_id, u.key.index)] for u in result.uses))
        meter.observe_all("sluice_learning_lag_versions", [(use.lag, use.key.request_id) for use in result.uses])
        for name, value in result.metrics.items():
            meter.set("sluice_learning_stat", value, name=name)
        meter.observe("sluice_learning_accuracy_ratio", result.metrics.get("accuracy_mean", 0.0))


class LearningService:
    """Stage and door over one handler."""

    def __init__(self, context: Context) -> None:
        self.context = context
        run, self.recipe = context.run, recipe.compose(context.run)
        self.base = context.dir.folder("base")
        trainer = trainer_of(run, self.recipe, self.base)
        self.trainer = Measured(trainer, context.meter, serving_dtype(run, trainer.compute))
        self.handler = LearningHandler(
            context.log,
            context.names,
            context.dir.folder("checkpoints"),
            self.trainer,
            parts.load("learning.replay", self.recipe.replay.name, **self.recipe.replay.knobs),
            Assembler(min_group=self.recipe.min_group),
            settings_of(run, lora.base_digest(self.base) if config.adapter(run) else b""),
        )
        self.workers: Follower | None = None
        self._told: set[int] = set()
        self._draining_since_ms = 0
        self._anchors_wanted: Counter[tuple[str, int]] = Counter()
        self._last_step = -1
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._checkpoint: training_pb2.Checkpoint | None = None
        self.crew = self._muster(trainer)  # last: whoever cannot be built needs no others
        if self.crew:
            self.trainer.failed = self.crew.await_loss

    @property
    def finished(self) -> bool:
        """May a leaving process end? When the run ends: as soon as every requested rollout has its outcome.

        When only this process does, as soon as its last step is saved: the run goes on with the next learner.
        """
        return self.handler.finished if self.context.life.run_ends else self.handler.saved

    def register(self, server: grpc.Server) -> list[str]:
        """Its craft on the door."""
        learning_pb2_grpc.add_LearningServiceServicer_to_server(Door(self.handler), server)
        return [learning_pb2.DESCRIPTOR.services_by_name["LearningService"].full_name]

    def run(self) -> None:
        """Read rollouts and verdicts, train."""
        try:
            run_follow(self.context.stage, self, "learning", self._poll_s)
        finally:
            if self.crew is not None:
                self.crew.forgo()
        if self.crew is not None:
            self.crew.dismiss(self.trainer.trainer.stop)

    def start(self) -> Transactions:
        """Begin where the log says."""
        yield from self.handler.start()

    def offsets(self) -> dict[Position, int]:
        """Where reading begins."""
        return self.handler.offsets()

    def __call__(self, found: list[Decoded], now_ms: int) -> Transactions:
        """Learn; and say when the run drains and when it has finished."""
        life, handler = self.context.life, self.handler
        handler.held = life.phase in (Phase.PHASE_PAUSED, Phase.PHASE_UNSPECIFIED) or life.paused_here
        if life.run_ends:
            handler.stop()
        elif life.leaving and not handler.saved:
            handler.save_soon()
        with suppress(LogUnavailable):  # they say it again
            self._hear_workers()
        yield from handler(found, now_ms)
        self.trainer.trainer.idle()
        self._measure()
        if handler.draining and life.phase == Phase.PHASE_RUNNING:
            yield from self._tell(Phase.PHASE_DRAINING, handler.draining)
        if handler.draining and not self._draining_since_ms:
            self._draining_since_ms = now_ms
        if handler.finished and life.phase == Phase.PHASE_DRAINING and Phase.PHASE_FINISHED not in self._told:
            export(self.trainer.trainer.model, self.base, self.context.dir.folder("model"))
            yield from self._tell(Phase.PHASE_FINISHED, f"{handler.draining} at step {handler.step}")

    def poison(self, ids: dict[str, str], reason: str) -> None:
        """A record that could not be read."""
        self.handler.poison(ids, reason)

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        return "paused" if self.handler.held and not self.handler.draining else self.handler.waiting_for()

    def status(self, status: control_pb2.WorkerStatus) -> None:
        """Step, version, what is buffered."""
        handler = self.handler
        status.version, status.reason = handler.version, handler.trouble
        status.counters["steps"] = handler.step
        status.gauges["buffered"] = len(handler.buffer)
        status.gauges["epoch"] = handler.epoch

    def close(self) -> None:
        """Stop following, and end the other ranks."""
        if self.crew is not None:
            self.crew.end()
        if self.workers is not None:
            self.workers.close()

    def _muster(self, trainer: Trainer) -> crew.Crew | None:
        run = self.context.run
        if run.learning.ranks == 1:
            return None
        if run.learning.ray:
            found = ray_ranks.muster(run, self.recipe, self.base, trainer.device, lambda: self.context.life.leaving)
        else:
            found = crew.muster(self.context.dir.path, run.learning.ranks, trainer.device)
        trainer.world = found.world
        return found

    def _poll_s(self) -> float:
        ready = len(self.handler.buffer) >= self.context.run.learning.batch_groups
        return 0.0 if ready and not self.handler.draining else POLL_S

    def _tell(self, phase: int, reason: str) -> Transactions:
        if phase in self._told:
            return
        self._told.add(phase)
        run = self.context.run
        control = control_pb2.Control(
            phase=phase,  # type: ignore[arg-type]
            reason=reason,
            config_digest=config.identity_digest(run),
            config_json=config.canonical(run),
            written_ms=int(time.time() * 1000),
            by="learning",
        )
        yield [records.encode(self.context.names.topic("control"), "run", control)]

    def _hear_workers(self) -> None:
        """Difficulty says that it issues no more, and how many there were; generation, that it needs an anchor."""
        log, topic = self.context.log, self.context.names.topic("workers")
        if self.workers is None:
            self.workers = log.follow({(topic, p): first for p, (first, _) in log.bounds(topic).items()})
        for record in self.workers.poll(0.0, 2000):
            status = records.decode_as(control_pb2.WorkerStatus, record)
            if status.service == "generation":
                self._hear_generation(status)
            drained = status.state == control_pb2.WORKER_STATE_DRAINED and status.service == "difficulty"
            if drained and self._draining_since_ms and status.written_ms >= self._draining_since_ms:
                self.handler.drained(int(status.counters["requests"]))

    def _hear_generation(self, status: control_pb2.WorkerStatus) -> None:
        """A worker counts the versions that it could not reach; every new one is answered with an anchor."""
        worker, wanted = (status.worker_id, status.started_ms), int(status.counters["anchors_wanted"])
        if wanted > self._anchors_wanted[worker]:
            self._anchors_wanted[worker] = wanted
            self.handler.publisher.anchor_wanted = True

    def _measure(self) -> None:
        handler, meter = self.handler, self.context.meter
        for (reason, believed), count in (handler.ledger.dropped - self._dropped).items():
            meter.add("sluice_learning_drops_total", count, reason=reason, difficulty=believed)
        self._dropped = Counter(handler.ledger.dropped)
        if handler.checkpoint is not self._checkpoint:
            self._checkpoint = handler.checkpoint
            meter.set(
                "sluice_learning_checkpoint_timestamp_seconds", _written_at(handler.root / handler.checkpoint.uri)
            )
        if handler.step == self._last_step:
            return
        self._last_step = handler.step
        meter.set("sluice_learning_step", handler.step)
        meter.set("sluice_learning_version", handler.version)
        meter.set("sluice_learning_max_lag", self.context.run.max_lag)
        meter.set("sluice_learning_buffered_groups", len(handler.buffer), where="replay")


def _written_at(folder: Path) -> float:
    """When a checkpoint was written, Unix time: of one that was loaded too, so that its age outlives the process."""
    try:
        return folder.stat().st_mtime
    except OSError:  # it has been pruned meanwhile, or the disk is away
        return time.time()


def trainer_of(run: config.Run, method: recipe.Recipe, base: Path) -> Trainer:
    """The trainer of a run's method, with the model in `base`, and the process set to the run's seed and threads."""
    torch.set_num_threads(run.learning.threads)
    torch.manual_seed(run.seed)
    compute = Compute(
        run.model.device, run.model.dtype, run.learning.tokens_per_micro_batch, run.learning.gradient_checkpointing
    )
    model = adapted(policy.load(str(base.resolve()), compute), config.adapter(run))
    return Trainer(model, method, run.generation.max_tokens, compute)


def settings_of(run: config.Run, base_sha256: bytes = b"") -> Settings:
    """The handler's settings from the run file; `base_sha256` of the model below an adapter."""
    return Settings(
        steps=run.learning.steps,
        batch_groups=run.learning.batch_groups,
        max_lag=run.max_lag,
        checkpoint_every=run.learning.checkpoint_every,
        publish_every=run.learning.publish_every,
        keep_checkpoints=run.learning.keep_checkpoints,
        policy_id=POLICY_ID,
        weights=Plan(run.weights.anchor_every, run.weights.dense_above, config.weights_store(run), base_sha256),
    )


def serving_dtype(run: config.Run, compute: Compute) -> str:
    """The dtype that weights travel in: by default what generation serves."""
    if run.weights.dtype != "auto":
        return run.weights.dtype
    if run.generation.dtype != "auto":
        return run.generation.dtype
    return "bfloat16" if compute.where().type == "cuda" else "float32"
