"""A reader's own copy of a policy, which deltas are written into: one copy in the type that travels, and no second.

    held.begin(manifest)     the copy is in flux: until `finish` it is of no version
    held.take(chunk) ...     verified values, written in place
    held.finish(manifest)    digests compared, values looked at: the copy is of the manifest's version

What was changed since the engine last took the copy is remembered as positions, so that an engine need not copy the
rest; `taken` forgets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline import sparse, weights
from pipeline.errors import Poison
from sluice.v1 import weights_pb2

SHOWN = 5
ALIGNED = 64
WHOLE_ABOVE = 0.4
"""A tensor of which a larger share changed is copied whole."""

Changed = dict[str, list[sparse.Positions] | None]
"""Tensor -> positions that were written (one may occur twice); None: all of it. Others are as they were."""


class Held:
    """One policy. `version` is None while it is none that was announced; `tensors`: flat unsigned integers by name."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.digest = b""
        self.tensors: dict[str, np.ndarray] = {}
        self.specs: dict[str, weights_pb2.TensorSpec] = {}
        self.changed: Changed = {}
        self._digests: dict[str, bytes] = {}
        self._touched: set[str] = set()
        self._unfinite: set[str] = set()

    def begin(self, manifest: weights_pb2.WeightManifest) -> None:
        """The copy is about to be written to; it is made anew for a policy of other tensors."""
        self.version = None
        if weights.spec_differences(list(self.specs.values()), manifest.tensors):
            self.tensors = {
                spec.name: _zeros(weights.tensor_bytes(spec), _kind(spec.dtype)) for spec in manifest.tensors
            }
            self.changed, self._digests, self._unfinite = dict.fromkeys(self.tensors), {}, set()
        self.specs = {spec.name: spec for spec in manifest.tensors}

    def take(self, chunk: weights_pb2.WeightChunk) -> None:
        """Write a chunk in place. Raises `Poison` for what is corrupt or does not fit."""
        spec = self.specs.get(chunk.tensor)
        if spec is None:
            raise Poison(f"chunk of tensor {chunk.tensor!r} is not in the manifest")
        if (chunk.dtype, tuple(chunk.shape)) != (spec.dtype, tuple(spec.shape)):
            accepted = f"{spec.dtype} {tuple(spec.shape)}"
            raise Poison(f"chunk of {chunk.tensor!r} is {chunk.dtype} {tuple(chunk.shape)}; accepted: {accepted}")
        row_values = spec.shape[-1] if len(spec.shape) > 1 else 1
        low, high = chunk.first_row * row_values, (chunk.first_row + chunk.rows) * row_values
        whole = self.tensors[chunk.tensor]
        if high > len(whole):
            raise Poison(f"chunk of {chunk.tensor!r} ends behind the tensor's last row")
        position_K, value_K = weights.decode(chunk)
        if position_K is not None:
            position_K += low
            whole[position_K] = value_K
        else:
            whole[low:high] = value_K
            few = high - low <= WHOLE_ABOVE * len(whole)
            position_K = np.arange(low, high) if few else None
        self._note(chunk.tensor, position_K)

    def wrote_all(self) -> None:
        """Every tensor was written outside of `take`: from a file."""
        for name in self.tensors:
            self._note(name, None)

    def finish(self, manifest: weights_pb2.WeightManifest) -> None:
        """The copy is of the manifest's version, if digests agree. Raises `Poison` that names tensors."""
        for name in self._touched | (self.tensors.keys() - self._digests.keys()):
            self._digests[name] = weights.tensor_digest(self.tensors[name])
        wrong = [name for name, spec in self.specs.items() if spec.digest and spec.digest != self._digests[name]]
        digest = weights.policy_digest(self._digests)
        if wrong or digest != manifest.parts[-1].result_sha256:
            raise Poison(
                f"version {manifest.version} has digest {digest.hex()[:12]}, not the announced one"
                + (f"; tensors that differ: {', '.join(wrong[:SHOWN])}" if wrong else "")
            )
        self.version, self.digest = manifest.version, digest
        self._look(self._touched)
        self._touched = set()

    def unfinite(self) -> list[str]:
        """Tensors with a value that is no finite number."""
        return sorted(self._unfinite)

    def taken(self, given: Mapping[str, np.ndarray] | None = None, whole: bool = True) -> None:
        """An engine has what the copy holds. `given`: memory that it gave for the copy's own, which it keeps.

        That memory holds what the engine had before, and is brought to the copy's version here, while the engine works:
        everywhere when it may differ everywhere (`whole`), else where something changed.
        """
        for name, memory in (given or {}).items():
            values, self.tensors[name] = self.tensors[name], memory
            positions = None if whole else self.changed.get(name)
            if positions is None:
                np.copyto(memory, values)
                continue
            for position_K in positions:
                memory[position_K] = values[position_K]
        self.changed = {}

    def _note(self, name: str, position_K: sparse.Positions | None) -> None:
        self._touched.add(name)
        known = self.changed.setdefault(name, [])
        if position_K is None or known is None:
            self.changed[name] = None
            return
        known.append(position_K)
        if sum(map(len, known)) > WHOLE_ABOVE * len(self.tensors[name]):
            self.changed[name] = None

    def _look(self, touched: set[str]) -> None:
        """Which tensors hold values that are no finite numbers: of a sparse change only what changed is looked at."""
        for name in touched | self._unfinite:
            positions = self.changed.get(name)
            part = name not in self._unfinite and positions is not None
            values = self.tensors[name]
            looked = [values[position_K] for position_K in positions] if part else _blocks(values)  # type: ignore[union-attr]
            bits = weights.EXPONENT[self.specs[name].dtype]
            (self._unfinite.add if any(_all_set(one, bits) for one in looked) else self._unfinite.discard)(name)


def payloads(held: Held) -> Sequence[memoryview]:
    """Bytes of every tensor, in the manifest's order."""
    return [weights.payload(held.tensors[name]) for name in held.specs]


def shapes(held: Held) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of every tensor."""
    return {name: (spec.dtype, tuple(spec.shape)) for name, spec in held.specs.items()}


def _zeros(size_bytes: int, kind: str) -> np.ndarray:
    """Flat zeros that begin at a line of the processor's cache, as torch's do: an engine may compute with them."""
    room = np.zeros(size_bytes + ALIGNED, np.uint8)
    begin = -room.ctypes.data % ALIGNED
    return room[begin : begin + size_bytes].view(kind)


def _kind(dtype: str) -> str:
    return f"<u{weights.DTYPE_BYTES[dtype]}"


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[begin : begin + sparse.BLOCK] for begin in range(0, len(values), sparse.BLOCK)]


def _all_set(values: np.ndarray, bits: int) -> bool:
    mask = values.dtype.type(bits)
    return bool(((values & mask) == mask).any())
