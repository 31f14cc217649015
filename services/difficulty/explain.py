"""Why a prompt is tried, or is not: its belief and its score under the sampler in force, among the other prompts."""

from __future__ import annotations

import numpy as np

from services.difficulty.scheduler import Scheduler
from sluice.v1 import difficulty_pb2


def explain(scheduler: Scheduler, prompt_id: str) -> difficulty_pb2.ExplainResponse:
    """The prompt's state, belief, score as `Next` tells it, and standing. `KeyError` when it is unknown."""
    view = scheduler.view()
    row = scheduler.store.rows[prompt_id]
    mine = np.flatnonzero(view.rows_P == row)
    state = scheduler.posterior(prompt_id)
    sampler = type(scheduler.sampler).__module__.rpartition(".")[2]
    if not len(mine):
        said = f"{prompt_id!r} is not registered to train on: it is never chosen"
        return difficulty_pb2.ExplainResponse(state=state, sampler=sampler, sentence=said)
    states = view.take(mine)
    (score,), among_P = scheduler.scores(view, mine)
    below = float((among_P < score).mean())
    belief, busy = scheduler.belief(states, 0), bool(states.busy_P[0])
    said = (
        f"believed to pass {belief.mean:.0%} of the time (worth {belief.effective_n:.1f} observations, "
        f"{state.visits} outcomes seen); {sampler} scores it {score:.4g}, above {below:.0%} of "
        f"{len(among_P)} prompts{'; rollouts of it are in flight' if busy else ''}"
    )
    return difficulty_pb2.ExplainResponse(
        state=state,
        belief=belief,
        sampler=sampler,
        score=float(score),
        percentile=below,
        compared=len(among_P),
        busy=busy,
        sentence=said,
    )
