"""Which values of a tensor changed, coded as gaps and new values: what a delta is made of.

    position  5      9      70009          (changed values of the flat array)
    gap       5      4      65535  4465    (from the position before; a filler bridges more than 16 bits)

A filler is an entry like any other: it overwrites an unchanged value with itself, so a reader's sum over the gaps is
all the decoding there is. Entries overwrite and are never differences: taking one twice is no matter.

Payload of K entries: K low bytes of the gaps, K high bytes, then the K values byte plane by byte plane, lowest first.
Planes of one kind compress better than entries do.

Nothing here knows a tensor's type: values are compared and carried as unsigned integers of their size, so that -0.0,
0.0 and every NaN are what they are, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.unsignedinteger]
Positions = NDArray[np.int64]

BLOCK = 1 << 17
"""Values compared at a time: the comparison stays in the processor's cache."""
GAP = 0xFFFF
WORD = 8
"""Flags that are looked at together."""
FEW = 0.25
"""Share of words with a flag up to which looking at words first is faster."""


def changed(new_N: Values, old_N: Values) -> Positions:
    """Positions at which two flat arrays differ, rising.

    >>> changed(np.array([1, 2, 3], np.uint16), np.array([1, 5, 3], np.uint16)).tolist()
    [1]
    """
    found = []
    differ = np.zeros(min(BLOCK, len(new_N) + -len(new_N) % WORD), bool)
    for begin in range(0, len(new_N), BLOCK):
        here = min(BLOCK, len(new_N) - begin)
        differ[here:] = False
        np.not_equal(new_N[begin : begin + here], old_N[begin : begin + here], out=differ[:here])
        positions = _set(differ)
        if len(positions):
            found.append(positions + begin)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _set(flag_N: NDArray[np.bool_]) -> Positions:
    """Positions of the flags that are set. Eight flags are one word: words without any are passed over at once."""
    word_W = flag_N.view(np.uint64)
    word_positions = np.flatnonzero(word_W != 0)
    if len(word_positions) > FEW * len(word_W):
        return np.flatnonzero(flag_N)
    within = np.flatnonzero(word_W[word_positions].view(bool))
    return word_positions[within // WORD] * WORD + within % WORD


def bridged(position_K: Positions) -> Positions:
    """Rising positions with fillers between them, so that no gap is over 65,535.

    >>> bridged(np.array([5, 9, 70009])).tolist()
    [5, 9, 65544, 70009]
    """
    before_K = np.concatenate([[0], position_K[:-1]])
    fillers_K = np.maximum(position_K - before_K - 1, 0) // GAP
    if not fillers_K.any():
        return position_K
    within = np.arange(fillers_K.sum()) - np.repeat(np.cumsum(fillers_K) - fillers_K, fillers_K)
    fillers = np.repeat(before_K, fillers_K) + GAP * (within + 1)
    return np.sort(np.concatenate([position_K, fillers]))


def pack(position_K: Positions, value_K: Values) -> bytes:
    """The payload of entries whose positions are bridged."""
    gap_K = np.diff(position_K, prepend=0).astype("<u2")
    little_K = value_K.astype(value_K.dtype.newbyteorder("<"), copy=False)
    return _planes(gap_K) + _planes(little_K)


def unpack(payload: bytes, entries: int, value_bytes: int) -> tuple[Positions, Values]:
    """(positions, values) of a payload of `entries` entries. Raises `ValueError` for another size.

    >>> [found.tolist() for found in unpack(pack(np.array([3, 7]), np.array([10, 300], np.uint16)), 2, 2)]
    [[3, 7], [10, 300]]
    """
    if len(payload) != entries * (2 + value_bytes):
        raise ValueError(f"{len(payload)} bytes; accepted: {entries * (2 + value_bytes)} for {entries} entries")
    plane_PK = np.frombuffer(payload, np.uint8).reshape(2 + value_bytes, entries)
    gap_K = plane_PK[:2].T.copy().view("<u2").reshape(-1)
    value_K = plane_PK[2:].T.copy().view(f"<u{value_bytes}").reshape(-1)
    return np.cumsum(gap_K, dtype=np.int64), value_K


def _planes(array_K: Values) -> bytes:
    shifts = range(0, 8 * array_K.itemsize, 8)
    return b"".join((array_K >> array_K.dtype.type(shift)).astype(np.uint8).tobytes() for shift in shifts)
