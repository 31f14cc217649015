"""The stage in which the learner's ranks are on several pods: KubeRay makes those above 0."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster.release import Release, account, is_ready, job
from tests.cluster.tools import NotSo, kubectl, say, until
from tests.kafka.secure import Broker

HEAD = {"limits": {"memory": "3Gi"}, "requests": {"cpu": "50m", "memory": "256Mi"}}
WORKER = {"limits": {"memory": "4Gi"}, "requests": {"cpu": "50m", "memory": "256Mi"}}


def ray(broker: Broker) -> None:
    """A rank in the learner's pod and one on a RayCluster: its pod is deleted, then the learner's; the job goes on."""
    values: dict[str, Any] = {
        "run": {"learning": {"ranks": 2, "steps": 200}},
        "learning": {"ray": {"enabled": True, "head": {"resources": HEAD}, "worker": {"resources": WORKER}}},
    }
    with job(broker, "ray", **values) as (one, watch):
        at = watch.step(3).step
        holds_nothing(one)
        for what in ("ray", "learning"):
            begun = time.monotonic()
            pod = worker(one) if what == "ray" else one.pods("learning")[0]["metadata"]["name"]
            rewinds = watch.watcher.look().rewinds
            kubectl("-n", one.namespace, "delete", "pod", pod, "--force", "--grace-period=0", seconds=300)
            watch.until("a learner that begins again", lambda view, n=rewinds: view.rewinds > n, 400)
            one.ready(400)
            at = watch.step(at + 3).step
            whose = "the second rank's" if what == "ray" else "the learner's"
            say(f"    {whose} pod deleted without grace: at step {at} after {time.monotonic() - begun:.0f} s")
            account(one, finished=False)


def worker(one: Release) -> str:
    """The pod that holds the second rank."""
    found = until("the second rank's pod", 300, lambda: workers(one), one.describe)
    return found[0]["metadata"]["name"]


def workers(one: Release) -> list[dict[str, Any]]:
    pods = [pod for pod in one.pods("ray") if pod["metadata"]["labels"]["ray.io/node-type"] == "worker"]
    return [pod for pod in pods if is_ready(pod)]


def holds_nothing(one: Release) -> None:
    """What a pod of Ray may know: no secret is mounted, and no password or run file is in its environment."""
    for pod in one.pods("ray"):
        if secrets := [volume for volume in pod["spec"]["volumes"] if "secret" in volume or "configMap" in volume]:
            raise NotSo(f"a pod of Ray mounts {secrets}; wanted: nothing of the run")
        names = {each["name"] for container in pod["spec"]["containers"] for each in container["env"]}
        if known := sorted(name for name in names if name.startswith("SLUICE_")):
            raise NotSo(f"a pod of Ray is told {known}; wanted: nothing of the run")
    say(f"    {len(one.pods('ray'))} pods of Ray, without a secret or a run file")
