"""A policy as records: tensors cut into chunks, chunks put together again, digests over both.

    encode_dense(tensor) -> WeightChunk ...        the learner writes them, then the manifest (the commit)
    Assembler(manifest).add(chunk) ... .finish()   a reader collects them and compares the policy's digest

Bytes in and bytes out: nothing here knows torch. A chunk is a range of rows of one tensor; a row is a run along the
last dimension (of a tensor with one dimension, or none: a single value).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import zstandard

from pipeline.errors import Poison, UserError
from sluice.v1 import weights_pb2

CHUNK_BYTES = 880_000
"""Most decoded bytes of a chunk: its record stays below the log's 900,000 with its headers and digests."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
WORTH_IT = 0.95
"""zstd is kept when it makes a chunk smaller than this share."""
SHOWN = 5

Buffer = bytes | bytearray | memoryview
Tensors = dict[str, tuple[str, tuple[int, ...], bytearray]]
"""Tensor name -> (dtype, shape, little-endian values)."""


def encode_dense(
    policy_id: str,
    version: int,
    epoch: int,
    name: str,
    dtype: str,
    shape: Sequence[int],
    payload: Buffer,
) -> Iterator[weights_pb2.WeightChunk]:
    """All chunks of one tensor. `payload`: its values, little-endian, row-major."""
    view = memoryview(payload).cast("B")
    row_bytes = _row_bytes(name, dtype, shape)
    if len(view) != _rows(shape) * row_bytes:
        raise UserError(f"tensor {name!r} has {len(view)} bytes; accepted: {_rows(shape) * row_bytes} for {shape}")
    step = CHUNK_BYTES // row_bytes
    packer = zstandard.ZstdCompressor(level=1)
    for first in range(0, _rows(shape), max(step, 1)):
        rows = min(step, _rows(shape) - first)
        dense = view[first * row_bytes : (first + rows) * row_bytes]
        packed = packer.compress(dense)
        smaller = len(packed) < WORTH_IT * len(dense)
        yield weights_pb2.WeightChunk(
            policy_id=policy_id,
            version=version,
            epoch=epoch,
            tensor=name,
            dtype=dtype,
            shape=shape,
            first_row=first,
            rows=rows,
            codec=weights_pb2.WEIGHT_CODEC_DENSE_ZSTD if smaller else weights_pb2.WEIGHT_CODEC_DENSE,
            data=packed if smaller else bytes(dense),
            sha256=hashlib.sha256(dense).digest(),
        )


def decode(chunk: weights_pb2.WeightChunk) -> bytes:
    """The decoded bytes of a dense chunk, verified. Raises `Poison` for another codec, size or digest."""
    size = chunk.rows * _row_bytes(chunk.tensor, chunk.dtype, chunk.shape)
    if chunk.codec == weights_pb2.WEIGHT_CODEC_DENSE:
        dense = chunk.data
    elif chunk.codec == weights_pb2.WEIGHT_CODEC_DENSE_ZSTD:
        dense = _unpacked(chunk, size)
    else:
        raise Poison(f"chunk of {chunk.tensor!r} has codec {chunk.codec}; accepted: DENSE, DENSE_ZSTD")
    if len(dense) != size or hashlib.sha256(dense).digest() != chunk.sha256:
        raise Poison(f"chunk of {chunk.tensor!r} at row {chunk.first_row}, version {chunk.version}, is corrupt")
    return dense


def tensor_digest(payload: Buffer) -> bytes:
    """SHA-256 of one tensor's values; 32 bytes."""
    return hashlib.sha256(payload).digest()


def policy_digest(digests: Mapping[str, bytes]) -> bytes:
    """SHA-256 over tensor names and digests in name order; 32 bytes: equal policies have equal digests.

    >>> policy_digest({"b": b"2", "a": b"1"}) == policy_digest({"a": b"1", "b": b"2"})
    True
    """
    whole = hashlib.sha256()
    for name in sorted(digests):
        whole.update(name.encode())
        whole.update(digests[name])
    return whole.digest()


def spec_differences(wanted: Sequence[weights_pb2.TensorSpec], found: Sequence[weights_pb2.TensorSpec]) -> list[str]:
    """How two policies differ in names, types and shapes: one line each; empty when they are alike."""
    left = {spec.name: (spec.dtype, tuple(spec.shape)) for spec in wanted}
    right = {spec.name: (spec.dtype, tuple(spec.shape)) for spec in found}
    lines = [f"{name} is missing" for name in sorted(left.keys() - right.keys())]
    lines += [f"{name} is unknown" for name in sorted(right.keys() - left.keys())]
    return lines + [
        f"{name} is {right[name]}, not {left[name]}"
        for name in sorted(left.keys() & right)
        if left[name] != right[name]
    ]


class Assembler:
    """Collects the chunks of a manifest's newest anchor into whole tensors.

    Raises `Poison` for what does not fit; the caller keeps serving what it has.
    """

    def __init__(self, manifest: weights_pb2.WeightManifest) -> None:
        if not manifest.parts or not manifest.parts[-1].anchor:
            raise Poison(f"manifest of version {manifest.version} ends in a delta; accepted: an anchor")
        self.manifest = manifest
        self.part = manifest.parts[-1]
        self.tensors: Tensors = {
            spec.name: (spec.dtype, tuple(spec.shape), bytearray(_size(spec))) for spec in manifest.tensors
        }
        self._rows_left = {spec.name: _rows(spec.shape) for spec in manifest.tensors}
        self._seen: set[tuple[str, int]] = set()

    def add(self, chunk: weights_pb2.WeightChunk) -> None:
        """Take one chunk; repeats and chunks of other versions or epochs are ignored."""
        at = (chunk.tensor, chunk.first_row)
        if not self._is_ours(chunk) or at in self._seen:
            return
        if chunk.tensor not in self.tensors:
            raise Poison(f"chunk of tensor {chunk.tensor!r} is not in the manifest of version {self.manifest.version}")
        dtype, shape, whole = self.tensors[chunk.tensor]
        if (chunk.dtype, tuple(chunk.shape)) != (dtype, shape):
            raise Poison(f"chunk of {chunk.tensor!r} is {chunk.dtype} {tuple(chunk.shape)}; accepted: {dtype} {shape}")
        begin = chunk.first_row * _row_bytes(chunk.tensor, dtype, shape)
        dense = decode(chunk)
        if begin + len(dense) > len(whole):
            raise Poison(f"chunk of {chunk.tensor!r} ends behind the tensor's last row")
        whole[begin : begin + len(dense)] = dense
        self._seen.add(at)
        self._rows_left[chunk.tensor] -= chunk.rows

    @property
    def complete(self) -> bool:
        """Whether every row of every tensor is there."""
        return not any(self._rows_left.values())

    def finish(self) -> Tensors:
        """The whole policy, its digest verified."""
        left = [name for name, rows in self._rows_left.items() if rows]
        if left:
            raise Poison(f"version {self.manifest.version} lacks rows of {', '.join(left[:SHOWN])}")
        digest = policy_digest({name: tensor_digest(data) for name, (_, _, data) in self.tensors.items()})
        if digest != self.part.result_sha256:
            raise Poison(f"version {self.manifest.version} has digest {digest.hex()[:12]}, not the announced one")
        return self.tensors

    def _is_ours(self, chunk: weights_pb2.WeightChunk) -> bool:
        ours = (self.manifest.policy_id, self.part.version, self.manifest.epoch)
        return (chunk.policy_id, chunk.version, chunk.epoch) == ours


def _unpacked(chunk: weights_pb2.WeightChunk, size: int) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(chunk.data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise Poison(f"chunk of {chunk.tensor!r} at row {chunk.first_row} does not decompress: {error}") from error


def _rows(shape: Sequence[int]) -> int:
    return math.prod(shape[:-1] if len(shape) > 1 else shape)


def _row_bytes(name: str, dtype: str, shape: Sequence[int]) -> int:
    if dtype not in DTYPE_BYTES:
        raise UserError.choice(f"dtype of tensor {name!r}", dtype, DTYPE_BYTES)
    size = DTYPE_BYTES[dtype] * (shape[-1] if len(shape) > 1 else 1)
    if size > CHUNK_BYTES:
        raise UserError(f"tensor {name!r} has rows of {size} bytes; accepted: up to {CHUNK_BYTES}")
    return size


def _size(spec: weights_pb2.TensorSpec) -> int:
    return _rows(spec.shape) * _row_bytes(spec.name, spec.dtype, spec.shape)
