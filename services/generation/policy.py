"""What a worker may do: which requests it refuses, whether its weights are fresh enough, what state it is in. Pure.

    STARTING --> LOADING --> SERVING <--> STALE
                    `----------+-----------'--> DRAINING --> DRAINED

A worker serves while its applied version is at most `max_lag` behind the newest one it knows of. One that cannot
advance serves until that bound; then it is STALE, takes nothing new, says why, and comes back by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from sluice.v1 import control_pb2, prompt_pb2

UNSUPPORTED_SAMPLING = "unsupported_sampling"
UNSUPPORTED_CONTENT = "unsupported_content"
PROMPT_TOO_LONG = "prompt_too_long"
EMPTY_PROMPT = "empty_prompt"
TEMPLATE_REFUSED = "template_refused"
DEADLINE = "deadline"
DRAINED = "drained"
POISON = "poison"
ENGINE_DIED = "engine_died"

HANDED_BACK_AFTER_S = 5.0
"""How long a request waits for weights that it was issued after; the usual wait is that of one update."""
HANDED_BACK_MS = 500
"""Not before, when it is handed back: time for another worker to have room."""
ATTEMPTS = 4
"""Workers that a request comes to at most; the last one keeps it until its deadline."""

State = control_pb2.WorkerState


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker's state follows from. Versions are None until there is one."""

    loaded: bool = False
    applied: int | None = None
    newest: int | None = None
    max_lag: int = 0
    leaving: bool = False
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker's state, why, and what it waits for when it has nothing to do."""

    state: control_pb2.WorkerState
    reason: str
    waits_for: str


def standing(facts: Facts) -> Standing:
    """The state that these facts put a worker in.

    >>> standing(Facts(loaded=True, applied=3, newest=5, max_lag=2)).waits_for
    'no_requests'
    >>> standing(Facts(loaded=True, applied=2, newest=5, max_lag=2)).reason
    'applied version 2 is 3 behind 5; the bound is 2'
    """
    if facts.leaving and facts.outstanding:
        return Standing(State.WORKER_STATE_DRAINING, f"finishes {facts.outstanding} rollouts", "draining")
    if facts.leaving:
        return Standing(State.WORKER_STATE_DRAINED, "", "draining")
    if not facts.loaded:
        return Standing(State.WORKER_STATE_STARTING, "the engine loads its model", "no_engine")
    if facts.applied is None:
        return Standing(State.WORKER_STATE_LOADING, "no weights have been announced yet", "no_weights")
    if not eligible(facts.applied, facts.newest, facts.max_lag):
        behind = f"applied version {facts.applied} is {facts.newest - facts.applied} behind {facts.newest}"
        return Standing(State.WORKER_STATE_STALE, f"{behind}; the bound is {facts.max_lag}", "stale")
    return Standing(State.WORKER_STATE_SERVING, "", "no_requests")


def eligible(applied: int, newest_announced: int | None, max_lag: int) -> bool:
    """Whether new training rollouts may be sampled with these weights.

    >>> eligible(4, 6, 2), eligible(4, 7, 2), eligible(4, None, 0)
    (True, False, True)
    """
    return newest_announced is None or applied >= newest_announced - max_lag


def handed_back(request: prompt_pb2.RolloutRequest, waited_s: float, now_ms: int) -> prompt_pb2.RolloutRequest | None:
    """A request for another worker, because this one's weights have been too old for it; None: it waits on here.

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
