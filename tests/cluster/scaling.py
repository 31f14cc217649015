"""The stages that add and take away rollout workers: KEDA by lag, KEDA held by staleness, and a person."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster.release import SERVICES, Release, Watch, account, is_ready, job, release
from tests.cluster.tools import NotSo, kubectl, say, until
from tests.cluster.watching import Prometheus, address, watched
from tests.kafka.secure import Broker

SCALING = {"enabled": True, "kind": "keda", "min": 1, "max": 3, "lagPerReplica": 16, "cooldownSeconds": 15}
SMALL = {"limits": {"memory": "3Gi"}, "requests": {"cpu": "50m", "memory": "256Mi"}}
STILL_S = 75
"""How long a number of workers must stay to be held: KEDA looks every 10 s, the HPA that it makes every 15 s."""


def keda(broker: Broker) -> None:
    """On the lag of `requests`."""
    with job(broker, "keda", generation={"autoscaling": SCALING, "resources": SMALL}) as (one, watch):
        others = {service: one.count(service) for service in SERVICES if service != "generation"}
        begun = time.monotonic()
        until("three rollout workers", 300, lambda: one.count("generation") == 3, one.describe)
        say(f"    1 to 3 workers in {time.monotonic() - begun:.0f} s")
        watch.finished()
        begun = time.monotonic()
        until("one rollout worker", 300, lambda: one.count("generation") == 1, one.describe)
        say(f"    3 to 1 worker in {time.monotonic() - begun:.0f} s after the end")
        if others != {service: one.count(service) for service in others}:
            raise NotSo(f"another service moved: {others} before")


def stale(broker: Broker) -> None:
    """Where a real Prometheus says that much is dropped as stale, KEDA leaves the number as it is, whatever the lag."""
    values: dict[str, Any] = {
        "generation": {"autoscaling": SCALING, "resources": SMALL},
        "monitoring": {"prometheus": address()},
        "run": {"learning": {"steps": 320}},
    }
    with release(broker, "stale", **values) as one, watched(one) as (prometheus, said):
        said.stale, said.trained = 1000.0, 100.0
        until("a share of stale rollouts", 60, lambda: share(prometheus, one) > 0.5)
        one.install()
        watch = Watch.of(one)
        watch.step(3)
        held(one, 1, "only a tenth of the rollouts is fresh enough")
        said.stale, said.trained = 0.0, 1e6
        begun = time.monotonic()
        until("three rollout workers", 300, lambda: one.count("generation") == 3, one.describe)
        said.stale, said.trained = 1e9, 0.0  # at once, while two of them still load
        say(f"    1 to 3 workers in {time.monotonic() - begun:.0f} s after the rollouts are fresh")
        until("a share of stale rollouts", 60, lambda: share(prometheus, one) > 0.5)
        held(one, 3, "the share is high again")
        watch.finished()
        held(one, 3, "the share is high, and nothing is requested any more")
        account(one)


def share(prometheus: Prometheus, one: Release) -> float:
    """Of the run's rollouts, those dropped as stale."""
    who = f'run="{one.name}"'
    dropped = f'sum(rate(sluice_learning_drops_total{{reason="stale",{who}}}[10m]))'
    return prometheus.value(f"{dropped} / ({dropped} + sum(rate(sluice_learning_rollouts_total{{{who}}}[10m])))")


def held(one: Release, workers: int, why: str) -> None:
    """That many workers, for a time in which an unheld scaler would have moved. Raises `NotSo` when it moves."""
    begun = time.monotonic()
    while time.monotonic() - begun < STILL_S:
        if one.count("generation") != workers:
            raise NotSo(f"{one.count('generation')} workers; wanted: {workers}, for {why}")
        time.sleep(2.0)
    say(f"    {workers} workers held for {STILL_S} s: {why}")


def scale(broker: Broker) -> None:
    """`kubectl scale`; a rate for each number of workers."""
    with job(broker, "scale", run={"learning": {"steps": 150}}) as (one, watch):
        at = watch.step(3).step
        for workers in (1, 2, 3, 1):
            selector = f"app.kubernetes.io/instance={one.name},app.kubernetes.io/component=generation"
            kubectl("-n", one.namespace, "scale", "deployment", "-l", selector, f"--replicas={workers}")
            until(f"{workers} workers", 300, lambda n=workers: ready_of(one, "generation") == n, one.describe)
            begun, before = time.monotonic(), watch.step(at).step
            after = watch.step(before + 8).step
            rate = (after - before) * 256 / (time.monotonic() - begun)
            say(f"    {workers} workers: {rate:.0f} rollouts a second")
            at = after


def ready_of(one: Release, service: str) -> int:
    pods = [pod for pod in one.pods(service) if "deletionTimestamp" not in pod["metadata"]]
    return len(pods) if all(map(is_ready, pods)) else -1
