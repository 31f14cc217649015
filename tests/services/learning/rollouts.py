"""Rollouts, verdicts, groups and tiny models for the learner's tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.group import Group, Member
from sluice.v1 import prompt_pb2, rollout_pb2

CORRECT, WRONG = rollout_pb2.VERDICT_OUTCOME_CORRECT, rollout_pb2.VERDICT_OUTCOME_WRONG
VOCAB = 11


def call(
    tokens: Sequence[int],
    logprobs: Sequence[float] | None = None,
    context: Sequence[int] = (1, 2),
    version: int = 0,
    temperature: float = 1.0,
    **more: object,
) -> rollout_pb2.Call:
    """One call of one span."""
    return rollout_pb2.Call(
        context_tokens=context,
        tokens=tokens,
        logprobs=[-1.0] * len(tokens) if logprobs is None else logprobs,
        spans=[rollout_pb2.Span(version=version, temperature=temperature)] if tokens else [],
        **more,  # type: ignore[arg-type]
    )


def member(
    calls: Sequence[rollout_pb2.Call],
    right: bool | float = False,
    outcome: int | None = None,
    prompt: str = "p",
    request: str = "r",
    index: int = 0,
    belief: float | None = None,
    rewards: dict[str, float] | None = None,
) -> Member:
    """A rollout with its verdict."""
    key = rollout_pb2.RolloutKey(request_id=request, index=index, attempt=1)
    rollout = rollout_pb2.Rollout(key=key, prompt_id=prompt, group_id=prompt, calls=calls)
    if belief is not None:
        rollout.belief.CopyFrom(prompt_pb2.Belief(mean=belief, effective_n=8.0))
    verdict = rollout_pb2.Verdict(key=key, prompt_id=prompt, accuracy=float(right))
    verdict.outcome = outcome if outcome is not None else CORRECT if right else WRONG  # type: ignore[assignment]
    verdict.rewards.extend(rollout_pb2.Reward(name=n, value=v) for n, v in (rewards or {}).items())
    return Member(rollout, verdict)


def group(name: str, members: Sequence[Member]) -> Group:
    """A group of one prompt."""
    return Group(name, name, tuple(members))


def rewarded(*groups: Sequence[float], tokens: int = 1) -> Batch:
    """A batch whose groups have these rewards (and accuracies), every rollout `tokens` long."""
    made = [
        group(
            f"g{g}", [member([call([3] * tokens)], reward, prompt=f"g{g}", index=i) for i, reward in enumerate(rewards)]
        )
        for g, rewards in enumerate(groups)
    ]
    batch = collate(made, version=0, max_tokens=8, dtype=torch.float64)
    values = torch.tensor([reward for rewards in groups for reward in rewards], dtype=torch.float64)
    return with_fields(batch, reward_N=values)


def with_fields(batch: Batch, **fields: object) -> Batch:
    """A changed copy."""
    import dataclasses

    return dataclasses.replace(batch, **fields)  # type: ignore[arg-type]


def random_groups(
    seed: int = 0, groups: int = 4, size: int = 4, longest: int = 6, version: int = 3, prompts: str = "q"
) -> list[Group]:
    """Ragged groups with mixed rewards, versions 1 to `version` and temperatures 1 and 0.7."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    made = []
    for g in range(groups):
        members = []
        for i in range(size):
            n = draw(1, longest + 1)
            tokens = torch.randint(0, VOCAB, (n,), generator=generator).tolist()
            logprobs = (-3.0 * torch.rand(n, generator=generator)).tolist()
            context = torch.randint(0, VOCAB, (draw(1, 5),), generator=generator).tolist()
            one = call(tokens, logprobs, context, draw(1, version + 1), 0.7 if draw(0, 3) == 0 else 1.0)
            right = draw(0, 2) == 1
            name = f"{prompts}{g}"
            members.append(member([one], right, prompt=name, request=f"r{name}", index=i, belief=draw(1, 9) / 10))
        made.append(group(f"{prompts}{g}", members))
    return made


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float64) -> Qwen2ForCausalLM:
    """A Qwen2 of a few thousand parameters."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    return Qwen2ForCausalLM(config).to(dtype)
