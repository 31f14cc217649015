r"""Which answer each rollout gives: equal numbers for equal answers, [N].

    the content of the last \boxed{} of the last call's text, else of its last <answer>, else the whole text

Source: COPO's released code compares the extracted strings as they are; spaces around and repeated ones are ignored.
Odd cases: rollouts whose verdict is UNPARSABLE share one number. Where an engine recorded no text, the tokens are it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.group import Member
from sluice.v1 import rollout_pb2

_ANSWER = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    r"""
    >>> said(r"so \boxed{1} or rather \boxed{\frac{1}{2}}"), said("<answer> 4 </answer>"), said("four  apples")
    ('\\frac{1}{2}', '4', 'four apples')
    """

    def __call__(self, batch: Batch, score: Callable[..., object]) -> Tensor:
        texts = [_of(member) for member in batch.members]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return torch.tensor([numbers[text] for text in texts], dtype=torch.long, device=batch.reward_N.device)


def said(text: str) -> str:
    """The answer in a text."""
    for pattern in (_ANSWER, _TAGGED):
        found = pattern.findall(text)
        if found:
            return " ".join(found[-1].split())
    return " ".join(text.split())


def _of(member: Member) -> object:
    if member.verdict.outcome == rollout_pb2.VERDICT_OUTCOME_UNPARSABLE or not member.rollout.calls:
        return None
    last = member.rollout.calls[-1]
    return said(last.text) if last.text else tuple(last.tokens)
