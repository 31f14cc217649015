"""A learner of several ranks has a GPU for each: in its own pod, or one there and the others on Ray."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import BROKER, attempt


@pytest.mark.parametrize(("gpus", "ranks", "accepted"), [(4, 4, True), (4, 1, False), (1, 2, False), (0, 2, True)])
def test_a_learner_has_a_rank_for_each_of_its_gpus(gpus, ranks, accepted):
    limits = {"memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    values = {"kafka": {"bootstrapServers": "k:9092"}, "run": {"learning": {"ranks": ranks}}}
    done = attempt(values | {"learning": {"resources": {"limits": limits}}})
    assert (done.returncode == 0) is accepted
    if not accepted:
        said = f"learning has {gpus} GPUs and run.learning.ranks is {ranks}; accepted: a rank for each GPU"
        assert said in done.stderr


def with_gpus(gpus: int) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("gpus", "others", "said"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (1, 4, ""),
        (4, 4, "learning has 4 GPUs and its other ranks are on Ray; accepted: one GPU, of rank 0, or none"),
        (1, 0, "learning has 1 GPUs and learning.ray.worker has 0; accepted: GPUs for both, or for neither"),
        (0, 4, "learning has 0 GPUs and learning.ray.worker has 4; accepted: GPUs for both, or for neither"),
    ],
)
def test_with_ray_the_learners_pod_has_one_gpu_where_the_other_ranks_have_theirs(gpus, others, said):
    ray = {"ray": {"enabled": True, "worker": with_gpus(others)}}
    done = attempt(BROKER | {"run": {"learning": {"ranks": 4}}, "learning": with_gpus(gpus) | ray})
    assert (done.returncode == 0) is (not said)
    assert said in done.stderr


@pytest.mark.parametrize(("gpus", "accepted"), [(0, True), (1, True), (4, False)])
def test_with_a_ray_cluster_of_somebody_elses_it_is_the_same(gpus, accepted):
    run = {"learning": {"ranks": 4, "ray": "ray://elsewhere:10001"}}
    given = BROKER | {"run": run, "learning": with_gpus(gpus), "networkPolicy": {"enabled": False}}
    assert (attempt(given).returncode == 0) is accepted
