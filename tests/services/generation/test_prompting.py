"""From messages to context tokens."""

from __future__ import annotations

import copy

import pytest

from services.generation.prompting import Prompter
from sluice.v1 import prompt_pb2


@pytest.fixture
def prompter(tokenizer) -> Prompter:
    return Prompter(tokenizer, context=64)


def request(*texts: tuple[str, str], guidance=()) -> prompt_pb2.RolloutRequest:
    """A request with these (role, text) messages."""
    messages = [prompt_pb2.Message(role=role, parts=[prompt_pb2.Part(text=text)]) for role, text in texts]
    return prompt_pb2.RolloutRequest(messages=messages, guidance=guidance)


def test_messages_go_through_the_chat_template(prompter, tokenizer):
    context = prompter.render(request(("system", "be brief"), ("user", "hi")))
    assert tokenizer.decode(list(context.tokens)) == "[be brief]hi="


def test_a_system_prompt_is_put_before_conversations_that_have_none(tokenizer):
    prompter = Prompter(tokenizer, 64, system_prompt="think")
    assert tokenizer.decode(list(prompter.render(request(("user", "hi"))).tokens)) == "[think]hi="
    with_own = prompter.render(request(("system", "own"), ("user", "hi")))
    assert tokenizer.decode(list(with_own.tokens)) == "[own]hi="


def test_without_a_chat_template_the_texts_stand_line_by_line(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    context = Prompter(bare, 64).render(request(("user", "a b"), ("user", "c")))
    assert context.tokens == tuple(bare.encode("a b\nc"))


def test_hints_join_the_last_message_and_a_prefix_begins_the_answer_each_with_its_span(prompter, tokenizer):
    guidance = [
        prompt_pb2.Guidance(kind="prefix", text="So"),
        prompt_pb2.Guidance(kind="hint", level=1, text="look"),
        prompt_pb2.Guidance(kind="experience", text="closer"),
    ]
    context = prompter.render(request(("user", "hi"), guidance=guidance))
    tokens = list(context.tokens)
    spans = {one.guidance.kind: tokenizer.decode(tokens[one.first_token : one.end_token]) for one in context.injections}
    assert spans["prefix"] == "So" and spans["hint"].endswith("look") and spans["experience"].endswith("closer")
    assert [one.guidance.kind for one in context.injections] == ["hint", "experience", "prefix"]
    inside = {i for one in context.injections for i in range(one.first_token, one.end_token)}
    assert tokenizer.decode([token for i, token in enumerate(tokens) if i not in inside]) == "hi="


def test_a_prompt_that_fills_the_context_is_refused_and_one_token_less_is_not(tokenizer):
    prompter = Prompter(tokenizer, context=8)
    assert prompter.render(request(("user", "x" * 6))).reason == ""
    refused = prompter.render(request(("user", "x" * 7)))
    assert refused.reason == "prompt_too_long" and "the prompt has 8 tokens; accepted: up to 7" in refused.sentence


def test_a_prompt_without_tokens_is_refused(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    assert Prompter(bare, 8).render(request(("user", ""))).reason == "empty_prompt"


def test_what_the_chat_template_refuses_is_refused_with_its_words(tokenizer):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    refused = Prompter(strict, 64).render(request(("user", "a"), ("user", "b")))
    assert refused.reason == "template_refused"
    assert refused.sentence == "the model's chat template refuses: roles must alternate"
