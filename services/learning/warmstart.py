"""A short supervised phase that gives a fresh model several habits, of which only some are right.

Reinforcement learning finds which of a model's habits pay; a model that never says anything right gives it nothing to
find. So a model built on the spot is first shown solved examples, of which a part carries one of a few systematic
slips. What comes out answers right in some of its tries and wrong in ways that sampling can tell apart.

The phase never sees a prompt of the run itself: the caller hands it examples that share no question with the training
or held-out prompts (`pipeline.data.split.without`). Its result is cached under a digest of everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from services.learning.tiny import move_into_place
from sluice.v1 import prompt_pb2

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMAT = 1
"""Part of the cache key: raised when the same settings would make another model."""

SLIPS: dict[str, Callable[[str], str]] = {
    "last_letter_missing": lambda text: text[:-1],
    "first_letter_doubled": lambda text: text[:1] + text,
    "last_two_swapped": lambda text: text[:-2] + text[:-3:-1],
}
"""Every slip by name: right answer to wrong answer.

>>> [slip("abcd") for slip in SLIPS.values()]
['abc', 'aabcd', 'abdc']
"""

LOOK_EVERY = 10
"""Steps between two looks at the examples set aside."""

ASIDE = 200
"""Examples set aside, at most; never more than a tenth of all."""

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss in nats per token)."""

Example = tuple[list[int], list[int]]
"""Token ids of a prompt, and of what is to be said after it."""


@dataclass(frozen=True)
class WarmStart:
    """Settings of the phase.

    `steps`: most optimiser steps. `enough`: it stops earlier, as soon as the model says the right answers of examples
    set aside with this mean probability; 1 never stops it. `batch`: examples in each step. `lr`: AdamW's learning rate
    after `warmup` linear steps. `betas`: AdamW's. `slip_share`: share of every batch that carries a slip, in [0, 1].
    `slips`: those slips, in turn. `seed`: of the examples' order and slips.
    """

    steps: int = 700
    enough: float = 0.39
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    slip_share: float = 0.5
    slips: tuple[str, ...] = tuple(SLIPS)
    seed: int = 0

    def __post_init__(self) -> None:
        for slip in self.slips:
            if slip not in SLIPS:
                raise UserError.choice("warm start: a slip", slip, SLIPS)
        if not 0 <= self.slip_share <= 1 or (self.slip_share and not self.slips):
            raise UserError(
                f"warm start: slip_share is {self.slip_share!r}; accepted: 0 to 1, and 0 when no slip is named"
            )
        for name in ("steps", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise UserError(f"warm start: {name} is {getattr(self, name)!r}; accepted: more than 0")


def warm_start(
    model: str | Path,
    prompts: Sequence[prompt_pb2.Prompt],
    settings: WarmStart,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of `model` (a local folder) after the phase; made once for each set of settings and examples.

    `prompts` are solved by their check's answer. `cache` is a folder, by default `cache_folder()`.
    """
    folder = (Path(cache) if cache else cache_folder()) / f"warm-{cache_key(model, prompts, settings)}"
    if folder.is_dir():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    fit(network, tokenizer, prompts, settings, progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    network.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    return move_into_place(aside, folder)


def cache_folder() -> Path:
    """Where models made on the spot are kept: $SLUICE_CACHE, or `sluice` in the user's cache folder."""
    named = os.environ.get("SLUICE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"


def cache_key(model: str | Path, prompts: Sequence[prompt_pb2.Prompt], settings: WarmStart) -> str:
    """Sixteen hexadecimal digits over the format, the settings, the model's files and the prompts, in order."""
    folder = Path(model)
    if not folder.is_dir():
        raise UserError(f"warm start: the model is {str(model)!r}; accepted: an existing folder")
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings)], sort_keys=True).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".jinja"):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for prompt in prompts:
        digest.update(prompt.digest or prompt.SerializeToString(deterministic=True))
    return digest.hexdigest()[:16]


def fit(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[prompt_pb2.Prompt],
    settings: WarmStart,
    progress: Progress | None = None,
) -> None:
    """Train `network` in place."""
    import torch

    shown, aside = _set_aside(prompts, tokenizer)
    batches = _batches(shown, tokenizer, settings)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, settings.warmup)))
    for step in range(1, settings.steps + 1):
        loss = _loss(network.train(), *_tensors(next(batches), tokenizer.pad_token_id))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % LOOK_EVERY and step != settings.steps:
            continue
        if progress:
            progress(step, settings.steps, float(loss.detach()))
        if right_probability(network.eval(), tokenizer.pad_token_id, aside) >= settings.enough:
            break
    network.eval()


def spoken(answers: Sequence[str], settings: WarmStart, rng: random.Random) -> list[str]:
    """What the examples of one batch say: the answers, a share of them with a slip, the slips in turn."""
    first, slips = rng.randrange(len(SLIPS)), settings.slips
    wrong = set(rng.sample(range(len(answers)), round(settings.slip_share * len(answers))))
    turn = (SLIPS[slips[(first + n) % len(slips)]] for n in range(len(wrong)))
    return [next(turn)(answer) if i in wrong else answer for i, answer in enumerate(answers)]


def right_probability(network: PreTrainedModel, pad: int, aside: list[Example]) -> float:
    """Mean probability that the model, sampling at temperature 1, says exactly what these examples say."""
    import torch

    with torch.no_grad():
        tokens_NT, said_NT = _tensors(aside, pad)
        logp_NT = -_cross_entropy(network, tokens_NT)
    return float((logp_NT * said_NT[:, 1:]).sum(1).exp().mean())


def _batches(
    prompts: Sequence[prompt_pb2.Prompt], tokenizer: PreTrainedTokenizerBase, settings: WarmStart
) -> Iterator[list[Example]]:
    """Batches for ever: every prompt once in an order of its own for each pass, with slips drawn anew."""
    rng = random.Random(settings.seed)
    order: list[int] = []
    while True:
        while len(order) < settings.batch:
            order += rng.sample(range(len(prompts)), len(prompts))
        chosen, order = order[: settings.batch], order[settings.batch :]
        said = spoken([prompts[i].check.answer for i in chosen], settings, rng)
        yield [_example(prompts[i], text, tokenizer) for i, text in zip(chosen, said, strict=True)]


def _example(prompt: prompt_pb2.Prompt, said: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    return _context(prompt, tokenizer), [*ids, tokenizer.eos_token_id]


def _set_aside(
    prompts: Sequence[prompt_pb2.Prompt], tokenizer: PreTrainedTokenizerBase
) -> tuple[Sequence[prompt_pb2.Prompt], list[Example]]:
    """(prompts to learn from, solved examples that are never learned from)."""
    count = max(1, min(ASIDE, len(prompts) // 10))
    if len(prompts) <= count:
        raise UserError(f"warm start: there are {len(prompts)} examples; accepted: at least 2")
    return prompts[count:], [_example(prompt, prompt.check.answer, tokenizer) for prompt in prompts[:count]]


def _context(prompt: prompt_pb2.Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if not prompt.check.answer:
        raise UserError(f"warm start: prompt {prompt.prompt_id!r} has no answer; accepted: prompts with one")
    messages = [{"role": m.role, "content": "".join(part.text for part in m.parts)} for m in prompt.messages]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


def _tensors(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [N, T], padded on the right, and which of them are to be said [N, T]."""
    import torch

    width = max(len(context) + len(said) for context, said in batch)
    tokens_NT = torch.full((len(batch), width), pad)
    said_NT = torch.zeros((len(batch), width), dtype=torch.bool)
    for row, (context, said) in enumerate(batch):
        tokens_NT[row, : len(context) + len(said)] = torch.tensor(context + said)
        said_NT[row, len(context) : len(context) + len(said)] = True
    return tokens_NT, said_NT


def _loss(network: PreTrainedModel, tokens_NT: torch.Tensor, said_NT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the tokens that are to be said, nats."""
    return _cross_entropy(network, tokens_NT)[said_NT[:, 1:]].mean()


def _cross_entropy(network: PreTrainedModel, tokens_NT: torch.Tensor) -> torch.Tensor:
    """Of every token but the first [N, T - 1], nats."""
    import torch

    logits_NTV = network(input_ids=tokens_NT, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits_NTV.transpose(1, 2), tokens_NT[:, 1:], reduction="none")
