"""The generation service as one process: an engine, the thread that keeps it on the newest policy, stage and door."""

from __future__ import annotations

from pathlib import Path

import grpc

from pipeline.config import adapter, weights_store
from pipeline.lora import base_digest
from pipeline.serve import Context
from pipeline.ways import run_concurrent
from services.generation import guides, rollouts
from services.generation.desk import Desk
from services.generation.door import Door
from services.generation.engine.api import EngineOptions
from services.generation.engine.loading import load_tokenizer
from services.generation.engine.open import open_engine
from services.generation.handler import GenerationHandler
from services.generation.prompting import Prompter
from services.generation.updater import Updater
from services.generation.versions import Versions
from services.generation.weights import WeightReader
from sluice.v1 import control_pb2, generation_pb2, generation_pb2_grpc


def build(context: Context) -> GenerationService:
    """The service of this process."""
    return GenerationService(context)


class GenerationService:
    """Stage and door over one engine."""

    def __init__(self, context: Context) -> None:
        self.context = context
        run = context.run
        model = str(context.dir.folder("base").resolve())
        guidance = guides.build(run.generation.guidance)
        options = EngineOptions(
            slots=run.generation.slots,
            max_len=run.model.context,
            kv=run.generation.kv,
            device=run.model.device,
            dtype=run.generation.dtype,
            threads=run.generation.threads,
            replicas=run.generation.replicas,
            tensor_parallel=run.generation.tensor_parallel,
            heats=guidance.heats,
            extra=run.generation.engine_args,
            adapter=adapter(run),
            quantization=run.generation.quantization,
        )
        self.engine = open_engine(run.generation.engine, model, options)
        self.versions = Versions(self.engine, run.max_lag)
        maker = rollouts.Maker(context.worker_id, self.engine.name, run.generation.kv)
        self.desk = Desk(self.engine, Prompter(load_tokenizer(model), self.engine.max_len), maker, guidance)
        self.handler = GenerationHandler(
            self.desk, self.versions, context.life, context.meter, kv_high=run.generation.kv_high
        )
        base_sha256 = base_digest(Path(model)) if options.adapter else b""
        reader = WeightReader(context.log, context.names, rollouts.POLICY_ID, weights_store(run), base_sha256)
        self.updater = Updater(reader, self.versions, context.meter).start()

    def register(self, server: grpc.Server) -> list[str]:
        """Its craft on the door."""
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(Door(self.desk, self.versions), server)
        return [generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name]

    def run(self) -> None:
        """Read requests, write rollouts."""
        stage = self.context.stage
        run_concurrent(
            stage, self.handler, ["requests", "requests-retry"], "generation", f"generation.{stage.worker_id}"
        )

    def status(self, status: control_pb2.WorkerStatus) -> None:
        """State, version, tokens and rollouts, what waits."""
        self.handler.publish()
        standing = self.handler.standing()
        status.state, status.reason = standing.state, standing.reason or self.updater.trouble
        status.version = self.engine.version
        for name, value in self.handler.counts.items():
            status.counters[name] = value
        for name, value in self.handler.gauges().items():
            status.gauges[name] = value
        status.counters["anchors_wanted"] = self.updater.anchors_wanted
        status.gauges["applied_at"] = self.updater.applied_at
        names = self.context.names
        backlog = self.context.log.backlog(names.own("generation"), names.topic("requests"))
        status.gauges["backlog"] = backlog
        self.context.meter.set("sluice_stage_backlog", backlog, topic="requests")
        self.context.meter.set("sluice_generation_running", self.engine.running())
        self.context.meter.set("sluice_generation_replicas", self.engine.replicas)
        status.busy_s = self.context.meter.busy_s = self.engine.busy_s()

    def close(self) -> None:
        """End engine and threads."""
        self.updater.close()
        self.desk.close()
        self.engine.close()
