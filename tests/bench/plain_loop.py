"""A plain synchronous loop in one process: sample a batch, score it, take one step, repeat.

What `make bench` compares the stream with: the same model, prompts, batch and loss, no log, no services. With `lag`
above 0 it trains every batch that many versions after it was sampled, as an asynchronous run does at its worst.

    python tests/bench/plain_loop.py MODEL_FOLDER --rollouts 20000 --lag 2
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Pair = tuple[str, str]
"""Question and right answer."""


@dataclass(frozen=True)
class PlainLoop:
    """Settings: `groups` of `group` rollouts a step, trained `lag` versions later; weights over `truncate` are cut."""

    groups: int = 32
    group: int = 8
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    lag: int = 0
    clip_low: float = 0.2
    clip_high: float = 0.28
    truncate: float = 2.0
    max_tokens: int = 12
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass
class Batch:
    """One step's rollouts: token ids [N, T], sampled-token mask [N, T], behaviour log-probs [N, T], advantages [N]."""

    tokens_NT: torch.Tensor
    sampled_NT: torch.Tensor
    behaviour_NT: torch.Tensor
    advantage_N: torch.Tensor
    reward: float


class Policy:
    """A model with its tokenizer."""

    def __init__(self, folder: str | Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def contexts(self, questions: Sequence[str]) -> torch.Tensor:
        """Token ids [N, C] of the rendered questions, padded on the left."""
        chats = [[{"role": "user", "content": question}] for question in questions]
        return self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        )["input_ids"]

    @torch.no_grad()
    def sample(
        self, questions: Sequence[str], n: int, max_tokens: int, rng: torch.Generator, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        """`n` answers to each: ids [N, C + T], mask of the sampled [N, C + T], log-probs [N, T], texts."""
        context_NC = self.contexts(questions).repeat_interleave(n, 0)
        attention = (context_NC != self.tokenizer.pad_token_id).long()
        ids, mask, cache = context_NC, attention, None
        alive_N = torch.ones(len(ids), dtype=torch.bool)
        tokens, logprobs, kept = [], [], []
        position_N = attention.sum(1, keepdim=True)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        for _ in range(max_tokens):
            out = self.model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            logits_NV = out.logits[:, -1]
            logp_NV = torch.log_softmax(logits_NV / (temperature or 1.0), -1)
            chosen_N1 = (
                logp_NV.argmax(-1, True) if not temperature else torch.multinomial(logp_NV.exp(), 1, generator=rng)
            )
            tokens.append(chosen_N1)
            logprobs.append(logp_NV.gather(1, chosen_N1))
            kept.append(alive_N[:, None].clone())
            alive_N &= chosen_N1[:, 0] != self.tokenizer.eos_token_id
            if not alive_N.any():
                break
            ids, cache, positions = chosen_N1, out.past_key_values, position_N
            position_N = position_N + 1
            mask = torch.cat([mask, torch.ones_like(chosen_N1)], 1)
        said_NT, kept_NT = torch.cat(tokens, 1), torch.cat(kept, 1)
        said_NT = torch.where(kept_NT, said_NT, self.tokenizer.pad_token_id)
        sampled = torch.cat([torch.zeros_like(context_NC, dtype=torch.bool), kept_NT], 1)
        texts = self.tokenizer.batch_decode(said_NT, skip_special_tokens=True)
        return torch.cat([context_NC, said_NT], 1), sampled, torch.cat(logprobs, 1), texts


def accuracy(policy: Policy, pairs: Sequence[Pair], n: int, temperature: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Right or wrong [questions, n]."""
    rng = torch.Generator().manual_seed(seed)
    *_, texts = policy.sample([question for question, _ in pairs], n, 16, rng, temperature)
    right = [text == answer for text, answer in zip(texts, (a for _, a in pairs for _ in range(n)), strict=True)]
    return torch.tensor(right, dtype=torch.float).view(len(pairs), n)


def collect(policy: Policy, pairs: Sequence[Pair], settings: PlainLoop, rng: torch.Generator) -> Batch:
    """Sample a group for each pair and credit it: (r - mean) / std, a group without spread counts 0."""
    ids, sampled, logp, texts = policy.sample([q for q, _ in pairs], settings.group, settings.max_tokens, rng)
    answers = [answer for _, answer in pairs for _ in range(settings.group)]
    reward_NG = torch.tensor([float(t == a) for t, a in zip(texts, answers, strict=True)]).view(-1, settings.group)
    spread = reward_NG.std(1, keepdim=True)
    advantage = (reward_NG - reward_NG.mean(1, keepdim=True)) / (spread + 1e-6)
    behaviour = torch.zeros(ids.shape)
    behaviour[:, ids.shape[1] - logp.shape[1] :] = logp
    return Batch(ids, sampled, behaviour, advantage.flatten(), float(reward_NG.mean()))


def step(policy: Policy, optimizer: torch.optim.Optimizer, batch: Batch, settings: PlainLoop) -> float:
    """One optimiser step on one batch, mean over tokens; returns the gradient's norm."""
    attention = (batch.tokens_NT != policy.tokenizer.pad_token_id).long()
    logits = policy.model(
        batch.tokens_NT,
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).logits[:, :-1]
    logp_NT = torch.log_softmax(logits, -1).gather(2, batch.tokens_NT[:, 1:, None])[..., 0]
    mask_NT, advantage_N1 = batch.sampled_NT[:, 1:].float(), batch.advantage_N[:, None]
    ratio_NT = (logp_NT - batch.behaviour_NT[:, 1:]).exp().detach()
    outside = ((advantage_N1 > 0) & (ratio_NT > 1 + settings.clip_high)) | (
        (advantage_N1 < 0) & (ratio_NT < 1 - settings.clip_low)
    )
    coefficient_NT = mask_NT * ~outside * ratio_NT.clamp(max=settings.truncate) * advantage_N1
    loss = -(coefficient_NT * logp_NT).sum() / mask_NT.sum()
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), settings.max_grad_norm)
    optimizer.step()
    return float(norm)


def run(
    policy: Policy,
    pairs: Sequence[Pair],
    rollouts: int,
    settings: PlainLoop,
    report: Callable[[int, float], None] | None = None,
) -> float:
    """Train on `rollouts` rollouts; returns trained rollouts per second. `report(trained, reward)` after every step."""
    rng, order = torch.Generator().manual_seed(settings.seed), random.Random(settings.seed)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=0.0)
    waiting: deque[Batch] = deque()
    size, trained, spent = settings.groups * settings.group, 0, 0.0
    while trained < rollouts:
        begun = time.perf_counter()
        waiting.append(collect(policy, order.sample(pairs, settings.groups), settings, rng))
        if len(waiting) > settings.lag:
            batch = waiting.popleft()
            step(policy, optimizer, batch, settings)
            trained += size
        spent += time.perf_counter() - begun
        if report and len(waiting) == settings.lag and trained:
            report(trained, batch.reward)
    return trained / spent


def main() -> None:
    """Run it on the `spell_backward` words that are handed in as JSON lines of [question, answer]."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("pairs", help="file of JSON lines: [question, answer]")
    parser.add_argument("--rollouts", type=int, default=20_000)
    parser.add_argument("--lag", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = Path(arguments.pairs).read_text(encoding="utf-8").splitlines()
    pairs = [(question, answer) for question, answer in map(json.loads, lines)]
    settings = PlainLoop(lag=arguments.lag, lr=arguments.lr)
    policy, held_out, train = Policy(arguments.model), pairs[:256], pairs[256:]
    before = float(accuracy(policy, held_out, 4).mean())
    speed = run(policy, train, arguments.rollouts, settings)
    after = float(accuracy(policy, held_out, 4).mean())
    print(json.dumps({"before": before, "after": after, "rollouts_per_s": speed}))


if __name__ == "__main__":
    main()
