"""Keeps the engine on the newest policy: follows manifests, fetches, applies. A thread of its own, so nobody waits.

    newest manifest --fetch, verify--> tensors --(no hold)--> engine.apply --> applied

What cannot be fetched or does not fit is refused once, counted and said; the engine keeps serving what it has, and the
next version is tried afresh.
"""

from __future__ import annotations

import logging
import threading
import time

from pipeline.errors import Lost, Poison, Retryable, UserError
from pipeline.metrics import Meter
from services.generation.engine.api import EngineDied
from services.generation.versions import Versions
from services.generation.weights import WeightReader
from sluice.v1 import weights_pb2

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
        self._settled: tuple[int, int] | None = None
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
            except EngineDied:
                return
            except Retryable as error:
                self.trouble = str(error)
                self._closing.wait(RETRY_S)

    def turn(self, timeout: float) -> None:
        """Look for a newer version, and apply it if there is one."""
        manifest = self.reader.newest(timeout)
        if manifest is None or (manifest.epoch, manifest.version) == self._settled:
            return
        self.versions.heard(manifest.version)
        try:
            tensors = self.reader.fetch(manifest)
            still_s = self.versions.apply(manifest.version, tensors)
            while still_s is None and not self._closing.wait(0.02):
                still_s = self.versions.apply(manifest.version, tensors)
        except (Poison, Lost, UserError) as error:
            self._refuse(manifest, error)
            return
        if still_s is not None:
            self._applied(manifest, still_s)

    def _applied(self, manifest: weights_pb2.WeightManifest, still_s: float) -> None:
        self._settled = (manifest.epoch, manifest.version)
        self.trouble = ""
        self.updates += 1
        self.still_s += still_s
        self.meter.observe("sluice_generation_apply_seconds", still_s)
        self.meter.set("sluice_generation_version", manifest.version)
        self.meter.set("sluice_generation_weights_bytes", manifest.parts[-1].size_bytes)
        self.meter.set("sluice_generation_weights_density_ratio", manifest.parts[-1].density)
        age_s = max(0.0, time.time() - manifest.published_ms / 1000)
        self.meter.observe("sluice_generation_publish_to_apply_seconds", age_s)

    def _refuse(self, manifest: weights_pb2.WeightManifest, error: Exception) -> None:
        self._settled = (manifest.epoch, manifest.version)
        self.trouble = f"version {manifest.version} is refused: {error}"
        self.meter.add("sluice_generation_weights_refused_total", reason=type(error).__name__)
        log.error("%s", self.trouble)
