"""A policy's chunks: ranges of a tensor's rows, coded whole or as what changed, and the digests over them.

    encode_dense(...)  -> WeightChunk ...     every value of a range of rows
    encode_sparse(...) -> WeightChunk ...     the values that differ from the version before, where that is smaller
    decode(chunk)      -> positions, values   verified; what a reader writes into its copy (`pipeline/held.py`)

Bytes in and bytes out: nothing here knows torch. A row is a run along the last dimension (of a tensor with one
dimension, or none: a single value).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from pipeline import sparse
from pipeline.errors import Poison, UserError
from sluice.v1 import weights_pb2

CHUNK_BYTES = 880_000
"""Most decoded bytes of a chunk: its record stays below the log's 900,000 with its headers and digests."""
SHARD_BYTES = 64_000_000
"""Bytes of a tensor that are compared at a time: bounds the memory of the encoder."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
EXPONENT = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}
"""Bits that are all set in values that are no finite number."""
WORTH_IT = 0.95
"""zstd is kept when it makes a chunk smaller than this share."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Range:
    """Rows of one tensor of one version. `rows` of None: to the end."""

    policy_id: str
    version: int
    epoch: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    first_row: int = 0
    rows: int | None = None

    @property
    def row_values(self) -> int:
        """Values of a row."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row. Raises `UserError` for a type that does not travel, and for rows that no record can carry."""
        return _row_bytes(self.name, self.dtype, self.shape)

    @property
    def all_rows(self) -> int:
        """Rows of the range."""
        return _rows(self.shape) - self.first_row if self.rows is None else self.rows

    def chunk(self, codec: int, data: bytes, decoded: Buffer | NDArray, changed: int = 0) -> weights_pb2.WeightChunk:
        """The range as a chunk with this content."""
        return weights_pb2.WeightChunk(
            policy_id=self.policy_id,
            version=self.version,
            epoch=self.epoch,
            tensor=self.name,
            dtype=self.dtype,
            shape=self.shape,
            first_row=self.first_row,
            rows=self.all_rows,
            codec=codec,  # type: ignore[arg-type]
            data=data,
            changed=changed,
            digest=tensor_digest(decoded),
        )


def plain(values: Buffer | NDArray, dtype: str) -> NDArray:
    """Little-endian values of such a type as flat unsigned integers of their size; nothing is copied."""
    kind = f"<u{DTYPE_BYTES[dtype]}"
    return np.frombuffer(values, kind) if len(values) else np.empty(0, kind)


def payload(values: NDArray) -> memoryview:
    """The bytes of flat values; nothing is copied."""
    return memoryview(values).cast("B") if len(values) else memoryview(b"")


def encode_dense(where: Range, values: Buffer | NDArray) -> Iterator[weights_pb2.WeightChunk]:
    """All chunks of a range. `values`: those of the range, little-endian, row-major."""
    view = memoryview(values).cast("B") if len(values) else memoryview(b"")
    row_bytes = where.row_bytes
    if len(view) != where.all_rows * row_bytes:
        raise UserError(f"tensor {where.name!r} has {len(view)} bytes; accepted: {where.all_rows * row_bytes}")
    step = max(CHUNK_BYTES // row_bytes, 1) if row_bytes else 1
    packer = zstandard.ZstdCompressor(level=1)
    for first in range(0, where.all_rows, step):
        rows = min(step, where.all_rows - first)
        dense = view[first * row_bytes : (first + rows) * row_bytes]
        packed = packer.compress(dense)
        smaller = len(packed) < WORTH_IT * len(dense)
        codec = weights_pb2.WEIGHT_CODEC_DENSE_ZSTD if smaller else weights_pb2.WEIGHT_CODEC_DENSE
        here = replace(where, first_row=where.first_row + first, rows=rows)
        yield here.chunk(codec, packed if smaller else bytes(dense), dense)


def shards(where: Range) -> Iterator[Range]:
    """The range in parts of at most `SHARD_BYTES` that can be encoded side by side."""
    step = max(SHARD_BYTES // max(where.row_bytes, 1), 1)
    for first in range(0, where.all_rows, step):
        yield replace(where, first_row=where.first_row + first, rows=min(step, where.all_rows - first))


def encode_sparse(
    where: Range, new_N: sparse.Values, position_K: sparse.Positions
) -> Iterator[weights_pb2.WeightChunk]:
    """Chunks of what changed in a range. `new_N`: its values; `position_K`: those that changed, rising.

    A part of it in which so much changed that the whole is smaller goes dense.
    """
    entry_bytes = 2 + DTYPE_BYTES[where.dtype]
    # Fillers come on top: at most one for 65,535 values.
    most = (CHUNK_BYTES - where.all_rows * where.row_values // sparse.GAP * entry_bytes) // entry_bytes
    row_K = position_K // where.row_values
    begin = 0
    while begin < len(position_K):
        first = int(row_K[begin])
        end = begin + most
        beyond = where.all_rows if end >= len(row_K) else max(int(row_K[end]), first + 1)
        end = int(np.searchsorted(row_K, beyond))
        here = replace(where, first_row=where.first_row + first, rows=beyond - first)
        low, high = first * where.row_values, beyond * where.row_values
        if (end - begin) * entry_bytes < (high - low) * DTYPE_BYTES[where.dtype]:
            yield _sparse_chunk(here, new_N[low:high], position_K[begin:end] - low)
        else:
            yield from encode_dense(here, new_N[low:high])
        begin = end


def _sparse_chunk(where: Range, new_N: sparse.Values, position_K: sparse.Positions) -> weights_pb2.WeightChunk:
    bridged_K = sparse.bridged(position_K)
    payload = sparse.pack(bridged_K, new_N[bridged_K])
    packed = zstandard.ZstdCompressor(level=1).compress(payload)
    return where.chunk(weights_pb2.WEIGHT_CODEC_SPARSE_GAP16_ZSTD, packed, payload, len(bridged_K))


def decode(chunk: weights_pb2.WeightChunk) -> tuple[sparse.Positions | None, sparse.Values]:
    """What a chunk writes: (positions in its range, or None for all of it; values), verified.

    Raises `Poison` for an unknown codec, a wrong size or a wrong digest.
    """
    values = chunk.rows * (chunk.shape[-1] if len(chunk.shape) > 1 else 1)
    item = _row_bytes(chunk.tensor, chunk.dtype, chunk.shape) and DTYPE_BYTES[chunk.dtype]
    if chunk.codec == weights_pb2.WEIGHT_CODEC_SPARSE_GAP16_ZSTD:
        size = chunk.changed * (2 + item)
        payload = _unpacked(chunk, min(size, CHUNK_BYTES))
    elif chunk.codec == weights_pb2.WEIGHT_CODEC_DENSE_ZSTD:
        size = values * item
        payload = _unpacked(chunk, min(size, CHUNK_BYTES))
    elif chunk.codec == weights_pb2.WEIGHT_CODEC_DENSE:
        size, payload = values * item, chunk.data
    else:
        accepted = "DENSE, DENSE_ZSTD, SPARSE_GAP16_ZSTD"
        raise Poison(f"chunk of {chunk.tensor!r} has codec {chunk.codec}; accepted: {accepted}")
    if len(payload) != size or tensor_digest(payload) != chunk.digest:
        raise Poison(f"chunk of {chunk.tensor!r} at row {chunk.first_row}, version {chunk.version}, is corrupt")
    if chunk.codec != weights_pb2.WEIGHT_CODEC_SPARSE_GAP16_ZSTD:
        return None, plain(payload, chunk.dtype)
    position_K, value_K = sparse.unpack(payload, chunk.changed, item)
    if len(position_K) and position_K[-1] >= values:
        raise Poison(f"chunk of {chunk.tensor!r} ends behind its own rows")
    return position_K, value_K


def tensor_digest(payload: Buffer | NDArray) -> bytes:
    """XXH3-128 of one tensor's values; 16 bytes.

    It tells damage and mistakes, ten times as fast as SHA-256 here; who may write is the log's affair.
    """
    return xxhash.xxh3_128_digest(payload)


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


def tensor_bytes(spec: weights_pb2.TensorSpec) -> int:
    """Bytes of a tensor."""
    return _rows(spec.shape) * _row_bytes(spec.name, spec.dtype, spec.shape)
