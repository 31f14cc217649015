"""Policies from the log: finds the newest manifest, fetches its chunks, checks them, hands tensors over.

Everything slow happens here, before generation is paused: reading, decompressing, digests, and a look for values that
are no numbers. Whatever does not fit is refused with its reason; the engine keeps serving what it has.
"""

from __future__ import annotations

import time

import torch

from pipeline import records
from pipeline.errors import NotReady, Poison
from pipeline.log.api import Follower, Log
from pipeline.topics import Names
from pipeline.weights import Assembler
from sluice.v1 import weights_pb2

FETCH_S = 120.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class WeightReader:
    """Follows one policy. Used by one thread."""

    def __init__(self, log: Log, names: Names, policy_id: str) -> None:
        self._log, self._names, self._policy_id = log, names, policy_id
        self._manifests: Follower | None = None
        self._newest: weights_pb2.WeightManifest | None = None
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

    def fetch(self, manifest: weights_pb2.WeightManifest) -> dict[str, torch.Tensor]:
        """The policy's tensors on the CPU. Raises `Lost`, `Poison` (does not fit, or is corrupt), `NotReady`."""
        assembler = Assembler(manifest)
        part = assembler.part
        follower = self._log.follow({(part.topic, part.partition): part.first_offset})
        deadline = time.monotonic() + FETCH_S
        try:
            while not assembler.complete and self._position(follower) <= part.last_offset:
                if time.monotonic() > deadline:
                    raise NotReady(f"chunks of version {manifest.version} did not arrive in {FETCH_S:g} s")
                for record in follower.poll(1.0):
                    if record.offset <= part.last_offset:
                        assembler.add(records.decode_as(weights_pb2.WeightChunk, record))
        finally:
            follower.close()
        tensors = {name: _tensor(*found) for name, found in assembler.finish().items()}
        check_finite(tensors, manifest.version)
        return tensors

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
        if last and (manifest.epoch < last.epoch or manifest.version <= last.version):
            self.refused += 1
            return
        self._newest = manifest

    @staticmethod
    def _position(follower: Follower) -> int:
        return next(iter(follower.positions().values()))


def check_finite(tensors: dict[str, torch.Tensor], version: int) -> None:
    """Raises `Poison` that names the first tensor with a value that is no finite number."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise Poison(f"version {version} has values that are not finite in {name!r}; it is not applied")


def _tensor(dtype: str, shape: tuple[int, ...], data: bytearray) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=DTYPES[dtype])
    return torch.frombuffer(data, dtype=DTYPES[dtype]).reshape(shape)
