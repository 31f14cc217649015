"""Policies from the log: finds the newest manifest, brings a copy to its version, checks it, hands it over.

Everything slow happens here, before generation is paused: reading, decompressing, digests, and a look for values that
are no numbers. Whatever does not fit is refused with its reason; the engine keeps serving what it has, in memory of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipeline import chain, records
from pipeline.errors import Poison
from pipeline.held import Held
from pipeline.log.api import Follower, Log
from pipeline.topics import Names
from sluice.v1 import weights_pb2

SHOWN = 5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIGNED = {2: np.int16, 4: np.int32}
WORDS = {2: torch.int16, 4: torch.int32}
"""torch has no unsigned type of these sizes that it can look at as floats."""

Positions = dict[str, torch.Tensor | None]
"""Tensor -> flat positions, int64, that may differ from what was served before; None: any. Others do not differ."""


class Broken(Poison):
    """A version that cannot be reached on the log: a chunk is corrupt or missing. An anchor would help."""


@dataclass(frozen=True)
class Update:
    """A version, ready to be applied. `tensors` are on the CPU and are the reader's own: valid until its next fetch.

    `base`: the version that `changed` is relative to; None when everything may differ.
    """

    version: int
    tensors: dict[str, torch.Tensor]
    base: int | None
    changed: Positions
    density: float
    size_bytes: int


class WeightReader:
    """Follows one policy. Used by one thread. `store`: the run's store of anchors, empty for none.

    `base_sha256`: digest of the model that the policy, an adapter, is put on; empty where it is the whole model.
    """

    def __init__(self, log: Log, names: Names, policy_id: str, store: str = "", base_sha256: bytes = b"") -> None:
        self._log, self._names, self._policy_id, self._store = log, names, policy_id, store
        self._base_sha256 = base_sha256
        self._manifests: Follower | None = None
        self._newest: weights_pb2.WeightManifest | None = None
        self.held = Held()
        self._served: int | None = None
        self.refused = 0
        """Manifests of an older epoch or version than one seen before."""

    def newest(self, timeout: float = 0.0) -> weights_pb2.WeightManifest | None:
        """The newest manifest; waits up to `timeout` seconds for news. Older epochs and versions are refused."""
        for record in self._follow().poll(timeout):
            if not record.value:
                continue
            manifest = records.decode_as(weights_pb2.WeightManifest, record)
            if manifest.policy_id == self._policy_id:
                self._consider(manifest)
        return self._newest

    def fetch(self, manifest: weights_pb2.WeightManifest) -> Update:
        """Bring the copy to this version.

        Raises `Broken` (corrupt or incomplete: an anchor would help), `Poison` (not to be served), `NotReady`, `Lost`.
        """
        if manifest.base_sha256 != self._base_sha256:
            other, own = (one.hex()[:12] or "no other model" for one in (manifest.base_sha256, self._base_sha256))
            said = f"version {manifest.version} goes on {other}, not on the base of this worker, {own}"
            raise Poison(f"{said}; accepted: the same model")
        try:
            parts = chain.fetch(self._log, self._store, manifest, self.held)
        except Poison as error:
            raise Broken(str(error)) from error
        unfinite = self.held.unfinite()
        if unfinite:
            more = f" and {len(unfinite) - SHOWN} more" if len(unfinite) > SHOWN else ""
            names = ", ".join(map(repr, unfinite[:SHOWN]))
            raise Poison(
                f"version {manifest.version} has values that are not finite in {names}{more}; it is not applied"
            )
        return Update(
            manifest.version,
            {name: _tensor(spec, self.held.tensors[name]) for name, spec in self.held.specs.items()},
            self._served,
            {name: _joined(positions) for name, positions in self.held.changed.items()},
            parts[-1].density if parts else 0.0,
            sum(part.size_bytes for part in parts),
        )

    def served(self, version: int, given: Mapping[str, torch.Tensor] | None = None, whole: bool = True) -> None:
        """An engine has taken what the last fetch gave, and for some of its tensors `given` memory of its own.

        `whole`: that memory may differ everywhere, not just in what the fetch changed.
        """
        self._served = version
        self.held.taken({name: _plain(tensor) for name, tensor in (given or {}).items()}, whole)

    def close(self) -> None:
        """Stop following."""
        if self._manifests is not None:
            self._manifests.close()

    def _follow(self) -> Follower:
        if self._manifests is None:
            topic = self._names.topic("weights-manifest")
            bounds = self._log.bounds(topic)
            self._manifests = self._log.follow({(topic, partition): first for partition, (first, _) in bounds.items()})
        return self._manifests

    def _consider(self, manifest: weights_pb2.WeightManifest) -> None:
        last = self._newest
        if last is None or (manifest.epoch >= last.epoch and manifest.version > last.version) or _anew(manifest, last):
            self._newest = manifest
        else:
            self.refused += 1


def _anew(one: weights_pb2.WeightManifest, last: weights_pb2.WeightManifest) -> bool:
    """The same version again, with other parts: an anchor."""
    return (one.epoch, one.version) == (last.epoch, last.version) and list(one.parts) != list(last.parts)


def _tensor(spec: weights_pb2.TensorSpec, values: np.ndarray) -> torch.Tensor:
    signed = torch.from_numpy(values.view(SIGNED[values.itemsize]))
    return signed.view(DTYPES[spec.dtype]).reshape(tuple(spec.shape))


def _plain(tensor: torch.Tensor) -> np.ndarray:
    size = tensor.element_size()
    return tensor.reshape(-1).view(WORDS[size]).numpy().view(f"<u{size}")


def _joined(positions: list[np.ndarray] | None) -> torch.Tensor | None:
    if positions is None:
        return None
    return torch.from_numpy(np.concatenate(positions) if positions else np.empty(0, np.int64))
