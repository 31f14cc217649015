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

UNTRAINED_KINDS = (rollout_pb2.TOKEN_KIND_INJECTED, rollout_pb2.TOKEN_KIND_ENVIRONMENT)


@dataclass
class _Flat:
    """Columns in the making: one array per call for tokens, one value per rollout for the rest."""

    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    sequences: list[np.ndarray] = field(default_factory=list)
    sequence_rows: list[int] = field(default_factory=list)

    def along(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            self.arrays.setdefault(name, []).append(array)

    def row(self, **values: float) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)


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
        _calls(flat, row, member.rollout)
        _scalars(flat, member)
    length_N = torch.tensor(flat.values.pop("length", []), dtype=torch.long)
    sizes = torch.tensor([len(group.members) for group in groups], dtype=torch.long)
    columns = _token_columns(flat, length_N, dtype) | _row_columns(flat, dtype) | _sequence_columns(flat)
    columns["length_N"] = length_N
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


def _calls(flat: _Flat, row: int, rollout: rollout_pb2.Rollout) -> None:
    """Append one rollout's calls: token columns, and the sequences that hold them."""
    texts: list[np.ndarray] = []  # the whole context and sample of each call
    homes: list[int] = []  # the sequence that ends with it
    length = 0
    for index, call in enumerate(rollout.calls):
        parent = _parent(index, call)
        before = texts[parent][: call.kept_tokens] if parent >= 0 else np.zeros(0, np.int64)
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
        _tokens(flat, index, call, tokens, home, len(before) + len(context))
        length += len(tokens)
    flat.row(length=length, context=len(rollout.calls[0].context_tokens) if rollout.calls else 0)


def _tokens(flat: _Flat, index: int, call: rollout_pb2.Call, tokens: np.ndarray, home: int, start: int) -> None:
    n = len(tokens)
    kinds = np.array(call.token_kinds, dtype=np.int64) if call.token_kinds else np.zeros(n, np.int64)
    trainable = not call.place.HasField("trainable") or call.place.trainable
    ends = [span.first_token for span in call.spans][1:] + [n]
    lengths = np.diff([0, *ends]) if call.spans else np.zeros(0, np.int64)
    flat.along(
        token=tokens,
        behaviour=np.array(call.logprobs, dtype=np.float64),
        kind=kinds,
        mask=np.full(n, trainable) & ~np.isin(kinds, UNTRAINED_KINDS) if call.token_kinds else np.full(n, trainable),
        sequence=np.full(n, home),
        position=np.arange(start, start + n),
        call=np.full(n, index),
        turn=np.full(n, call.place.turn if call.HasField("place") else index),
        version=np.repeat([span.version for span in call.spans], lengths),
        temperature=np.repeat([span.temperature for span in call.spans], lengths),
    )


def _scalars(flat: _Flat, member: Member) -> None:
    rollout, verdict = member.rollout, member.verdict
    known = rollout.HasField("belief")
    flat.row(
        outcome=verdict.outcome,
        accuracy=verdict.accuracy,
        truncated=rollout.ending == rollout_pb2.ENDING_LENGTH,
        belief=rollout.belief.mean if known else float("nan"),
        effective_n=rollout.belief.effective_n if known else 0.0,
        use=member.use,
    )


def _token_columns(flat: _Flat, length_N: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    longest = int(length_N.max()) if len(length_N) else 0
    valid_NT = torch.arange(longest) < length_N[:, None]
    kinds = {"behaviour": dtype, "temperature": dtype, "mask": torch.bool}
    names = ["token", "behaviour", "kind", "mask", "sequence", "position", "call", "turn", "version", "temperature"]
    columns = {}
    for name in names:
        found = torch.zeros(valid_NT.shape, dtype=kinds.get(name, torch.long))
        if flat.arrays.get(name):
            found[valid_NT] = torch.from_numpy(np.concatenate(flat.arrays[name])).to(found.dtype)
        columns[f"{name}_NT"] = found
    columns["temperature_NT"][~valid_NT] = 1
    return columns


def _row_columns(flat: _Flat, dtype: torch.dtype) -> dict[str, Tensor]:
    kinds = {"outcome": torch.long, "use": torch.long, "context": torch.long, "truncated": torch.bool}
    names = ["outcome", "accuracy", "truncated", "belief", "effective_n", "use", "context"]
    return {f"{name}_N": torch.tensor(flat.values.get(name, []), dtype=kinds.get(name, dtype)) for name in names}


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
