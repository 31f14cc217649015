"""Training and held-out prompts that share no question.

Two prompts ask the same when their question reads the same after case and spaces are evened out: the text of the last
user message, not the id, not the row. Everything here is pure and follows from its arguments alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from pipeline.data.prompt import text_of
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2

Prompts = list[prompt_pb2.Prompt]


def normalised(text: str) -> str:
    r"""Lower case, with every run of white space as one space.

    >>> normalised("  Spell\nTHIS   word ")
    'spell this word'
    """
    return " ".join(text.casefold().split())


def question(prompt: prompt_pb2.Prompt) -> str:
    """What decides whether two prompts ask the same."""
    return normalised(text_of(prompt))


def merged(prompts: Iterable[prompt_pb2.Prompt]) -> tuple[Prompts, int]:
    """(the first prompt of every question, in order; how many later ones were left out)."""
    first: dict[str, prompt_pb2.Prompt] = {}
    count = 0
    for prompt in prompts:
        count += 1
        first.setdefault(question(prompt), prompt)
    return list(first.values()), count - len(first)


def split(prompts: Sequence[prompt_pb2.Prompt], held_out: int, seed: int) -> tuple[Prompts, Prompts]:
    """(training prompts, `held_out` prompts never trained on), each marked with its `split`; copies of the input.

    Prompts that ask the same are merged first. Which ones are held out follows from `seed` and the questions, not from
    their order. Raises `UserError` when nothing would be left to train on.
    """
    unique, _ = merged(prompts)
    if not 0 <= held_out < len(unique):
        accepted = f"0 to {len(unique) - 1}, fewer than the {len(unique)} different questions"
        raise UserError(f"held_out is {held_out!r}; accepted: {accepted}")
    drawn = random.Random(seed).sample(sorted(map(question, unique)), held_out)
    kept = set(drawn)
    train = [_marked(prompt, "train") for prompt in unique if question(prompt) not in kept]
    return train, [_marked(prompt, "held_out") for prompt in unique if question(prompt) in kept]


def without(prompts: Iterable[prompt_pb2.Prompt], *others: Iterable[prompt_pb2.Prompt]) -> Prompts:
    """The prompts whose question none of the `others` asks."""
    asked = {question(prompt) for group in others for prompt in group}
    return [prompt for prompt in prompts if question(prompt) not in asked]


def _marked(prompt: prompt_pb2.Prompt, name: str) -> prompt_pb2.Prompt:
    copy = prompt_pb2.Prompt()
    copy.CopyFrom(prompt)
    copy.split = name
    return copy
