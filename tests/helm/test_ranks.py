"""A learner of several ranks has a GPU for each."""

from __future__ import annotations

import pytest

from tests.helm.chart import attempt


@pytest.mark.parametrize(("gpus", "ranks", "accepted"), [(4, 4, True), (4, 1, False), (1, 2, False), (0, 2, True)])
def test_a_learner_has_a_rank_for_each_of_its_gpus(gpus, ranks, accepted):
    limits = {"memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    values = {"kafka": {"bootstrapServers": "k:9092"}, "run": {"learning": {"ranks": ranks}}}
    done = attempt(values | {"learning": {"resources": {"limits": limits}}})
    assert (done.returncode == 0) is accepted
    if not accepted:
        said = f"learning has {gpus} GPUs and run.learning.ranks is {ranks}; accepted: a rank for each GPU"
        assert said in done.stderr
