"""A worker's life: events in, state out."""

from __future__ import annotations

import pytest

from services.generation.fleet import Announced, Applied, Died, Loaded, Post, Turn, Worker, eligible
from sluice.v1 import control_pb2

SERVING = (Loaded(), Applied(3))


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), "STARTING"),
        ((Loaded(),), "LOADING"),
        ((Loaded(), Announced(3)), "LOADING"),
        (SERVING, "SERVING"),
        ((*SERVING, Announced(4)), "SERVING"),
        ((*SERVING, Announced(5)), "STALE"),
        ((*SERVING, Announced(5), Announced(4)), "STALE"),
        ((*SERVING, Announced(5), Applied(4)), "SERVING"),
        ((*SERVING, Turn(False, 7)), "SERVING"),
        ((*SERVING, Announced(9), Turn(True, 2)), "DRAINING"),
        ((*SERVING, Announced(9), Turn(True, 2), Turn(True, 0)), "DRAINED"),
        ((*SERVING, Turn(True, 0), Turn(False, 0)), "SERVING"),
        ((Died("no model"),), "DEAD"),
        ((*SERVING, Turn(True, 2), Died("no memory")), "DEAD"),
        ((*SERVING, Died("no memory"), Applied(9), Turn(False, 0), Loaded()), "DEAD"),
    ],
)
def test_a_workers_state_follows_from_what_happened(events, state):
    worker = Worker(max_lag=1)
    for event in events:
        worker = worker.after(event)
    assert control_pb2.WorkerState.Name(worker.standing.state) == f"WORKER_STATE_{state}"


def test_every_state_that_takes_nothing_says_why_and_a_death_keeps_its_first_reason():
    post = Post(Worker(max_lag=1, loaded=True))
    assert post.tell(Announced(4)).reason == "no weights have been announced yet"
    assert post.tell(Applied(2)).reason == "applied version 2 is 2 behind 4; the bound is 1"
    assert post.tell(Turn(True, 3)).reason == "finishes 3 rollouts"
    assert post.tell(Died("the engine ended")).reason == "the engine ended"
    assert post.tell(Died("the updater ended")).reason == "the engine ended"


def test_an_older_version_than_known_is_no_news():
    worker = Worker(max_lag=1).after(Announced(4))
    assert worker.after(Announced(3)) is worker and worker.after(Applied(2)).newest == 4


def test_with_no_lag_allowed_only_the_newest_version_is_eligible():
    assert [eligible(applied, 4, 0) for applied in (3, 4, 5)] == [False, True, True]
