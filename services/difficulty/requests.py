"""What a request's draws begin from, and what training asks of them."""

from __future__ import annotations

import hashlib

from pipeline.errors import UserError
from sluice.v1 import prompt_pb2


def request_seed(seed: int, request_id: str) -> int:
    """Seed of a request's draws, from the run's seed: never 0, below 2 ** 63.

    >>> request_seed(0, "r-00000001") == request_seed(0, "r-00000001") != request_seed(1, "r-00000001")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8]) >> 1 or 1


def refuse_for_training(sampling: prompt_pb2.SamplingParams) -> None:
    """Training needs log-probs of the whole distribution: refuse what cuts it."""
    if not 0 < sampling.temperature < float("inf"):
        raise UserError(f"sampling.temperature is {sampling.temperature}; accepted for training: above 0")
    for name, wanted in (("top_p", 1), ("top_k", 0), ("min_p", 0), ("min_tokens", 0)):
        if getattr(sampling, name) != wanted:
            raise UserError(f"sampling.{name} is {getattr(sampling, name)}; accepted for training: {wanted}")
    if sampling.max_tokens < 1:
        raise UserError(f"sampling.max_tokens is {sampling.max_tokens}; accepted: at least 1")
