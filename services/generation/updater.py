"""Keeps the engine on the newest policy: follows manifests, fetches, applies. A thread of its own, so nobody waits.

    newest manifest --fetch, verify--> tensors --(no hold)--> engine.apply --> applied

What cannot be fetched or does not fit is refused once, counted and said; the engine keeps serving what it has, and the
next version is tried afresh. Where an anchor would help (a chunk is corrupt, missing, or below retention), the worker's
status says so, and the learner announces the version again with one. What it does not expect ends it, and with it the
worker: one that never advances again would hold its requests for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from pipeline.errors import Lost, Poison, Retryable, UserError
from pipeline.failpoint import reach
from pipeline.metrics import Meter
from services.generation.fleet import Died
from services.generation.versions import Versions
from services.generation.weights import Broken, Update, WeightReader
from sluice.v1 import weights_pb2

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

POLL_S = 0.25
RETRY_S = 0.5


class Updater:
    """Runs until `close`. `trouble` says why the newest version is not applied; empty when all is well."""

    def __init__(self, reader: WeightReader, versions: Versions, meter: Meter) -> None:
        self.reader, self.versions, self.meter = reader, versions, meter
        self.trouble = ""
        self.updates = 0
        self.still_s = 0.0
        """Seconds for which generation stood still, over all updates."""
        self.anchors_wanted = 0
        """Versions that could not be reached on the log: the learner hears of it and announces an anchor."""
        self.applied_at = 0.0
        """When the applied version was, Unix time; 0 before the first."""
        self._settled: weights_pb2.WeightManifest | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updater", daemon=True)

    def start(self) -> Updater:
        """Begin."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End; waits for an update in progress."""
        self._closing.set()
        self._thread.join(10.0)
        self.reader.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.turn(POLL_S)
            except Retryable as error:
                self.trouble = str(error)
                self._closing.wait(RETRY_S)
            except Exception as error:  # the thread ends, and the stage, told of it, ends the process
                log.exception("the updater ended")
                self.versions.post.tell(Died(f"the updater ended: {type(error).__name__}: {error}"))
                return

    def turn(self, timeout: float) -> None:
        """Look for a newer version, and apply it if there is one."""
        manifest = self.reader.newest(timeout)
        if manifest is None or manifest is self._settled:
            return
        if manifest.version == self.versions.applied:
            self._settled, self.trouble = manifest, ""
            return
        self.versions.heard(manifest.version)
        try:
            update = self.reader.fetch(manifest)
            reach("generation.before_apply", version=manifest.version)
            still_s = self._apply(update)
            while still_s is None and not self._closing.wait(0.02):
                still_s = self._apply(update)
        except (Poison, Lost, UserError) as error:
            self._refuse(manifest, error)
            return
        if still_s is not None:
            self._applied(manifest, update, still_s)

    def _apply(self, update: Update) -> float | None:
        """Seconds for which generation stood still; None when a hold forbids it now."""
        changed = update.changed if update.base is not None and update.base == self.versions.engine.version else None
        given: dict[str, torch.Tensor] = {}
        still_s = self.versions.apply(update.version, update.tensors, changed, given)
        if still_s is not None:
            self.reader.served(update.version, given, whole=changed is None)
        return still_s

    def _applied(self, manifest: weights_pb2.WeightManifest, update: Update, still_s: float) -> None:
        self._settled = manifest
        self.trouble = ""
        self.updates += 1
        self.still_s += still_s
        age_s = max(0.0, time.time() - manifest.published_ms / 1000)
        self.applied_at = time.time()
        self.meter.observe("sluice_generation_apply_seconds", still_s)
        self.meter.set("sluice_generation_version", manifest.version)
        self.meter.set("sluice_generation_weights_bytes", update.size_bytes)
        self.meter.set("sluice_generation_weights_density_ratio", update.density)
        self.meter.observe("sluice_generation_publish_to_apply_seconds", age_s)

    def _refuse(self, manifest: weights_pb2.WeightManifest, error: Exception) -> None:
        self._settled = manifest
        self.trouble = f"version {manifest.version} is refused: {error}"
        self.meter.add("sluice_generation_weights_refused_total", reason=type(error).__name__)
        log.error("%s", self.trouble)
        if isinstance(error, (Broken, Lost)) and self.reader.newest() is manifest:
            self.anchors_wanted += 1
