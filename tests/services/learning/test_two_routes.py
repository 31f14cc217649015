"""Two routes to one gradient, for every weight and regularizer part.

The first route is the paper's loss (`weight_forms.py`, `regularizer_forms.py`), by autograd. The second is the part, in
the estimator. d loss / d logp must be the same on random ragged batches, in float64. Parts are found by walking the
folders: one without a value form fails.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipeline import partspec
from services.learning.denominator.token_mean import TokenMean
from services.learning.estimator import Estimator
from services.learning.likelihood import Forward
from tests.services.learning.regularizer_forms import REGULARIZERS
from tests.services.learning.steps import begun, gradient, loaded, step
from tests.services.learning.weight_forms import WEIGHTS

ROOMS = {"learning.weight": WEIGHTS, "learning.regularizer": REGULARIZERS}
CASES = [
    pytest.param(room, name, *case, id=f"{name}-{'-'.join(map(str, case[0].values()))}")
    for room, forms in ROOMS.items()
    for name, cases in forms.items()
    for case in cases
]


@pytest.mark.parametrize("room", ROOMS)
def test_every_part_has_a_value_form(room):
    assert set(ROOMS[room]) == set(partspec.names(room))


@pytest.mark.parametrize(("room", "name", "knobs", "value", "denominator"), [
    pytest.param(*case.values, *([] if len(case.values) == 5 else [TokenMean()]), id=case.id) for case in CASES
])  # fmt: skip
def test_the_value_form_and_the_part_have_the_same_gradient(room, name, knobs, value, denominator):
    part = loaded(room, name, **knobs)
    weights, terms = ((part,), ()) if room == "learning.weight" else ((), ((name, part),))
    estimator = Estimator(weights, denominator, terms)
    pulled = False
    for seed, spread in ((0, 0.1), (1, 0.5), (2, 2.0), (3, 12.0)):
        batch, advantage_N, logp_NT = step(seed, spread)
        holes_NT = torch.rand(logp_NT.shape, generator=torch.Generator().manual_seed(seed)) < 0.15
        holes_NT[:, 0] = False
        if name != "gtpo_conflict":
            batch.mask_NT[holes_NT] = False
        batch = begun(estimator, batch.counted(), advantage_N, logp_NT)
        x = SimpleNamespace(
            logp=logp_NT, prox=batch.prox_NT, behaviour=batch.behaviour_NT, ref=batch.signals["ref_logp"],
            mask=batch.mask_NT, a=advantage_N[:, None], reward=batch.reward_N, accuracy=batch.accuracy_N,
            group=batch.group_N, entropy=batch.signals["entropy"], token=batch.token_NT, length=batch.length_N,
            live_entropy=logp_NT**2 / 2, live_value=0.4 * logp_NT, old_value=batch.signals["value"],
            top_ids=batch.signals["top_ids"], top_logp=batch.signals["top_logp"], hidden=batch.signals["hidden"],
            step_entropy=batch.signals["step_entropy"], disagreement=batch.signals["disagreement"],
        )  # fmt: skip
        zero = advantage_N if room == "learning.weight" else torch.zeros_like(advantage_N)
        brought = {"entropy": logp_NT**2 / 2, "value": 0.4 * logp_NT}
        total = estimator.loss(batch, Forward(logp_NT, brought), zero).total
        found = gradient(total, logp_NT)
        torch.testing.assert_close(found, gradient(value(x), logp_NT), atol=1e-8, rtol=1e-8)
        pulled |= bool((found != 0).any())
    assert pulled, "no case had a gradient"
