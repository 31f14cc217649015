"""What a worker refuses."""

from __future__ import annotations

import pytest

from services.generation.policy import refusal
from sluice.v1 import prompt_pb2


def request(purpose=prompt_pb2.PURPOSE_TRAIN, n=1, **sampling) -> prompt_pb2.RolloutRequest:
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 4} | sampling
    return prompt_pb2.RolloutRequest(purpose=purpose, n=n, sampling=prompt_pb2.SamplingParams(**settings))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"top_p": 0.5}, "top_p is 0.5 in a training request; accepted: 1"),
        ({"top_k": 3}, "top_k is 3 in a training request; accepted: 0"),
        ({"min_p": 0.25}, "min_p is 0.25 in a training request; accepted: 0"),
        ({"min_tokens": 2}, "min_tokens is 2 in a training request; accepted: 0"),
        ({"temperature": 0}, "temperature is 0 in a training request; accepted: more than 0"),
        ({"temperature": -1}, "temperature is -1; accepted: 0 or more"),
        ({"max_tokens": 0}, "max_tokens is 0; accepted: 1 or more"),
        ({"n": 0}, "n is 0; accepted: 1 or more"),
        ({"purpose": 0}, "purpose is not set; accepted: PURPOSE_TRAIN, PURPOSE_EVALUATE"),
        ({"purpose": prompt_pb2.PURPOSE_EVALUATE, "top_k": 3, "temperature": 0, "min_tokens": 1}, ""),
        (
            {"purpose": prompt_pb2.PURPOSE_EVALUATE, "top_p": 1.5},
            "top_p is 1.5 and min_p 0; accepted: (0, 1] and [0, 1)",
        ),
    ],
)
def test_what_is_refused_is_said_in_one_sentence(changes, sentence):
    assert refusal(request(**changes)) == sentence
