"""The learner's step against a bare torch loop on the same model and batch, and what each part costs of a step.

The bare loop gets its tensors ready made: forward, log-softmax, the weighted log-probs, backward, clip, AdamW. The
learner begins with records: it collates, rewards, credits, trains and keeps an account of every rollout. Both do the
same arithmetic on the same weights in float32 on one thread, by turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from pipeline import partspec
from pipeline.recipe import load_recipe
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.estimator import Estimator
from services.learning.group import Group
from services.learning.model import Compute
from services.learning.trainer import Trainer
from tests.bench.advantages import milliseconds
from tests.bench.table import machine, table
from tests.services.learning.made import credit
from tests.services.learning.rollouts import call, group, member
from tests.services.learning.steps import begun, forward, loaded, signalled

GROUPS, SIZE, CONTEXT, TOKENS, VOCAB, ROUNDS = 8, 8, 32, 128, 512, 5


def main() -> str:
    """Both loops by turns, then the parts."""
    torch.set_num_threads(1)
    groups = made()
    learner = Trainer(model(), load_recipe({"base": "grpo", "likelihood": {"name": "token", "share": False}}), TOKENS)
    sharing = Trainer(model(), load_recipe("grpo"), TOKENS)
    bare = Bare(learner._collate(groups, 1, learner.world), learner.compute)
    works: dict[str, Callable[[], object]] = {
        "bare torch loop": bare.step,
        "learner": lambda: learner.step(groups, 1),
        "learner, contexts of a group read once": lambda: sharing.step(groups, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    tokens = float(bare.batch.mask_NT.sum())
    base = median(seconds["bare torch loop"])
    rows = [[name, tokens / median(s), 1000 * median(s), f"{base / median(s):.1%}"] for name, s in seconds.items()]
    header = ["loop", "trained tokens/s", "ms a step", "of the bare loop"]
    return "\n\n".join(
        [
            "# The learner against a bare torch loop",
            f"GRPO, {GROUPS} groups of {SIZE}, contexts of {CONTEXT} and up to {TOKENS} sampled tokens, a Qwen2 of "
            f"{sum(p.numel() for p in learner.model.parameters()):,} weights, float32, one thread; median of {ROUNDS}, "
            f"by turns. {machine()}.",
            table(header, rows),
            "## What a part costs of a step",
            "Milliseconds on the same batch, signals ready made, and their share of the learner's step. Regularizers "
            "and objectives with their backward pass to the log-probs.",
            table(["part", "ms", "share of the step"], shares(groups, median(seconds["learner"]))),
        ]
    )


def model() -> Qwen2ForCausalLM:
    """The small job's shape."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=VOCAB, hidden_size=128, intermediate_size=512, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    )  # fmt: skip


def made() -> list[Group]:
    """Groups of one context each, answers of half to full length."""
    draw = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(3, VOCAB, (n,), generator=draw).tolist()

    found = []
    for g in range(GROUPS):
        context = tokens(CONTEXT)
        sizes = torch.randint(TOKENS // 2, TOKENS + 1, (SIZE,), generator=draw).tolist()
        members = [
            member([call(tokens(n), [-6.0] * n, context)], i % 2, prompt=f"p{g}", request=f"r{g}", index=i)
            for i, n in enumerate(sizes)
        ]
        found.append(group(f"p{g}", members))
    return found


class Bare:
    """What one would write by hand for this batch."""

    def __init__(self, batch: Batch, compute: Compute) -> None:
        self.batch, self.model = batch, model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
        self.attend_SL = torch.arange(batch.input_SL.shape[1]) < batch.length_S[:, None]
        right_N = batch.accuracy_N.view(GROUPS, SIZE)
        self.advantage_N = ((right_N - right_N.mean(1, keepdim=True)) / (right_N.std(1, keepdim=True) + 1e-6)).flatten()

    def step(self) -> float:
        """One GRPO step."""
        batch = self.batch
        logits = self.model(batch.input_SL, attention_mask=self.attend_SL).logits
        at_NT = (batch.position_NT - 1).clamp(min=0)
        picked = logits[batch.sequence_NT[batch.mask_NT], at_NT[batch.mask_NT]].float()
        logp_K = -nn.functional.cross_entropy(picked, batch.token_NT[batch.mask_NT], reduction="none")
        ratio_K = (logp_K - batch.behaviour_NT[batch.mask_NT]).exp()
        row_K = batch.mask_NT.nonzero()[:, 0]
        a_K = self.advantage_N[row_K]
        loss_K = torch.maximum(-a_K * ratio_K, -a_K * ratio_K.clamp(0.8, 1.2)) / batch.length_N[row_K] / len(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss_K.sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss_K.sum())


def shares(groups: list[Group], step_s: float) -> list[list[object]]:
    """Every part of the rooms that act on tensors: its cost beside the step's."""
    batch = collate(groups, 1, TOKENS)
    batch, advantage_N, logp_NT = signalled(batch, seed=0, spread=0.1, gap=0.1)
    rows = []
    for room in ("reward", "advantage", "weight", "regularizer", "objective", "denominator"):
        for name in partspec.names(f"learning.{room}"):
            spent = milliseconds(_work(room, name, batch, advantage_N, logp_NT))
            rows.append([f"{room}.{name}", spent, f"{spent / 1000 / step_s:.2%}"])
    return rows


def _work(room: str, name: str, batch: Batch, advantage_N: Tensor, logp_NT: Tensor) -> Callable[[], object]:
    part = loaded(f"learning.{room}", name)
    if room == "reward":
        return lambda: part(batch, batch.reward_N)
    if room == "denominator":
        return lambda: part(batch)
    if room == "advantage":
        return lambda: credit(part, batch)
    estimator = Estimator(
        weights=(part,) if room == "weight" else (),
        regularizers=((name, part),) if room == "regularizer" else (),
        objective=part if room == "objective" else None,
    )
    advantage_NT = advantage_N[:, None].expand_as(logp_NT)

    def work() -> None:
        ready = begun(estimator, batch, advantage_N, logp_NT)
        if room == "weight":
            estimator.weigh(ready, logp_NT.detach(), advantage_NT)
            return
        brought = forward(ready, logp_NT)
        term = part(ready, brought) if room == "regularizer" else part(ready, brought, advantage_NT)
        if term.requires_grad:
            torch.autograd.grad(term, logp_NT, allow_unused=True)

    return work
