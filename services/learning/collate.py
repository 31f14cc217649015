"""Rollouts and verdicts in, a batch out: numpy over whole calls, never a Python loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from services.learning.batch import Batch, Denominators
from services.learning.group import Group, Member
from services.learning.ranks import ALONE, World
from sluice.v1 import rollout_pb2

NOTHING = np.zeros(0, np.int64)
UNTRAINED_KINDS = (rollout_pb2.TOKEN_KIND_INJECTED, rollout_pb2.TOKEN_KIND_ENVIRONMENT)


@dataclass
class _Flat:
    """Columns in the making: lists that grow by call, by span, by sequence or by rollout, joined at the end."""

    tokens: list[np.ndarray] = field(default_factory=list)
    logprobs: list[np.ndarray] = field(default_factory=list)
    kinds: list[np.ndarray] = field(default_factory=list)
    calls: list[tuple[int, int, int, int, int, bool]] = field(default_factory=list)
    """Of each call: tokens, sequence, position of the first token, index in the rollout, turn, trainable."""
    spans: list[tuple[int, int, float]] = field(default_factory=list)
    """Of each span: tokens, version, temperature."""
    sequences: list[np.ndarray] = field(default_factory=list)
    sequence_rows: list[int] = field(default_factory=list)
    rollouts: list[tuple[int, int, int, float, bool, float, float, int]] = field(default_factory=list)
    """Of each rollout: the values of `ROLLOUT_COLUMNS`."""


ROLLOUT_COLUMNS = ("length", "context", "outcome", "accuracy", "truncated", "belief", "effective_n", "use")


def collate(
    groups: Sequence[Group],
    version: int,
    max_tokens: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    world: World = ALONE,
) -> Batch:
    """A batch of every member of `groups`, in order. `max_tokens` is the most a rollout may sample.

    Every rollout must be well formed (`flaw` says so). Collective: denominators are counted over the ranks.
    """
    flat = _Flat()
    members = tuple(member for group in groups for member in group.members)
    for row, member in enumerate(members):
        length, context = _calls(flat, row, member.rollout)
        flat.rollouts.append((length, context, *_scalars(member)))
    columns = _row_columns(flat, dtype) | _sequence_columns(flat)
    length_N = columns["length_N"]
    columns |= _token_columns(flat, length_N, dtype)
    sizes = torch.tensor([len(group.members) for group in groups], dtype=torch.long)
    columns["group_N"] = torch.repeat_interleave(torch.arange(len(groups)), sizes)
    columns["reward_N"] = torch.full((len(members),), float("nan"), dtype=dtype)
    batch = Batch(
        members=members,
        groups=len(groups),
        version=version,
        max_tokens=max_tokens,
        denominators=Denominators(0, 0, 0),
        rewards=_to(_rewards(members, dtype), device),
        side=_to(_side(members, length_N, dtype), device),
        world=world,
        **_to(columns, device),
    )
    return batch.counted()


def flaw(member: Member) -> str | None:
    """Why a rollout cannot be trained on, as a bounded reason; None when it can.

    Its arrays must agree in length, its spans begin at token 0 and go up, its log-probs be of a temperature above 0,
    and what a call keeps must be there to be kept.
    """
    lengths: list[int] = []
    for index, call in enumerate(member.rollout.calls):
        n = len(call.tokens)
        parent = _parent(index, call)
        known = lengths[parent] if 0 <= parent < index else 0
        starts = [span.first_token for span in call.spans]
        length = call.kept_tokens + len(call.context_tokens) + n
        sound = (
            parent < index
            and call.kept_tokens <= known
            and len(call.logprobs) == n
            and len(call.token_kinds) in (0, n)
            and (not n or (length > n and starts and starts[0] == 0))
            and starts == sorted(set(starts))
            and (not starts or starts[-1] <= n)
        )
        if not sound:
            return "malformed"
        if any(span.temperature <= 0 for span in call.spans):
            return "untrainable_temperature"
        lengths.append(length)
    return None


def _parent(index: int, call: rollout_pb2.Call) -> int:
    """Index of the call whose context this one continues; -1 for none."""
    return call.place.parent_call if call.place.HasField("parent_call") else index - 1


def _calls(flat: _Flat, row: int, rollout: rollout_pb2.Rollout) -> tuple[int, int]:
    """Append one rollout's calls and the sequences that hold them; its sampled tokens, and its first context's."""
    texts: list[np.ndarray] = []  # the whole context and sample of each call
    homes: list[int] = []  # the sequence that ends with it
    length = 0
    for index, call in enumerate(rollout.calls):
        parent = _parent(index, call)
        before = texts[parent][: call.kept_tokens] if parent >= 0 else NOTHING
        context = np.array(call.context_tokens, dtype=np.int64)
        tokens = np.array(call.tokens, dtype=np.int64)
        text = np.concatenate((before, context, tokens))
        home = homes[parent] if parent >= 0 else -1
        if home >= 0 and flat.sequences[home] is texts[parent] and len(before) == len(texts[parent]):
            flat.sequences[home] = text
        else:
            home = len(flat.sequences)
            flat.sequences.append(text)
            flat.sequence_rows.append(row)
        texts.append(text)
        homes.append(home)
        _tokens(flat, call, tokens)
        trainable = not call.place.HasField("trainable") or call.place.trainable
        turn = call.place.turn if call.HasField("place") else index
        flat.calls.append((len(tokens), home, len(text) - len(tokens), index, turn, trainable))
        length += len(tokens)
    return length, len(rollout.calls[0].context_tokens) if rollout.calls else 0


def _tokens(flat: _Flat, call: rollout_pb2.Call, tokens: np.ndarray) -> None:
    n, spans = len(tokens), call.spans
    flat.tokens.append(tokens)
    flat.logprobs.append(np.array(call.logprobs, dtype=np.float64))
    flat.kinds.append(np.array(call.token_kinds, dtype=np.int64) if call.token_kinds else np.zeros(n, np.int64))
    ends = [span.first_token for span in spans[1:]] + [n]
    flat.spans += [(end - s.first_token, s.version, s.temperature) for s, end in zip(spans, ends, strict=False)]


def _scalars(member: Member) -> tuple[int, float, bool, float, float, int]:
    rollout, verdict = member.rollout, member.verdict
    known, belief = rollout.HasField("belief"), rollout.belief
    truncated = rollout.ending == rollout_pb2.ENDING_LENGTH
    mean, count = (belief.mean, belief.effective_n) if known else (float("nan"), 0.0)
    return verdict.outcome, verdict.accuracy, truncated, mean, count, member.use


def _row_columns(flat: _Flat, dtype: torch.dtype) -> dict[str, Tensor]:
    kinds = {"length": torch.long, "context": torch.long, "outcome": torch.long, "use": torch.long}
    kinds["truncated"] = torch.bool
    table = torch.tensor(flat.rollouts, dtype=torch.float64).view(-1, len(ROLLOUT_COLUMNS))
    return {f"{name}_N": table[:, i].to(kinds.get(name, dtype)) for i, name in enumerate(ROLLOUT_COLUMNS)}


def _token_columns(flat: _Flat, length_N: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """[N, T] columns. K runs along all sampled tokens, row after row."""
    size_C, sequence_C, start_C, call_C, turn_C, trainable_C = _columns(flat.calls, 6)
    size_P, version_P, temperature_P = _columns(flat.spans, 3)
    begin_C = np.cumsum(size_C) - size_C
    kind_K = np.concatenate([NOTHING, *flat.kinds])
    columns_K = {
        "token": np.concatenate([NOTHING, *flat.tokens]),
        "behaviour": np.concatenate([NOTHING, *flat.logprobs]),
        "kind": kind_K,
        "mask": np.repeat(trainable_C, size_C).astype(bool) & ~np.isin(kind_K, UNTRAINED_KINDS),
        "position": np.arange(len(kind_K)) + np.repeat(start_C - begin_C, size_C),
        "sequence": np.repeat(sequence_C, size_C),
        "call": np.repeat(call_C, size_C),
        "turn": np.repeat(turn_C, size_C),
        "version": np.repeat(version_P, size_P),
        "temperature": np.repeat(temperature_P, size_P),
    }
    kinds = {"behaviour": dtype, "temperature": dtype, "mask": torch.bool}
    valid_NT = torch.arange(int(length_N.max()) if len(length_N) else 0) < length_N[:, None]
    found = {}
    for name, column_K in columns_K.items():
        column_NT = torch.zeros(valid_NT.shape, dtype=kinds.get(name, torch.long))
        column_NT[valid_NT] = torch.from_numpy(column_K).to(column_NT.dtype)
        found[f"{name}_NT"] = column_NT
    found["temperature_NT"][~valid_NT] = 1
    return found


def _columns(rows: Sequence[tuple], width: int) -> list[np.ndarray]:
    """The columns of a table; whole numbers where the first row has whole numbers."""
    if not rows:
        return [np.zeros(0, np.int64)] * width
    return [np.array(column) for column in zip(*rows, strict=True)]


def _sequence_columns(flat: _Flat) -> dict[str, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in flat.sequences], dtype=torch.long)
    width = int(lengths.max()) if len(lengths) else 0
    found = torch.zeros((len(lengths), width), dtype=torch.long)
    if flat.sequences:
        found[torch.arange(width) < lengths[:, None]] = torch.from_numpy(np.concatenate(flat.sequences))
    return {"input_SL": found, "length_S": lengths, "row_S": torch.tensor(flat.sequence_rows, dtype=torch.long)}


def _rewards(members: Sequence[Member], dtype: torch.dtype) -> dict[str, Tensor]:
    table = [{reward.name: reward.value for reward in member.verdict.rewards} for member in members]
    names = sorted({name for row in table for name in row})
    return {name: torch.tensor([row.get(name, float("nan")) for row in table], dtype=dtype) for name in names}


def _side(members: Sequence[Member], length_N: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    names = sorted({array.name for member in members for call in member.rollout.calls for array in call.side})
    found = {}
    for name in names:
        column = np.concatenate([_along(call, name) for member in members for call in member.rollout.calls])
        valid_NT = torch.arange(int(length_N.max())) < length_N[:, None]
        found[name] = torch.zeros(valid_NT.shape, dtype=dtype)
        found[name][valid_NT] = torch.from_numpy(column).to(dtype)
    return found


def _along(call: rollout_pb2.Call, name: str) -> np.ndarray:
    for array in call.side:
        if array.name == name and len(array.values) == len(call.tokens):
            return np.array(array.values, dtype=np.float64)
    return np.full(len(call.tokens), np.nan)


def _to(columns: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: column.to(device, non_blocking=True) for name, column in columns.items()}
