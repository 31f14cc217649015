"""The difficulty service as one process: its state from the log, its stage, its door."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import Message

from pipeline import parts, recipe
from pipeline.data.prompts import PromptCache
from pipeline.errors import UserError
from pipeline.evidence import unseen
from pipeline.gate import Gate
from pipeline.log.api import Position
from pipeline.serve import Context
from pipeline.stage import Output
from pipeline.ways import run_batch
from services.difficulty.announced import Announced
from services.difficulty.calibration import BINS
from services.difficulty.door import Door
from services.difficulty.handler import Handler
from services.difficulty.rebuild import close_gap
from services.difficulty.scheduler import Scheduler
from services.difficulty.snapshots import Snapshots
from services.difficulty.telling import Teller
from sluice.v1 import control_pb2, difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2

BELIEFS = ("solved", "hopeless", "informative", "unvisited")
GAUGES: dict[str, tuple[str, dict[str, str]]] = {
    "outstanding": ("sluice_difficulty_outstanding", {}),
    "room": ("sluice_difficulty_room", {}),
    "prompts": ("sluice_difficulty_prompts", {}),
    "entropy_mean": ("sluice_difficulty_entropy_nats", {}),
    "brier": ("sluice_difficulty_brier_ratio", {}),
    "calibration_error": ("sluice_difficulty_calibration_error_ratio", {}),
    **{f"informative_{of}": ("sluice_difficulty_informative_share", {"of": of}) for of in ("expected", "observed")},
    **{f"share_{belief}": ("sluice_difficulty_believed_share", {"belief": belief}) for belief in BELIEFS},
    **{
        f"{of}_{place}": ("sluice_difficulty_pass_rate_ratio", {"of": of, "bin": str(place)})
        for of in ("predicted", "observed")
        for place in range(BINS)
    },
}
"""Gauges by name, as metric and labels."""
GAUGES_EVERY_S = 1.0


def build(context: Context) -> DifficultyService:
    """The service of this process."""
    return DifficultyService(context)


def scheduler_of(context: Context) -> Scheduler:
    """Sampler, budget, estimate and gate as the run file and its recipe say."""
    run = context.run
    method = recipe.compose(run)
    chosen = {
        room: parts.load(f"difficulty.{room}", part.name, **part.knobs)
        for room, part in (("estimate", method.estimate), ("sampler", method.sampler), ("budget", method.budget))
    }
    batch = run.learning.batch_groups * chosen["budget"].typical
    sampling = prompt_pb2.SamplingParams(
        temperature=run.generation.temperature,
        top_p=1.0,
        max_tokens=run.generation.max_tokens,
        stop=run.generation.stop,
    )
    return Scheduler(
        **chosen,
        gate=Gate(max_lag=run.max_lag, batch_rollouts=batch),
        sampling=sampling,
        seed=run.seed,
        request_deadline_s=run.generation.request_deadline_s,
        texts_path=_folder(context) / "prompts.bin",
    )


def _folder(context: Context) -> Path:
    """Where this service keeps its files."""
    folder = context.dir.folder("difficulty")
    folder.mkdir(exist_ok=True)
    return folder


class DifficultyService:
    """Stage and door over one scheduler."""

    tick_s = 0.2

    def __init__(self, context: Context) -> None:
        self.context = context
        self.scheduler = scheduler_of(context)
        announced = Announced(context.log, context.names)
        self.handler = Handler(self.scheduler, lambda: int(time.time() * 1000), announced, ready=False)
        self.prompts = PromptCache(context.log, context.names, keep=False)
        self.snapshots = Snapshots(_folder(context) / "snapshot.bin", context, self.handler)
        self.teller = Teller(context.log, context.names, f"difficulty.observe.{context.worker_id}")
        self.drained = False
        self._news: list[prompt_pb2.Prompt] = []
        self._shown: dict[str, float] = {}
        self._shown_at = 0.0

    def register(self, server: grpc.Server) -> list[str]:
        """Its craft on the door."""
        door = Door(self.handler, self.teller, self.snapshots.ask)
        difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server(door, server)
        return [difficulty_pb2.DESCRIPTOR.services_by_name["DifficultyService"].full_name]

    def run(self) -> None:
        """Read verdicts and steps, issue requests."""
        run_batch(self.context.stage, self, ["verdicts", "steps"], "difficulty", "difficulty")

    def restore(self) -> None:
        """The posterior and the gate as their topic has them: from the snapshot on, where there is one."""
        self.handler.ready = False
        begun = time.monotonic()
        with self.handler.lock:
            self.scheduler.undo()
            found = self.context.stage.patiently(self.snapshots.restore)
            if found is not None:
                self.prompts.close()
                self.prompts = PromptCache(self.context.log, self.context.names, found.prompts, keep=False)
            for prompts in self.prompts.batches(wait=True):
                self.scheduler.observe(prompts)
            self.context.stage.patiently(self._close_gap)
        if not self.scheduler.prompts:
            raise UserError(
                "the prompts topic holds no prompt to train on; accepted: at least one (`sluice run` registers them)"
            )
        self.handler.ready = True
        self.context.meter.observe("sluice_difficulty_restore_seconds", time.monotonic() - begun)

    def _close_gap(self) -> None:
        self.handler.look(0)
        names = self.context.names
        close_gap(self.scheduler, self.context.log, names, names.own("difficulty"))

    def __call__(self, nouns: list[Message], offsets: dict[Position, int]) -> list[Output]:
        """Observe, then issue what the gate has room for."""
        life = self.context.life
        held = self.scheduler.draining
        with self.handler.lock:
            self.scheduler.draining = life.run_ends or not life.takes_work
        if offsets:
            self.handler.read_up_to(offsets)
        if not self._news:  # a snapshot says which prompts it holds by what was read
            self.snapshots.tick(self.prompts.read_up_to)
        self._news += self.prompts.news()
        if self._unknown(nouns):  # its prompt may have been registered a moment ago, further down its topic
            for prompts in self.prompts.batches(wait=True):
                self._news += prompts
        lags = self._lags(nouns)
        outputs = [Output(*sent) for sent in self.handler([*self._news, *nouns])]
        self._news = []  # registered, also where this call is taken back
        # What was issued before is committed by now: a call follows the commit of the one before.
        self.drained = life.run_ends and held and not any(output.topic == "requests" for output in outputs)
        self._measure(outputs, lags)
        return outputs

    def _lags(self, nouns: list[Message]) -> list[tuple[float, str]]:
        """How many versions behind each outcome's oldest token is, and the request that it is of."""
        newest = self.scheduler.store.version
        told = [noun for noun in nouns if isinstance(noun, rollout_pb2.Verdict) and not unseen(noun)]
        return [(max(newest - noun.min_version, 0), noun.key.request_id) for noun in told]

    def _unknown(self, nouns: list[Message]) -> bool:
        """Whether a verdict that says something is of a prompt that nobody has told of."""
        told = [noun.prompt_id for noun in nouns if isinstance(noun, rollout_pb2.Verdict) and not unseen(noun)]
        prompts = self.scheduler.prompts
        unknown = {told[place] for place in np.flatnonzero(~prompts.has(prompts.index.find(told))).tolist()}
        return not unknown <= {prompt.prompt_id for prompt in self._news}

    def poison(self, ids: dict[str, str], reason: str) -> list[Output]:
        """The learner reads the same records and ends what they were about."""
        return []

    def waiting_for(self) -> str:
        """Free places, or verdicts and steps."""
        if not self.context.life.takes_work:
            return "paused"
        return "gate" if self.scheduler.waits_for_room() else "records"

    def idle(self) -> bool:
        """It has nothing in flight of its own."""
        return True

    def status(self, status: control_pb2.WorkerStatus) -> None:
        """Places, prompts and beliefs."""
        gate = self.scheduler.gate
        if not self.handler.ready:
            status.state = control_pb2.WORKER_STATE_LOADING
            status.reason = "the posterior is being restored"
        elif self.drained:
            status.state = control_pb2.WORKER_STATE_DRAINED
        status.version = gate.version
        status.counters["requests"] = gate.issued_requests
        status.counters["requested_rollouts"] = gate.issued_rollouts
        status.gauges["snapshot_failed"] = float(bool(self.snapshots.failed))
        if self.snapshots.failed:
            status.reason = f"the snapshot {self.snapshots.failed}: a restart will take longer"
        found = self._gauges()
        for name, value in found.items():
            status.gauges[name] = value
        if found and not found.get("share_informative") and not found.get("share_unvisited"):
            status.reason = "every prompt is believed solved or hopeless: only chance tries another kind"

    def close(self) -> None:
        """Stop following prompts and writing what the door is told."""
        self.prompts.close()
        self.teller.close()

    def _gauges(self) -> dict[str, float]:
        if time.monotonic() - self._shown_at > GAUGES_EVERY_S and self.handler.ready:
            self._shown, self._shown_at = self.handler.gauges(), time.monotonic()
            for name in GAUGES.keys() & self._shown.keys():  # of what is not known yet there is no value
                metric, labels = GAUGES[name]
                self.context.meter.set(metric, self._shown[name], **labels)
        return self._shown

    def _measure(self, outputs: list[Output], lags: list[tuple[float, str]]) -> None:
        self.context.meter.observe_all("sluice_difficulty_lag_versions", lags)
        requests = [output.noun for output in outputs if output.topic == "requests"]
        if requests:
            self.context.meter.add("sluice_difficulty_requests_total", len(requests))
            self.context.meter.add("sluice_difficulty_rollouts_requested_total", sum(r.n for r in requests))
