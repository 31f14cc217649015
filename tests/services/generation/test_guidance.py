"""Guidance at work, over the real engine: contexts, pruning, temperatures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.life import Life
from pipeline.metrics import Meter
from services.generation import guides
from services.generation.desk import Desk
from services.generation.engine import heat
from services.generation.engine.api import Completion, EngineOptions, Job
from services.generation.engine.transformers import TransformersEngine
from services.generation.guidance.hapo_temperature import HapoTemperature
from services.generation.handler import GenerationHandler
from services.generation.prompting import Prompter
from services.generation.rollouts import Maker, spans
from services.generation.versions import Versions
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2

ABORTED, LENGTH = rollout_pb2.ENDING_ABORTED, rollout_pb2.ENDING_LENGTH


@pytest.fixture
def serve(tokenizer, tiny_model) -> Iterator:
    """Makes a handler with these guidance parts; its model never ends an answer by itself."""
    opened = []

    def opener(*chosen: dict[str, object]) -> GenerationHandler:
        guidance = guides.build(chosen)
        model = tiny_model(0, eos_token_id=None)
        engine = TransformersEngine(model, EngineOptions(slots=8, heats=guidance.heats), tokenizer)
        engine._batch.is_eos_V[:] = False
        versions = Versions(engine, max_lag=2)
        versions.apply(5, model.state_dict())
        desk = Desk(engine, Prompter(tokenizer, engine.max_len), Maker("w", engine.name, "keep"), guidance)
        opened.append(desk)
        return GenerationHandler(desk, versions, Life(phase=control_pb2.PHASE_RUNNING), Meter("generation", "w"))

    yield opener
    for desk in opened:
        desk.close()
        desk.engine.close()


def request(n: int = 6, text: str = "hello", purpose=prompt_pb2.PURPOSE_TRAIN, **sampling) -> prompt_pb2.RolloutRequest:
    return prompt_pb2.RolloutRequest(
        request_id="r",
        prompt_id="p",
        attempt=1,
        n=n,
        version_at_issue=5,
        purpose=purpose,
        messages=[prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(text=text)])],
        belief=prompt_pb2.Belief(mean=0.0, effective_n=16, as_of_step=60),
        sampling=prompt_pb2.SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 40} | sampling),
    )


def made(handler: GenerationHandler, asked: prompt_pb2.RolloutRequest) -> list[rollout_pb2.Rollout]:
    handler.take(asked, token=1)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for one in handler.done(0.1):
            return [output.noun for output in one.outputs]
    raise AssertionError("not done")


def hints(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "hints.jsonl"
    path.write_text(json.dumps({"prompt_id": "p", "hints": [text], "solution": f"{text}\nanswer"}) + "\n")
    return {"name": "tiered_hint", "path": str(path)}


def test_a_hint_stands_in_the_context_its_tokens_are_named_and_none_of_them_is_sampled(serve, tmp_path, tokenizer):
    handler = serve(hints(tmp_path, "think"))
    for rollout in made(handler, request(n=2)):
        (call,) = rollout.calls
        (injection,) = call.injections
        context = list(call.context_tokens)
        assert tokenizer.decode(context).startswith("hello") and tokenizer.decode(context).endswith("think=")
        assert tokenizer.decode(context[injection.first_token : injection.end_token]).endswith("think")
        assert (injection.guidance.kind, injection.guidance.level) == ("hint", 1)
        assert len(call.tokens) == len(call.logprobs) == 40 and not call.token_kinds
    assert handler.meter.values()['sluice_generation_guided_total{kind="hint"}'] == 2


def test_a_solutions_beginning_is_where_the_policy_goes_on_from(serve, tmp_path, tokenizer):
    path = hints(tmp_path, "first")["path"]
    handler = serve({"name": "partial_solution", "path": path})
    (rollout,) = made(handler, request(n=1))
    (call,) = rollout.calls
    assert tokenizer.decode(list(call.context_tokens)) == "hello=first\n"
    assert (call.injections[0].first_token, call.injections[0].end_token) == (6, 12)


def test_an_evaluation_is_not_guided_and_a_hint_that_does_not_fit_is_left_out(serve, tmp_path):
    handler = serve(hints(tmp_path, "x" * 125))
    assert not made(handler, request(n=1))[0].calls[0].injections
    handler = serve(hints(tmp_path, "think"))
    assert not made(handler, request(n=1, purpose=prompt_pb2.PURPOSE_EVALUATE))[0].calls[0].injections


def test_pruned_rollouts_end_aborted_as_pruned_with_what_they_have_and_are_counted(serve):
    handler = serve({"name": "arrol", "look_at": 4, "keep_rate": 1e-9})
    slow(handler)
    found = made(handler, request())
    pruned = [one for one in found if one.reason == "pruned"]
    assert len(pruned) == 4 and all(one.ending == ABORTED and len(one.calls[0].tokens) >= 4 for one in pruned)
    assert [one.ending for one in found if one.reason != "pruned"] == [LENGTH, LENGTH]
    assert handler.meter.values()["sluice_generation_pruned_total"] == 4
    assert handler.desk.outstanding == 0 and handler.desk.engine.running() == 0


def test_rollouts_that_end_before_they_are_looked_at_are_all_kept(serve):
    handler = serve({"name": "arrol", "look_at": 41, "keep_rate": 1e-9})
    assert {one.ending for one in made(handler, request())} == {LENGTH}


def test_an_evaluation_is_not_pruned(serve):
    handler = serve({"name": "arrol", "look_at": 4, "keep_rate": 1e-9})
    slow(handler)
    found = made(handler, request(purpose=prompt_pb2.PURPOSE_EVALUATE))
    assert {one.ending for one in found} == {LENGTH}


def slow(handler: GenerationHandler) -> None:
    """Let the engine take 10 ms a step, so that a decision comes before the end."""
    step = handler.desk.engine._decoder.step

    def slowly():
        time.sleep(0.01)
        return step()

    handler.desk.engine._decoder.step = slowly


def test_every_token_is_drawn_at_its_own_temperature_and_its_log_prob_is_of_that(serve, tiny_model, monkeypatch):
    monkeypatch.setattr(heat, "LEAST_TOKENS", 50)
    handler = serve({"name": "hapo_temperature", "tau": 0.5})
    engine = handler.desk.engine
    (first, *_) = made(handler, request())
    assert [one.temperature for one in first.calls[0].spans] == [1.0]  # nothing is measured yet
    handler.versions.apply(6, engine._decoder.model.state_dict())
    again = request()
    again.request_id, again.version_at_issue = "again", 6
    model, seen = tiny_model(0, eos_token_id=None), set()
    for rollout in made(handler, again):
        (call,) = rollout.calls
        ends = [span.first_token for span in call.spans[1:]] + [len(call.tokens)]
        at = [s.temperature for s, end in zip(call.spans, ends, strict=True) for _ in range(s.first_token, end)]
        seen.update(at)
        ids = torch.tensor([[*call.context_tokens, *call.tokens]])
        with torch.no_grad():
            logits_TV = model(input_ids=ids).logits[0, len(call.context_tokens) - 1 : -1]
        logp_TV = torch.log_softmax(logits_TV / torch.tensor(at)[:, None], -1)
        expected = logp_TV.gather(1, torch.tensor(list(call.tokens))[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(list(call.logprobs)), expected, atol=1e-4, rtol=0)
        entropy = -(torch.log_softmax(logits_TV, -1).exp() * torch.log_softmax(logits_TV, -1)).sum(-1)
        part = HapoTemperature(tau=0.5)
        wanted = part.temperatures(entropy.double().numpy(), torch.ones(len(at)).numpy(), engine._heat.stats)
        torch.testing.assert_close(torch.tensor(at), torch.tensor(wanted, dtype=torch.float32), atol=0.11, rtol=0)
    assert len(seen) > 3 and 0.5 <= min(seen) < 1 < max(seen) <= 1.5


def test_an_evaluation_keeps_the_temperature_it_asks_for(serve, monkeypatch):
    monkeypatch.setattr(heat, "LEAST_TOKENS", 50)
    handler = serve({"name": "hapo_temperature", "tau": 0.5})
    made(handler, request())
    handler.versions.apply(6, handler.desk.engine._decoder.model.state_dict())
    asked = request(n=2, purpose=prompt_pb2.PURPOSE_EVALUATE, temperature=0.75)
    asked.request_id = "e"
    assert {span.temperature for one in made(handler, asked) for span in one.calls[0].spans} == {0.75}


def test_spans_change_where_the_version_or_the_temperature_does():
    said = Completion("a", [5, 6, 7, 8], [], [(0, 3), (3, 4), (4, 5)], LENGTH, temperatures=[1.0, 1.0, 0.5, 0.5])
    assert spans(said, 1.0) == [(0, 3, 1.0), (2, 3, 0.5), (3, 4, 0.5)]
    assert spans(Completion("a", [5], [], [(0, 3)], LENGTH), 0.7) == [(0, 3, 0.7)]


def test_a_beginning_is_shown_once_with_its_log_probs_while_the_job_goes_on(tokenizer, tiny_model):
    engine = TransformersEngine(tiny_model(0, eos_token_id=None), EngineOptions(slots=2), tokenizer)
    engine._batch.is_eos_V[:] = False
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=20)
    for i in range(5):
        engine.submit(Job(str(i), (5, 6, 7 + i), sampling, seed=i, look_at=7 if i < 4 else 0))
    said: dict[str, Completion] = {}
    until = time.monotonic() + 20
    while len(said) < 5 and time.monotonic() < until:
        said |= {one.id: one for one in engine.finished(0.2)}
    shown = engine.partials()
    assert sorted(one.id for one in shown) == ["0", "1", "2", "3"] and engine.partials() == []
    for one in shown:
        assert (one.tokens, one.logprobs) == (said[one.id].tokens[:7], said[one.id].logprobs[:7])
    engine.close()
