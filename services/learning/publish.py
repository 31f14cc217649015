"""Publishing a version: its chunks first, then the manifest that commits it.

    publication = publisher.begin(epoch)
    yield from publication.write(weights)       -> transactions of chunks; it is sent where their records are
    publication.manifest(step, now_ms)          -> in the transaction of the step that made the version
    publisher.announced(manifest)               -> where the weights topic may be trimmed

With `anchor_every` 1 every version is an anchor: complete by itself. Else the publisher keeps a copy of what it
announced last (`Baseline`), and a version is what changed against it, byte by byte; every `anchor_every` versions, when
a reader asks and when a delta would not pay, an anchor. A version whose manifest was never written was never announced:
its chunks are waste that the next trim removes, and the copy, which is ahead of every reader then, is let go.

Retention: the weights topic is trimmed below the second newest anchor, so that a reader which is on its way through the
chain before the newest anchor reaches its end.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline import claims, records, weights
from pipeline.errors import Retryable
from pipeline.log.api import Send
from services.learning.baseline import Baseline, Plain
from sluice.v1 import weights_pb2

logger = logging.getLogger(__name__)

TRANSACTION_BYTES = 32_000_000
"""Coded bytes of one transaction of chunks: bounds the memory of the writer and of the log."""

Transactions = Generator[list[Send], list[tuple[str, int, int]], None]


@dataclass(frozen=True)
class Plan:
    """How versions travel.

    `anchor_every`: versions between anchors; 1: no deltas. `dense_above`: a delta over this share of the policy's bytes
    is not worth it. `store`: where anchors go, an fsspec URL; empty: on the log. `base_sha256`: digest of the model
    that the policy, an adapter, is put on; empty where the policy is the whole model.
    """

    anchor_every: int = 1
    dense_above: float = 0.4
    store: str = ""
    base_sha256: bytes = b""


@dataclass
class Publication:
    """One version on its way. `topic`: full name of the weights topic. `baseline`: the version before, or None.

    `before`: the parts that readers can come from. `anchor`: it is one, whatever its delta is. `again`: the baseline is
    this version already.
    """

    topic: str
    policy_id: str
    version: int
    epoch: int
    plan: Plan = field(default_factory=Plan)
    before: list[weights_pb2.WeightPart] = field(default_factory=list)
    baseline: Baseline | None = None
    anchor: bool = True
    again: bool = False
    parts: list[weights_pb2.WeightPart] = field(default_factory=list, init=False)
    specs: dict[str, weights_pb2.TensorSpec] = field(default_factory=dict, init=False)

    def write(self, policy: Iterable[tuple[str, Any]]) -> Transactions:
        """The chunks of (name, tensor) pairs, one list for each transaction."""
        if self.plan.anchor_every <= 1:
            yield from self._log_anchor(policy)
            return
        if self.baseline is None:
            self.baseline, self.anchor = Baseline.of(policy), True
        elif not self.again:
            yield from self._delta(policy)
        self.specs = {spec.name: spec for spec in self.baseline.specs()}
        if self.anchor and not self._stored_anchor(self.baseline):
            yield from self._log_anchor(self.baseline.tensors.items())

    def manifest(self, step: int, now_ms: int) -> weights_pb2.WeightManifest:
        """The commit of this version. `step` made it."""
        assert self.parts, "a manifest is written after its chunks"
        result = weights.policy_digest({name: spec.digest for name, spec in self.specs.items()})
        for part in self.parts:
            part.result_sha256 = result
        return weights_pb2.WeightManifest(
            policy_id=self.policy_id,
            version=self.version,
            epoch=self.epoch,
            step=step,
            parts=[*self.before, *self.parts],
            tensors=list(self.specs.values()),
            published_ms=now_ms,
            dense_bytes=sum(map(weights.tensor_bytes, self.specs.values())),
            base_sha256=self.plan.base_sha256,
        )

    def _range(self, name: str, tensor: Plain) -> weights.Range:
        return weights.Range(self.policy_id, self.version, self.epoch, name, tensor.dtype, tensor.shape)

    def _stored_anchor(self, baseline: Baseline) -> bool:
        """Put an anchor into the store; False where there is none, or it does not answer: then it goes to the log."""
        if not self.plan.store:
            return False
        try:
            self.parts.append(self._part(anchor=True, claim=baseline.save(self.plan.store)))
        except Retryable as error:
            logger.warning("version %d: its anchor goes to the log: %s", self.version, error)
            return False
        return True

    def _log_anchor(self, policy: Iterable[tuple[str, Any]]) -> Transactions:
        """Every value of every tensor."""
        part = self._part(anchor=True)

        def chunks() -> Iterable[weights_pb2.WeightChunk]:
            for name, tensor in policy:
                found = Plain.of(tensor)
                if name not in self.specs:
                    self.specs[name] = found.spec(name)
                yield from weights.encode_dense(self._range(name, found), found.values)

        yield from self._send(part, chunks())
        self.parts.append(part)

    def _delta(self, policy: Iterable[tuple[str, Any]]) -> Transactions:
        """What changed, if that is worth it; in any case the baseline is of this version afterwards."""
        assert self.baseline is not None
        part = self._part(base_version=self.before[-1].version)
        limit = self.plan.dense_above * self.baseline.size_bytes
        coded: list[weights_pb2.WeightChunk] = []
        size = changed = 0
        for name, tensor in policy:
            found = Plain.of(tensor)
            if size > limit:
                self.baseline.put(name, found)
                continue
            for shard in weights.shards(self._range(name, found)):
                position_K = self.baseline.advance(name, found, shard)
                made = list(weights.encode_sparse(shard, found.rows(shard), position_K))
                changed += len(position_K)
                size += sum(len(chunk.data) for chunk in made)
                coded += made
        if size > limit:
            self.anchor = True
            return
        part.density = changed / max(self.baseline.values, 1)
        yield from self._send(part, coded)
        self.parts.append(part)

    def _part(self, **known: Any) -> weights_pb2.WeightPart:
        size = known["claim"].size_bytes if "claim" in known else 0
        return weights_pb2.WeightPart(version=self.version, density=1.0, size_bytes=size, **known)

    def _send(self, part: weights_pb2.WeightPart, chunks: Iterable[weights_pb2.WeightChunk]) -> Transactions:
        sends: list[Send] = []
        size = 0
        for chunk in chunks:
            if size and size + len(chunk.data) > TRANSACTION_BYTES:
                _wrote(part, (yield sends))
                sends, size = [], 0
            sends.append(records.encode(self.topic, self.policy_id, chunk))
            size += len(chunk.data)
            part.size_bytes += len(chunk.data)
        if sends:
            _wrote(part, (yield sends))


def _wrote(part: weights_pb2.WeightPart, written: list[tuple[str, int, int]]) -> None:
    """The log took a transaction of a part's chunks: (topic, partition, offset) of each."""
    if not part.chunks:
        part.topic, part.partition, part.first_offset = written[0]
    part.last_offset = written[-1][2]
    part.chunks += len(written)


@dataclass
class Publisher:
    """Numbers versions, each once for the life of the run, and knows the chain that readers follow.

    `version`: the highest version announced so far, 0 for none; the first is 1.
    """

    topic: str
    policy_id: str
    plan: Plan = field(default_factory=Plan)
    version: int = 0
    density: float = field(default=1.0, init=False)
    """Share of values that the newest version changed."""
    size_bytes: int = field(default=0, init=False)
    """Coded bytes that a reader of the version before takes for the newest."""
    anchor_wanted: bool = field(default=False, init=False)
    _chain: list[weights_pb2.WeightPart] = field(default_factory=list, init=False)
    _own_from: int = field(default=1, init=False)
    _making: Publication | None = field(default=None, init=False)
    _baseline: Baseline | None = field(default=None, init=False)
    _stored: list[weights_pb2.WeightPart] = field(default_factory=list, init=False)

    def heard(self, manifest: weights_pb2.WeightManifest) -> None:
        """A manifest that the log holds already, at start. Our own chain begins with an anchor."""
        self.version = max(self.version, manifest.version)
        self._stored = [part for part in manifest.parts if part.HasField("claim")]
        self._keep(manifest.parts)

    def begin(self, epoch: int, again: bool = False) -> Publication:
        """The next version. Announced only when its manifest is on the log.

        `again`: the newest one once more, as an anchor, for readers that cannot follow the chain. Without a copy of it
        that is a new version of the policy as it is.
        """
        again = again and self._baseline is not None
        if self._baseline is None:
            self._own_from = self.version + 1
        since = next((at for at, part in enumerate(reversed(self._chain)) if part.anchor), 0)
        self._making = Publication(
            self.topic,
            self.policy_id,
            self.version if again else self.version + 1,
            epoch,
            self.plan,
            [part for part in self._chain if part.version >= self._own_from],
            self._baseline,
            anchor=again or self.anchor_wanted or since + 1 >= self.plan.anchor_every,
            again=again,
        )
        self._baseline = None
        return self._making

    def announced(self, manifest: weights_pb2.WeightManifest) -> tuple[str, int, int] | None:
        """A manifest is on the log. Returns (topic, partition, offset) below which the weights topic may be trimmed."""
        assert self._making is not None
        self.version = max(self.version, manifest.version)
        made, self._making = self._making, None
        self._baseline, self.anchor_wanted = made.baseline, False
        self.density, self.size_bytes = made.parts[0].density, made.parts[0].size_bytes
        self._stored += [part for part in made.parts if part.HasField("claim")]
        return self._keep(made.parts)

    def sweep(self) -> None:
        """Take anchors out of the store that no chain begins with any more."""
        kept = {part.claim.uri for part in self._chain}
        for part in list(self._stored):
            if part.claim.uri not in kept:
                with suppress(Retryable):  # it is tried again after the next version
                    claims.remove(part.claim, self.plan.store)
                    self._stored.remove(part)

    def _keep(self, parts: Iterable[weights_pb2.WeightPart]) -> tuple[str, int, int] | None:
        """The chain from the second newest anchor on."""
        self._chain = [*self._chain, *parts]
        anchored = [at for at, part in enumerate(self._chain) if part.anchor]
        if len(anchored) < 2:
            return None
        self._chain = self._chain[anchored[-2] :]
        begins = [(part.topic, part.partition, part.first_offset) for part in self._chain if part.chunks]
        return min(begins, default=None)
