"""How far each prompt's policy moved: what SPO's value tracker forgets by.

    D_q = mean over tokens of | stored_t - log pi_new(y_t) |   on the prompt's previous trajectory, after the update

and then the trajectory just trained takes its place, with its log-probs under the updated policy. Two passes without a
gradient per step.

Source: Single-stream Policy Optimization, arXiv:2509.13232, and its recipe in verl-recipe (`spo_ray_trainer.py`).
Odd cases: a prompt's first visit reports nothing (the tracker reads that as no change). Of several rollouts of a prompt
in one step, the last is kept. A trajectory without a trained token is not kept. Beyond `most` prompts the one seen
longest ago is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.controller import Score
from services.learning.group import Group, Member
from services.learning.reduce import row_mean
from sluice.v1 import rollout_pb2, training_pb2


@dataclass(frozen=True)
class PromptShift:
    """Stored log-probs [-1, -2], now [-1.1, -1.8]: D = 0.15."""

    most: int = knob(200_000, "prompts whose trajectory is kept", unit="prompts", ge=1)

    __post_init__ = check

    sticky: ClassVar[bool] = True

    def open(self) -> _Running:
        """A tracker that has seen nothing."""
        return _Running(self.most)


@dataclass
class _Running:
    """`last`: by prompt, its last trajectory and that trajectory's log-probs under the policy just after its step."""

    most: int
    last: dict[str, tuple[Member, Tensor]] = field(default_factory=dict)

    def after_step(self, batch: Batch, score: Score) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        prompts = {member.rollout.prompt_id: member for member in batch.members}
        known = [prompt for prompt in prompts if prompt in self.last]
        shifts = self._shifts(known, batch, score) if known else []
        self._remember(batch, score(batch).logp_NT)
        return shifts, {}

    def _shifts(self, prompts: list[str], batch: Batch, score: Score) -> list[training_pb2.PromptShift]:
        groups = [Group(prompt, prompt, (self.last[prompt][0],)) for prompt in prompts]
        device, dtype = batch.token_NT.device, batch.behaviour_NT.dtype
        old = collate(groups, batch.version, batch.max_tokens, device, dtype)
        stored_NT = torch.zeros_like(old.behaviour_NT)
        stored_NT[old.valid_NT] = torch.cat([self.last[prompt][1] for prompt in prompts]).to(stored_NT)
        shift_N = row_mean((stored_NT - score(old).logp_NT).abs().nan_to_num(), old.mask_NT).tolist()
        return [
            training_pb2.PromptShift(prompt_id=prompt, mean_abs_logprob_change=shift)
            for prompt, shift in zip(prompts, shift_N, strict=True)
        ]

    def _remember(self, batch: Batch, logp_NT: Tensor) -> None:
        trained_N, lengths = batch.mask_NT.any(1).tolist(), batch.length_N.tolist()
        logp_NT = logp_NT.detach().float().cpu()
        for row, member in enumerate(batch.members):
            if trained_N[row]:
                prompt = member.rollout.prompt_id
                self.last.pop(prompt, None)
                self.last[prompt] = (_slim(member), logp_NT[row, : lengths[row]].clone())
        while len(self.last) > self.most:
            del self.last[next(iter(self.last))]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        blobs = [member.rollout.SerializeToString() for member, _ in self.last.values()]
        empty = torch.zeros(0)
        tensors = {
            "rollouts": torch.frombuffer(bytearray(b"".join(blobs) or b"\0"), dtype=torch.uint8),
            "logp": torch.cat([empty, *(logp for _, logp in self.last.values())]),
        }
        sizes = [(len(blob), len(logp)) for blob, (_, logp) in zip(blobs, self.last.values(), strict=True)]
        return tensors, {"sizes": sizes}

    def load(self, shards: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        self.last = {}
        for tensors, meta in shards:
            data, logp = tensors["rollouts"].cpu().numpy().tobytes(), tensors["logp"].cpu()
            byte = token = 0
            for size, length in meta["sizes"]:
                rollout = rollout_pb2.Rollout.FromString(data[byte : byte + size])
                kept = logp[token : token + length].clone()
                self.last[rollout.prompt_id] = (Member(rollout, rollout_pb2.Verdict()), kept)
                byte, token = byte + size, token + length


def _slim(member: Member) -> Member:
    """A copy without what scoring does not read: texts, side arrays, injections."""
    rollout = rollout_pb2.Rollout()
    rollout.CopyFrom(member.rollout)
    for call in rollout.calls:
        call.ClearField("text")
        call.ClearField("side")
        call.ClearField("injections")
    return Member(rollout, rollout_pb2.Verdict())
