"""Publishing a version: its chunks first, then the manifest that commits it.

    publication = publisher.begin(version, epoch)
    for sends in publication.chunks(weights):  -> one transaction each; `took` hears where its records are
    publication.manifest(step, now_ms)         -> in the transaction of the step that made the version
    publisher.announced(manifest)              -> where the weights topic may be trimmed: below the second newest anchor

Every version is an anchor: complete by itself. A version whose manifest was never written was never announced: its
chunks are waste that the next trim removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline import records, weights
from pipeline.log.api import Send
from sluice.v1 import weights_pb2

TRANSACTION_BYTES = 32_000_000
"""Coded bytes of one transaction of chunks: bounds the memory of the writer and of the log."""


@dataclass
class Publication:
    """One version on its way. `topic`: full name of the weights topic."""

    topic: str
    policy_id: str
    version: int
    epoch: int
    coded_bytes: int = field(default=0, init=False)
    _written: list[tuple[str, int, int]] = field(default_factory=list, init=False)
    _digests: dict[str, bytes] = field(default_factory=dict, init=False)
    _specs: list[weights_pb2.TensorSpec] = field(default_factory=list, init=False)
    _dense_bytes: int = field(default=0, init=False)

    def chunks(self, policy: Iterable[tuple[str, Any]]) -> Iterator[list[Send]]:
        """The chunks of (name, tensor) pairs, one list for each transaction."""
        sends: list[Send] = []
        size = 0
        for name, tensor in policy:
            dtype, shape, payload = _plain(tensor)
            self._digests[name] = weights.tensor_digest(payload)
            self._specs.append(weights_pb2.TensorSpec(name=name, dtype=dtype, shape=shape))
            self._dense_bytes += len(payload)
            for chunk in weights.encode_dense(self.policy_id, self.version, self.epoch, name, dtype, shape, payload):
                if size and size + len(chunk.data) > TRANSACTION_BYTES:
                    yield sends
                    sends, size = [], 0
                sends.append(records.encode(self.topic, self.policy_id, chunk))
                size += len(chunk.data)
                self.coded_bytes += len(chunk.data)
        yield sends

    def took(self, written: Iterable[tuple[str, int, int]]) -> None:
        """The log took a transaction of chunks: (topic, partition, offset) of each."""
        self._written.extend(written)

    def manifest(self, step: int, now_ms: int) -> weights_pb2.WeightManifest:
        """The commit of this version. `step` made it."""
        assert self._written, "a manifest is written after its chunks"
        topic, partition, first = self._written[0]
        part = weights_pb2.WeightPart(
            version=self.version,
            anchor=True,
            topic=topic,
            partition=partition,
            first_offset=first,
            last_offset=self._written[-1][2],
            chunks=len(self._written),
            size_bytes=self.coded_bytes,
            result_sha256=weights.policy_digest(self._digests),
            density=1.0,
        )
        return weights_pb2.WeightManifest(
            policy_id=self.policy_id,
            version=self.version,
            epoch=self.epoch,
            step=step,
            parts=[part],
            tensors=self._specs,
            published_ms=now_ms,
            dense_bytes=self._dense_bytes,
        )


@dataclass
class Publisher:
    """Numbers versions, each once for the life of the run, and remembers where anchors begin.

    `version`: the highest version announced so far, 0 for none; the first is 1.
    """

    topic: str
    policy_id: str
    version: int = 0
    _anchors: list[tuple[str, int, int]] = field(default_factory=list, init=False)

    def heard(self, manifest: weights_pb2.WeightManifest) -> None:
        """A manifest that the log holds already, at start."""
        self.version = max(self.version, manifest.version)
        self.announced(manifest)

    def begin(self, epoch: int) -> Publication:
        """The next version. Announced only when its manifest is on the log."""
        return Publication(self.topic, self.policy_id, self.version + 1, epoch)

    def announced(self, manifest: weights_pb2.WeightManifest) -> tuple[str, int, int] | None:
        """A manifest is on the log. Returns (topic, partition, offset) below which the weights topic may be trimmed."""
        self.version = max(self.version, manifest.version)
        anchor = next(part for part in reversed(manifest.parts) if part.anchor)
        begins = (anchor.topic, anchor.partition, anchor.first_offset)
        self._anchors = [*self._anchors, begins][-2:]
        return self._anchors[0] if len(self._anchors) == 2 else None


def _plain(tensor: Any) -> tuple[str, tuple[int, ...], memoryview]:
    """(dtype, shape, little-endian values) of a torch tensor or a numpy array."""
    shape = tuple(int(size) for size in tensor.shape)
    if type(tensor).__module__.partition(".")[0] == "torch":
        import torch

        plain = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        return str(tensor.dtype).removeprefix("torch."), shape, memoryview(plain).cast("B")
    flat = tensor.reshape(-1)
    return str(tensor.dtype), shape, memoryview(flat.view("uint8")).cast("B")
