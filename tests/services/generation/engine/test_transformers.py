"""The transformers engine against a plain forward pass of the same model."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from pipeline.errors import UserError
from services.generation.engine import attention
from services.generation.engine.api import Completion, EngineDied, EngineOptions, Job
from services.generation.engine.transformers import TransformersEngine
from sluice.v1 import prompt_pb2, rollout_pb2

STOP, LENGTH = rollout_pb2.ENDING_STOP, rollout_pb2.ENDING_LENGTH
Open = Callable[..., TransformersEngine]


@pytest.fixture
def open_engine(tokenizer, tiny_model) -> Iterator[Open]:
    """Opens engines over the tiny model of a seed; closes them at the end."""
    opened = []

    def opener(model=None, ends=True, **options) -> TransformersEngine:
        spoken = copy.deepcopy(tokenizer)
        spoken.eos_token = "<eos>" if ends else None
        model = model or (tiny_model(0) if ends else tiny_model(0, eos_token_id=None))
        engine = TransformersEngine(model, EngineOptions(**{"slots": 8, **options}), spoken)
        opened.append(engine)
        return engine

    yield opener
    for engine in opened:
        engine.close()


def sampling(**changes) -> prompt_pb2.SamplingParams:
    """Temperature 1, the whole vocabulary, 12 tokens."""
    return prompt_pb2.SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 12, **changes})


def collect(engine: TransformersEngine, number: int, seconds: float = 30.0) -> dict[str, Completion]:
    """The next `number` completions by id."""
    found: dict[str, Completion] = {}
    until = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < until:
        found |= {one.id: one for one in engine.finished(0.2)}
    assert len(found) == number
    return found


def logprobs(model: torch.nn.Module, context: tuple[int, ...], tokens: list[int], temperature: float) -> torch.Tensor:
    """Log-probs of `tokens` after `context`, by one forward pass over the whole sequence."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1].float()
    return torch.log_softmax(logits_TV / temperature, -1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def jobs(number: int, **changes) -> list[Job]:
    """Jobs with contexts of 1 to 20 tokens and answers of 1 to 30, pairs of them with equal contexts."""
    dice = random.Random(3)
    made = []
    for i in range(number):
        repeat = i % 2 and made
        context = made[-1].tokens if repeat else tuple(dice.randint(2, 101) for _ in range(dice.randint(1, 20)))
        wanted = {"max_tokens": dice.randint(1, 30), "temperature": dice.choice([0.7, 1.0, 1.3]), **changes}
        made.append(Job(f"job-{i}", context, sampling(**wanted), seed=1000 + i))
    return made


@pytest.mark.parametrize("kernel", ["eager", "sdpa", attention.NAME])
def test_log_probs_are_those_of_a_plain_forward_pass_for_mixed_lengths_that_join_at_any_step(
    open_engine, tiny_model, kernel
):
    model = tiny_model(0)
    model.set_attn_implementation(kernel)
    engine = open_engine(model, slots=5)
    wanted = jobs(40)
    for i, job in enumerate(wanted):
        engine.submit(job)
        if i % 7 == 0:
            time.sleep(0.01)
    found = collect(engine, len(wanted))
    for job in wanted:
        said = found[job.id]
        expected = logprobs(tiny_model(0), job.tokens, said.tokens, job.sampling.temperature)
        torch.testing.assert_close(torch.tensor(said.logprobs), expected, atol=1e-4, rtol=0)
        assert said.ending == (STOP if said.tokens[-1] == 1 else LENGTH)
        assert len(said.tokens) == job.sampling.max_tokens or said.ending == STOP
        assert said.spans == [(0, 0)]
    assert engine.running() == 0 and engine.busy_s() > 0


def test_a_job_draws_the_same_tokens_alone_and_among_others(open_engine):
    wanted = jobs(24)
    crowd = open_engine(slots=7)
    for job in wanted:
        crowd.submit(job)
    among = collect(crowd, len(wanted))
    lone = open_engine(slots=1)
    for job in wanted[::5]:
        lone.submit(job)
        alone = collect(lone, 1)[job.id]
        assert alone.tokens == among[job.id].tokens
        assert alone.logprobs == pytest.approx(among[job.id].logprobs, abs=1e-4)


def test_draws_have_the_frequencies_of_the_distribution(open_engine, tiny_model):
    engine = open_engine(slots=256)
    context = (5, 9, 30)
    for i in range(4000):
        engine.submit(Job(str(i), context, sampling(max_tokens=1), seed=i))
    found = collect(engine, 4000)
    count_V = torch.bincount(torch.tensor([said.tokens[0] for said in found.values()]), minlength=102)
    with torch.no_grad():
        prob_V = torch.softmax(tiny_model(0)(input_ids=torch.tensor([context])).logits[0, -1], -1)
    # Five standard deviations of a binomial count.
    assert ((count_V - 4000 * prob_V).abs() <= 5 * (4000 * prob_V * (1 - prob_V)).sqrt() + 1).all()


def test_temperature_zero_takes_the_likeliest_token(open_engine, tiny_model):
    engine = open_engine()
    engine.submit(Job("greedy", (5, 6, 7), sampling(temperature=0.0, max_tokens=6), seed=1))
    said = collect(engine, 1)["greedy"]
    model, tokens = tiny_model(0), [5, 6, 7]
    for token in said.tokens:
        with torch.no_grad():
            assert token == int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
        tokens.append(token)


def test_top_k_one_is_greedy_and_has_log_prob_zero(open_engine):
    engine = open_engine()
    engine.submit(Job("greedy", (5, 6, 7), sampling(temperature=0.0, max_tokens=5), seed=1))
    engine.submit(Job("top", (5, 6, 7), sampling(top_k=1, max_tokens=5), seed=9))
    engine.submit(Job("nucleus", (5, 6, 7), sampling(top_p=1e-6, max_tokens=5), seed=9))
    found = collect(engine, 3)
    assert found["top"].tokens == found["nucleus"].tokens == found["greedy"].tokens
    assert found["top"].logprobs == [0.0] * len(found["top"].tokens)


def test_fewer_than_min_tokens_never_end_by_eos(open_engine):
    engine = open_engine(slots=50)
    for i in range(50):
        engine.submit(Job(str(i), (5, 6), sampling(min_tokens=20, max_tokens=30), seed=i))
    assert all(len(said.tokens) >= 20 for said in collect(engine, 50).values())


def test_a_stop_string_ends_the_call_and_stays_out_of_the_text(open_engine, tokenizer):
    engine = open_engine()
    engine.submit(Job("free", (5, 6, 7), sampling(max_tokens=30), seed=5))
    free = collect(engine, 1)["free"]
    stop = tokenizer.decode(free.tokens[3:5])
    engine.submit(Job("stopped", (5, 6, 7), sampling(max_tokens=30, stop=["never there", stop]), seed=5))
    said = collect(engine, 1)["stopped"]
    assert said.ending == STOP
    assert said.tokens == free.tokens[: len(said.tokens)] and len(said.tokens) <= 5
    assert said.text + stop == tokenizer.decode(said.tokens)


def test_the_context_limit_ends_a_row(open_engine):
    engine = open_engine(max_len=16)
    engine.submit(Job("long", tuple(range(2, 12)), sampling(max_tokens=100, min_tokens=100), seed=1))
    said = collect(engine, 1)["long"]
    assert (len(said.tokens), said.ending) == (6, LENGTH)
    with pytest.raises(UserError, match="context has 16 tokens; accepted: 1 to 15"):
        engine.submit(Job("longer", tuple(range(2, 18)), sampling(), seed=1))


def test_a_deadline_ends_running_and_waiting_jobs(open_engine):
    engine = open_engine(slots=1, max_len=120)
    soon = int(time.time() * 1000) + 60
    forever = sampling(min_tokens=110, max_tokens=110)
    for i in range(200):
        engine.submit(Job(f"running-{i}", (5, 6), forever, seed=1, deadline_ms=soon))
    found = collect(engine, 200)
    expired = [said for said in found.values() if said.ending == rollout_pb2.ENDING_EXPIRED]
    assert expired and all(said.reason == "deadline" for said in expired)
    assert any(not said.tokens and not said.spans for said in expired)


def test_an_abort_ends_running_and_waiting_jobs_and_nothing_else(open_engine):
    engine = open_engine(slots=2)
    forever = sampling(min_tokens=120, max_tokens=120)
    for name in ("a", "b", "c"):
        engine.submit(Job(name, (5, 6), forever, seed=1))
    engine.abort(["a", "c", "unknown"])
    found = collect(engine, 3)
    assert {name: said.ending for name, said in found.items()} == {
        "a": rollout_pb2.ENDING_ABORTED,
        "b": LENGTH,
        "c": rollout_pb2.ENDING_ABORTED,
    }


@pytest.mark.parametrize("kv", ["keep", "recompute"])
def test_spans_are_right_to_the_token_over_updates_in_flight(open_engine, tiny_model, kv):
    engine = open_engine(ends=False, slots=4, kv=kv)
    models = {version: tiny_model(version) for version in (0, 1, 2)}
    for i in range(4):
        engine.submit(Job(str(i), (5, 6, 7 + i), sampling(max_tokens=110), seed=i))
    for version in (1, 2):
        wait_for_tokens(engine, 25 * version)
        assert engine.apply(version, models[version].state_dict()) < 5.0
    found = collect(engine, 4)
    for i, said in ((int(name), said) for name, said in found.items()):
        assert [version for _, version in said.spans] == [0, 1, 2]
        context = (5, 6, 7 + i)
        begins = [first for first, _ in said.spans] + [len(said.tokens)]
        assert 0 == begins[0] < begins[1] < begins[2] < len(said.tokens)
        for (first, version), end in zip(said.spans, begins[1:], strict=True):
            expected = logprobs(models[version], context, said.tokens[:end], 1.0)[first:]
            gap = (torch.tensor(said.logprobs[first:end]) - expected).abs().max().item()
            if kv == "recompute" or version == 0:
                assert gap < 1e-4
            else:
                assert gap > 1e-2, "kept context is the old policy's; the log-probs must show it"


def wait_for_tokens(engine: TransformersEngine, number: int) -> None:
    """Until the first row has sampled so many."""
    until = time.monotonic() + 20
    batch = engine._batch
    while batch.length_S[0] - batch.start_S[0] < number:
        assert time.monotonic() < until
        time.sleep(0.0005)


def test_weights_are_taken_under_the_name_of_either_tied_tensor(open_engine, tiny_model):
    engine = open_engine()
    state = dict(tiny_model(1).state_dict())
    del state["lm_head.weight"]
    engine.apply(7, state)
    assert engine.version == 7
    engine.submit(Job("new", (5, 6, 7), sampling(), seed=1))
    said = collect(engine, 1)["new"]
    assert said.spans == [(0, 7)]
    expected = logprobs(tiny_model(1), (5, 6, 7), said.tokens, 1.0)
    torch.testing.assert_close(torch.tensor(said.logprobs), expected, atol=1e-4, rtol=0)


def test_weights_of_another_model_are_refused_with_their_differences(open_engine, tiny_model):
    engine = open_engine()
    state = dict(tiny_model(1).state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["model.norm.weight"] = torch.zeros(3)
    del state["model.layers.0.mlp.up_proj.weight"]
    with pytest.raises(UserError) as refused:
        engine.apply(1, state)
    assert "not in the model: extra.weight" in str(refused.value)
    assert "missing: model.layers.0.mlp.up_proj.weight" in str(refused.value)
    assert "model.norm.weight is (3,), the model's is (64,)" in str(refused.value)
    assert engine.version == 0


def test_an_engine_that_died_says_so_to_whoever_asks(open_engine, tiny_model):
    model = copy.deepcopy(tiny_model(0))
    engine = open_engine(model)
    model.forward = None
    engine.submit(Job("last", (5, 6), sampling(), seed=1))
    with pytest.raises(EngineDied, match="TypeError"):
        collect(engine, 1)
    with pytest.raises(EngineDied):
        engine.submit(Job("later", (5, 6), sampling(), seed=1))
    with pytest.raises(EngineDied):
        engine.apply(1, tiny_model(1).state_dict())
