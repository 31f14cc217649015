"""What readers have: the policy as it was announced last, in the type that travels. Deltas are made against it.

It is advanced while a version is being written, value by value, so that there is never a second copy; the publisher
lets it go when that version is not announced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import anchors, sparse, weights
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2, weights_pb2


@dataclass(frozen=True)
class Plain:
    """One tensor as flat unsigned integers of its type's size."""

    dtype: str
    shape: tuple[int, ...]
    values: np.ndarray

    @classmethod
    def of(cls, tensor: Any) -> Plain:
        """A torch tensor, a numpy array, or one that is plain already. Nothing is copied that need not be."""
        if isinstance(tensor, Plain):
            return tensor
        shape = tuple(int(size) for size in tensor.shape)
        if type(tensor).__module__.partition(".")[0] == "torch":
            import torch

            flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
            return cls(_known(tensor.dtype), shape, weights.plain(flat, _known(tensor.dtype)))
        flat = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        return cls(_known(tensor.dtype), shape, weights.plain(flat, _known(tensor.dtype)))

    def rows(self, shard: weights.Range) -> np.ndarray:
        """The values of some of its rows."""
        return self.values[shard.first_row * shard.row_values : (shard.first_row + shard.all_rows) * shard.row_values]

    def spec(self, name: str, digest: bytes = b"") -> weights_pb2.TensorSpec:
        """Name, type, shape and digest."""
        digest = digest or weights.tensor_digest(self.values)
        return weights_pb2.TensorSpec(name=name, dtype=self.dtype, shape=self.shape, digest=digest)


@dataclass
class Baseline:
    """The copy. `tensors`: by name, in the order in which they travel."""

    tensors: dict[str, Plain] = field(default_factory=dict)
    _digests: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: Iterable[tuple[str, Any]]) -> Baseline:
        """A copy of (name, tensor) pairs."""
        found = ((name, Plain.of(tensor)) for name, tensor in policy)
        return cls({name: Plain(one.dtype, one.shape, one.values.copy()) for name, one in found})

    @property
    def values(self) -> int:
        """Values in all."""
        return sum(len(one.values) for one in self.tensors.values())

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return sum(one.values.nbytes for one in self.tensors.values())

    def advance(self, name: str, new: Plain, shard: weights.Range) -> sparse.Positions:
        """Take over a shard's values; returns the positions, in the shard, of those that changed."""
        own = self._same(name, new).rows(shard)
        values = new.rows(shard)
        position_K = sparse.changed(values, own)
        if len(position_K):
            own[position_K] = values[position_K]
            self._digests.pop(name, None)
        return position_K

    def put(self, name: str, new: Plain) -> None:
        """Take over a whole tensor."""
        np.copyto(self._same(name, new).values, new.values)
        self._digests.pop(name, None)

    def specs(self) -> list[weights_pb2.TensorSpec]:
        """Names, types, shapes and digests."""
        for name, one in self.tensors.items():
            if name not in self._digests:
                self._digests[name] = weights.tensor_digest(one.values)
        return [one.spec(name, self._digests[name]) for name, one in self.tensors.items()]

    def save(self, store: str) -> prompt_pb2.Claim:
        """Put all of it into a store, as a safetensors file."""
        shapes = {name: (one.dtype, one.shape) for name, one in self.tensors.items()}
        return anchors.write(store, shapes, [weights.payload(one.values) for one in self.tensors.values()])

    def _same(self, name: str, new: Plain) -> Plain:
        own = self.tensors.get(name)
        if own is None or (own.dtype, own.shape) != (new.dtype, new.shape):
            was = f"{own.dtype} {own.shape}" if own else "unknown"
            raise UserError(f"tensor {name!r} is {new.dtype} {new.shape}; accepted: what was published before ({was})")
        return own


def _known(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in weights.DTYPE_BYTES:
        raise UserError.choice("the weights' dtype", name, weights.DTYPE_BYTES)
    return name
