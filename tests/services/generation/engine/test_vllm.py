"""The vLLM engine against a plain forward pass. One engine for all tests: loading takes 20 s, or minutes when busy."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
import torch

from pipeline.errors import UserError
from services.generation.engine.api import Completion, Engine, EngineOptions, Job
from services.generation.engine.open import open_engine
from services.generation.guidance.hapo_temperature import HapoTemperature
from sluice.v1 import prompt_pb2, rollout_pb2

needs_vllm = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, tiny_model) -> str:
    """Version 0 as a model folder; heads are 32 wide, which vLLM's attention on a CPU wants."""
    path = tmp_path_factory.mktemp("model")
    tiny_model(0, hidden_size=128).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def engine(folder) -> Iterator[Engine]:
    engine = open_engine("vllm", folder, EngineOptions(slots=16, max_len=128, kv="recompute", device="cpu", threads=1))
    yield engine
    engine.close()


def sampling(**changes) -> prompt_pb2.SamplingParams:
    return prompt_pb2.SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 12, **changes})


def collect(engine: Engine, number: int, seconds: float = 120.0) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    until = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < until:
        found |= {one.id: one for one in engine.finished(0.2)}
    assert len(found) == number
    return found


def logprobs(model: torch.nn.Module, context: tuple[int, ...], tokens: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1].float()
    return torch.log_softmax(logits_TV / temperature, -1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


class TestVllm:
    pytestmark = needs_vllm

    def test_log_probs_are_those_of_a_plain_forward_pass(self, engine, tiny_model):
        model = tiny_model(0, hidden_size=128)
        wanted = [
            Job(f"job-{i}", tuple(range(5, 6 + i)), sampling(temperature=(0.7, 1.0, 1.3)[i % 3], max_tokens=3 + i), i)
            for i in range(24)
        ]
        for job in wanted:
            engine.submit(job)
        found = collect(engine, len(wanted))
        for job in wanted:
            said = found[job.id]
            expected = logprobs(model, job.tokens, said.tokens, job.sampling.temperature)
            torch.testing.assert_close(torch.tensor(said.logprobs), expected, atol=1e-4, rtol=0)
            assert said.ending == (rollout_pb2.ENDING_STOP if said.tokens[-1] == 1 else rollout_pb2.ENDING_LENGTH)
            assert said.spans == [(0, 0)]
        assert engine.running() == 0

    def test_a_seed_gives_the_same_tokens_again(self, engine):
        for name in ("one", "two"):
            engine.submit(Job(name, (5, 6, 7), sampling(), seed=77))
        found = collect(engine, 2)
        assert found["one"].tokens == found["two"].tokens

    def test_a_stop_string_ends_the_call_and_stays_out_of_the_text(self, engine, tokenizer):
        engine.submit(Job("free", (5, 6, 7), sampling(max_tokens=30), seed=5))
        free = collect(engine, 1)["free"]
        stop = tokenizer.decode(free.tokens[2:4])
        engine.submit(Job("stopped", (5, 6, 7), sampling(max_tokens=30, stop=[stop]), seed=5))
        said = collect(engine, 1)["stopped"]
        assert said.ending == rollout_pb2.ENDING_STOP and stop not in said.text
        assert said.tokens == free.tokens[: len(said.tokens)]

    def test_aborts_and_deadlines_end_what_they_name(self, engine):
        forever = sampling(min_tokens=120, max_tokens=120)
        soon = int(time.time() * 1000) + 50
        for i in range(40):
            engine.submit(Job(f"late-{i}", (5, 6), forever, seed=i, deadline_ms=soon))
        engine.submit(Job("gone", (5, 6), forever, seed=1))
        engine.submit(Job("stays", (5, 6), forever, seed=1))
        engine.abort(["gone", "unknown"])
        found = collect(engine, 42)
        assert found["gone"].ending == rollout_pb2.ENDING_ABORTED
        assert found["stays"].ending == rollout_pb2.ENDING_LENGTH and len(found["stays"].tokens) == 120
        expired = [one for one in found.values() if one.ending == rollout_pb2.ENDING_EXPIRED]
        assert expired and all(len(one.tokens) == len(one.logprobs) < 120 for one in expired)

    def test_a_beginning_is_shown_once_and_an_abort_says_its_reason(self, engine):
        forever = sampling(min_tokens=120, max_tokens=120)
        for i in range(3):
            engine.submit(Job(f"shown-{i}", (5, 6, 7 + i), forever, seed=i, look_at=7 if i < 2 else 0))
        shown, used, until = [], 0.0, time.monotonic() + 60
        while len(shown) < 2 and time.monotonic() < until:
            shown += engine.partials()
            used = max(used, engine.kv_use())
            time.sleep(0.001)
        engine.abort(["shown-0"], "pruned")
        found = collect(engine, 3)
        assert {one.id for one in shown} == {"shown-0", "shown-1"} and engine.partials() == []
        for one in shown:
            assert len(one.tokens) == 7 and one.tokens == found[one.id].tokens[:7]
            assert one.logprobs == pytest.approx(found[one.id].logprobs[:7])
        assert found["shown-0"].reason in ("pruned", "")  # it may have ended before the abort came
        assert len(found["shown-1"].logprobs) == 120 and found["shown-1"].spans == [(0, 0)]
        assert 0.0 < used <= 1.0 and engine.preempted() == 0

    def test_weights_of_another_model_are_refused_before_the_pause(self, engine, tiny_model):
        with pytest.raises(UserError, match="of another shape"):
            engine.apply(1, dict(tiny_model(1, hidden_size=64).named_parameters()))
        assert engine.version == 0

    def test_spans_are_right_to_the_token_over_an_update_in_flight(self, engine, tiny_model):
        models = {version: tiny_model(version, hidden_size=128) for version in (0, 1)}
        context = (5, 6, 7)
        for attempt in range(20):
            names = [f"{attempt}-{i}" for i in range(8)]
            for i, name in enumerate(names):
                engine.submit(Job(name, context, sampling(max_tokens=120), seed=100 * attempt + i))
            time.sleep(0.03)
            newest, other = engine.version, 1 - engine.version % 2
            engine.apply(newest + 1, dict(models[other].named_parameters()))
            found = collect(engine, len(names))
            crossing = [one for one in found.values() if len(one.spans) == 2]
            if crossing:
                break
        assert crossing, "no rollout was in flight during an update"
        for said in crossing:
            (_, before), (switch, after) = said.spans
            assert (before, after) == (newest, newest + 1)
            for version, first, end in ((before, 0, switch), (after, switch, len(said.tokens))):
                expected = logprobs(models[version % 2], context, said.tokens[:end], 1.0)[first:]
                torch.testing.assert_close(torch.tensor(said.logprobs[first:end]), expected, atol=1e-4, rtol=0)


def test_without_vllm_the_engine_is_refused_in_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="engine vllm cannot be imported .*; accepted: an environment with vllm"):
        open_engine("vllm", folder, EngineOptions())


def test_temperatures_token_by_token_are_refused(folder):
    with pytest.raises(UserError, match="HapoTemperature.* accepted: engine transformers"):
        open_engine("vllm", folder, EngineOptions(heats=HapoTemperature()))


def test_an_engine_that_does_not_exist_is_refused_with_those_that_do(folder):
    with pytest.raises(UserError, match="the engine is 'tgi'; accepted: transformers, vllm"):
        open_engine("tgi", folder, EngineOptions())


def test_a_model_folder_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="does not exist; accepted: a folder or a Hugging Face id"):
        open_engine("transformers", "./no/such/folder", EngineOptions())
