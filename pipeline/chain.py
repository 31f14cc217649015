"""The way from one version of a policy to another: which parts of a manifest to take, and taking them.

    route(manifest, version, digest)    pure: the deltas since `version`, or the newest anchor and the deltas after it
    fetch(log, store, manifest, held)   reads them into a reader's copy

A manifest names an anchor and every delta and anchor since. A version may be both: a delta for those who have the
version before, an anchor for everybody else. Whatever does not fit (a gap, a chunk that is corrupt or missing, a
digest) leaves the copy of no version: the next fetch begins at the newest anchor.
"""

from __future__ import annotations

import time

from pipeline import anchors, records
from pipeline.errors import NotReady, Poison
from pipeline.held import Held
from pipeline.log.api import Log
from sluice.v1 import weights_pb2

FETCH_S = 120.0
"""Longest wait for the chunks of one part, seconds."""


def route(
    manifest: weights_pb2.WeightManifest, version: int | None, digest: bytes = b""
) -> list[weights_pb2.WeightPart]:
    """Parts to take, in order, by a reader whose copy is of `version` with that digest (None: it has none).

    Raises `Poison` when the parts do not lead to the manifest's version.
    """
    parts = list(manifest.parts)
    if not parts or parts[-1].version != manifest.version:
        raise Poison(f"manifest of version {manifest.version} does not end in it; accepted: parts that lead to it")
    for at in reversed(range(len(parts))):
        if version is not None and (parts[at].version, parts[at].result_sha256) == (version, digest):
            deltas = [part for part in parts[at + 1 :] if not part.anchor]
            if _leads(version, deltas, manifest.version):
                return deltas
            break
    newest = max((at for at, part in enumerate(parts) if part.anchor), default=None)
    if newest is None:
        raise Poison(f"manifest of version {manifest.version} has no anchor; accepted: an anchor and deltas since")
    if not _leads(parts[newest].version, parts[newest + 1 :], manifest.version):
        raise Poison(f"manifest of version {manifest.version} has a gap after its anchor")
    return parts[newest:]


def fetch(log: Log, store: str, manifest: weights_pb2.WeightManifest, held: Held) -> list[weights_pb2.WeightPart]:
    """Bring the copy to the manifest's version; returns the parts that were taken.

    Raises `Poison` (corrupt, or does not fit), `Lost` (below retention), `NotReady`, `Retryable` (the store).
    """
    parts = route(manifest, held.version, held.digest)
    if not parts:
        return []
    held.begin(manifest)
    for part in parts:
        if part.HasField("claim"):
            anchors.read(part.claim, store, held)
        elif part.chunks:
            _read(log, manifest, part, held)
    held.finish(manifest)
    return parts


def _read(log: Log, manifest: weights_pb2.WeightManifest, part: weights_pb2.WeightPart, held: Held) -> None:
    """Every chunk of a part, once; repeats and chunks of other versions or epochs are passed over."""
    at = (part.topic, part.partition)
    ours = (manifest.policy_id, part.version, manifest.epoch)
    seen: set[tuple[str, int]] = set()
    deadline = time.monotonic() + FETCH_S
    follower = log.follow({at: part.first_offset})
    try:
        while len(seen) < part.chunks and follower.positions()[at] <= part.last_offset:
            if time.monotonic() > deadline:
                raise NotReady(f"chunks of version {part.version} did not arrive in {FETCH_S:g} s")
            for record in follower.poll(1.0):
                if record.offset > part.last_offset:
                    continue
                chunk = records.decode_as(weights_pb2.WeightChunk, record)
                name = (chunk.tensor, chunk.first_row)
                if (chunk.policy_id, chunk.version, chunk.epoch) == ours and name not in seen:
                    held.take(chunk)
                    seen.add(name)
    finally:
        follower.close()
    if len(seen) < part.chunks:
        raise Poison(f"version {part.version} lacks {part.chunks - len(seen)} of its {part.chunks} chunks")


def _leads(version: int, deltas: list[weights_pb2.WeightPart], goal: int) -> bool:
    for part in deltas:
        if part.base_version != version:
            return False
        version = part.version
    return version == goal
