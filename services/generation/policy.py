"""What becomes of a request that is not sampled here: which are refused, which are handed to another worker. Pure."""

from __future__ import annotations

from sluice.v1 import prompt_pb2

UNSUPPORTED_SAMPLING = "unsupported_sampling"
UNSUPPORTED_CONTENT = "unsupported_content"
PROMPT_TOO_LONG = "prompt_too_long"
EMPTY_PROMPT = "empty_prompt"
TEMPLATE_REFUSED = "template_refused"
DEADLINE = "deadline"
DRAINED = "drained"
POISON = "poison"
ENGINE_DIED = "engine_died"
PRUNED = "pruned"

HANDED_BACK_AFTER_S = 5.0
"""How long a request waits for weights that it was issued after, or for room; the usual wait is that of one update."""
HANDED_BACK_MS = 500
"""Not before, when it is handed back: time for another worker to have room."""
ATTEMPTS = 4
"""Workers that a request comes to at most; the last one keeps it until its deadline."""


def handed_back(request: prompt_pb2.RolloutRequest, waited_s: float, now_ms: int) -> prompt_pb2.RolloutRequest | None:
    """A request for another worker, because this one has had no weights, or no room, for it; None: it waits on here.

    >>> handed_back(prompt_pb2.RolloutRequest(attempt=1), 6.0, 1000).attempt
    2
    >>> [handed_back(prompt_pb2.RolloutRequest(attempt=at), s, 1000) for at, s in ((1, 4.0), (4, 6.0))]
    [None, None]
    """
    if waited_s < HANDED_BACK_AFTER_S or request.attempt >= ATTEMPTS:
        return None
    again = prompt_pb2.RolloutRequest()
    again.CopyFrom(request)
    again.attempt, again.not_before_ms = max(request.attempt, 1) + 1, now_ms + HANDED_BACK_MS
    return again


def refusal(request: prompt_pb2.RolloutRequest) -> str:
    """Why its sampling parameters are not accepted, one sentence; empty when they are.

    Training needs the log-probs of the whole distribution: what cuts or shifts it is for evaluation only.
    """
    sampling = request.sampling
    if request.n < 1:
        return f"n is {request.n}; accepted: 1 or more"
    if sampling.max_tokens < 1:
        return f"max_tokens is {sampling.max_tokens}; accepted: 1 or more"
    if not 0.0 <= sampling.temperature < float("inf"):
        return f"temperature is {sampling.temperature:g}; accepted: 0 or more"
    if not 0.0 <= sampling.top_p <= 1.0 or not 0.0 <= sampling.min_p < 1.0:
        return f"top_p is {sampling.top_p:g} and min_p {sampling.min_p:g}; accepted: (0, 1] and [0, 1)"
    if request.purpose == prompt_pb2.PURPOSE_TRAIN:
        return _not_for_training(sampling)
    if request.purpose != prompt_pb2.PURPOSE_EVALUATE:
        return "purpose is not set; accepted: PURPOSE_TRAIN, PURPOSE_EVALUATE"
    return ""


def _not_for_training(sampling: prompt_pb2.SamplingParams) -> str:
    wrong = {
        "temperature": (sampling.temperature, sampling.temperature > 0, "more than 0"),
        "top_p": (sampling.top_p, sampling.top_p == 1, "1"),
        "top_k": (sampling.top_k, sampling.top_k == 0, "0"),
        "min_p": (sampling.min_p, sampling.min_p == 0, "0"),
        "min_tokens": (sampling.min_tokens, sampling.min_tokens == 0, "0"),
    }
    for name, (value, fine, accepted) in wrong.items():
        if not fine:
            return f"{name} is {value:g} in a training request; accepted: {accepted}"
    return ""
