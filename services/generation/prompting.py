"""From a request's messages to context tokens, through the tokenizer's chat template.

Guidance is written into the conversation, and where its tokens lie is recorded: a hint, exemplar or experience joins
the last message, in order, after a blank line; a prefix stands behind everything, as the beginning of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from services.generation import policy
from sluice.v1 import prompt_pb2, rollout_pb2

PREFIX = "prefix"
Turns = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Context:
    """Context tokens and what was injected into them; or the reason, and its sentence, why there are none."""

    tokens: tuple[int, ...] = ()
    injections: tuple[rollout_pb2.Injection, ...] = ()
    reason: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Prompter:
    """Renders requests. `context`: most tokens of context and answer together."""

    tokenizer: Any
    context: int
    system_prompt: str = ""

    def render(self, request: prompt_pb2.RolloutRequest) -> Context:
        """The context of a request's rollouts; all of them share it."""
        if any(part.WhichOneof("content") != "text" for message in request.messages for part in message.parts):
            return Context(reason=policy.UNSUPPORTED_CONTENT, sentence="a message has an image; accepted: text")
        try:
            return self._rendered(request)
        except TemplateError as error:
            return Context(reason=policy.TEMPLATE_REFUSED, sentence=f"the model's chat template refuses: {error}")

    def _rendered(self, request: prompt_pb2.RolloutRequest) -> Context:
        turns = self._turns(request.messages)
        tokens = self._encode(turns)
        injections = []
        for guidance in [one for one in request.guidance if one.kind != PREFIX]:
            turns = _with_hint(turns, guidance.text)
            before, tokens = tokens, self._encode(turns)
            first, end = _inserted(before, tokens)
            injections.append(rollout_pb2.Injection(guidance=guidance, first_token=first, end_token=end))
        for guidance in [one for one in request.guidance if one.kind == PREFIX]:
            added = self.tokenizer.encode(guidance.text, add_special_tokens=False)
            end = len(tokens) + len(added)
            injections.append(rollout_pb2.Injection(guidance=guidance, first_token=len(tokens), end_token=end))
            tokens = [*tokens, *added]
        return self._checked(tokens, injections)

    def _checked(self, tokens: list[int], injections: list[rollout_pb2.Injection]) -> Context:
        if not tokens:
            return Context(reason=policy.EMPTY_PROMPT, sentence="the prompt has no tokens; accepted: 1 or more")
        if len(tokens) >= self.context:
            accepted = f"accepted: up to {self.context - 1}, so that one can be sampled"
            return Context(reason=policy.PROMPT_TOO_LONG, sentence=f"the prompt has {len(tokens)} tokens; {accepted}")
        return Context(tuple(tokens), tuple(injections))

    def _turns(self, messages: Sequence[prompt_pb2.Message]) -> Turns:
        turns = [{"role": one.role, "content": "".join(part.text for part in one.parts)} for one in messages]
        if self.system_prompt and not any(turn["role"] == "system" for turn in turns):
            return [{"role": "system", "content": self.system_prompt}, *turns]
        return turns

    def _encode(self, turns: Turns) -> list[int]:
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode("\n".join(turn["content"] for turn in turns))
        return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)


def _with_hint(turns: Turns, text: str) -> Turns:
    last = turns[-1] if turns else {"role": "user", "content": ""}
    joined = f"{last['content']}\n\n{text}" if last["content"] else text
    return [*turns[:-1], {**last, "content": joined}]


def _inserted(before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """[first, end) of what `after` has more than `before`, one run of tokens.

    >>> _inserted([1, 2, 9], [1, 2, 5, 6, 9])
    (2, 4)
    """
    shorter = min(len(before), len(after))
    first = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = next((i for i in range(shorter - first) if before[-1 - i] != after[-1 - i]), shorter - first)
    return first, len(after) - tail
