"""A whole policy as a safetensors file: an anchor in a store, and what an export writes.

The layout follows from names, types and shapes alone, so a reader that has the manifest knows every byte's place and
reads the values straight into its copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import claims
from pipeline.errors import Poison
from pipeline.held import Held, payloads, shapes
from pipeline.weights import DTYPE_BYTES
from sluice.v1 import prompt_pb2

CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor -> (dtype, shape), in the order in which they lie."""


def header(tensors: Shapes) -> bytes:
    """What a safetensors file begins with: the header's length and its JSON, padded to eight bytes."""
    said: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = DTYPE_BYTES[dtype]
        for axis in shape:
            size *= axis
        said[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(store: str, tensors: Shapes, values: Sequence[memoryview]) -> prompt_pb2.Claim:
    """Put a policy into the store. Raises `Retryable` when the store does not take it."""
    return claims.put_blocks(store, [memoryview(header(tensors)), *values])


def read(claim: prompt_pb2.Claim, store: str, held: Held) -> None:
    """Read an anchor from the store into a reader's copy. Raises as `claims.get`."""
    expected = header(shapes(held))
    found = bytearray(len(expected))
    claims.get_into(claim, store, [memoryview(found), *payloads(held)])
    if found != expected:
        raise Poison(f"anchor at {claim.uri!r} is of other tensors than its manifest says")
    held.wrote_all()


def save(path: Path, held: Held) -> None:
    """Write a policy as a file."""
    with path.open("wb") as file:
        file.write(header(shapes(held)))
        for values in payloads(held):
            file.write(values)
