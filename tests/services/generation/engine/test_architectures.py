"""The transformers engine drives any causal language model whose layers attend, with a plain forward's log-probs."""

from __future__ import annotations

import time

import pytest
import torch
import transformers

from pipeline.errors import UserError
from services.generation.engine import attention
from services.generation.engine.api import EngineOptions, Job
from services.generation.engine.transformers import TransformersEngine
from sluice.v1 import prompt_pb2

SIZES = {
    "vocab_size": 102,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 2,
}
MODELS = {
    "llama": transformers.LlamaConfig(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES),
    "mistral, sliding window": transformers.MistralConfig(**SIZES, sliding_window=6),
    "qwen2, one sliding layer": transformers.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "gemma3, sliding and full layers": transformers.Gemma3TextConfig(
        **SIZES, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2, learned positions": transformers.GPT2Config(
        vocab_size=102, n_embd=64, n_layer=2, n_head=4, n_positions=128, eos_token_id=1, initializer_range=0.2
    ),
    "granite, scaled logits": transformers.GraniteConfig(**SIZES, logits_scaling=3.0),
}


def build(config: transformers.PretrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_are_those_of_a_plain_forward_pass(name, tokenizer):
    model, plain = build(MODELS[name]), build(MODELS[name])
    attention.choose(model)
    engine = TransformersEngine(model, EngineOptions(slots=3), tokenizer)
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=20)
    jobs = [Job(str(i), tuple(range(5, 6 + 2 * i)), sampling, seed=i) for i in range(8)]
    for job in jobs:
        engine.submit(job)
    found, until = {}, time.monotonic() + 30
    while len(found) < len(jobs) and time.monotonic() < until:
        found |= {one.id: one for one in engine.finished(0.2)}
    engine.close()
    for job in jobs:
        said = found[job.id]
        ids = torch.tensor([[*job.tokens, *said.tokens]])
        logits_TV = plain(input_ids=ids, use_cache=False).logits[0, len(job.tokens) - 1 : -1]
        expected = torch.log_softmax(logits_TV, -1).gather(1, torch.tensor(said.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(said.logprobs), expected, atol=1e-4, rtol=0)


def test_a_model_with_layers_that_do_not_attend_is_refused(tokenizer):
    model = build(transformers.LlamaConfig(**SIZES))
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(UserError, match="layers of type .'linear_attention'.; accepted by this engine"):
        TransformersEngine(model, EngineOptions(slots=3), tokenizer)
