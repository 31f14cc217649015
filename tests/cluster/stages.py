"""The stages: each proves one thing about a real cluster, with a release of its own, in any order.

images      the four images build from their Dockerfiles; their sizes
install     the laptop example installs, every pod is Ready, `helm test` passes, `helm uninstall` leaves the claim
learns      the tiny job trains to its target with its services in pods
deletions   a pod of each service is deleted, with grace and with none; the job goes on
broker      the broker is restarted in the middle of the job
upgrade     a changed run file, a changed image tag, a rollback: the run goes on
keda        KEDA takes generation from 1 to 3 workers and back, and no other service moves
stale       KEDA adds and removes no worker while a real Prometheus says that many rollouts are dropped as stale
scale       the same by hand; throughput by number of workers
code        programs are refused with the reason; in a namespace of their own they run in jails, and nothing else does
broken      an install that cannot work says why
ray         the learner's second rank is in a pod that KubeRay makes; that pod and the learner's are deleted
fenced      of two learners of one run one goes on, and the other says that it was replaced
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.ranks import ray
from tests.cluster.release import SERVICES, Release, Watch, account, is_ready, job, prepare, release
from tests.cluster.scaling import keda, scale, stale
from tests.cluster.tools import ROOT, NotSo, get, helm, kubectl, run, say, until
from tests.cluster.watching import watched
from tests.kafka.secure import Broker

LONG = 280
"""Optimiser steps of a job that is disturbed many times."""
TARGET = 0.8
"""Mean accuracy of the last steps' rollouts that the tiny job must reach."""


def images(broker: Broker) -> None:
    """$IMAGES builds one and puts it where the cluster finds it; $RETAG gives it a second name there."""
    command = os.environ.get("IMAGES", "docker build -q -t {name} -f {file} {context}")
    for service in SERVICES:
        begun = time.monotonic()
        name = f"{os.environ.get('REGISTRY', 'localhost')}/sluice-{service}:{os.environ.get('TAG', 'dev')}"
        filled = command.format(name=name, file=f"services/{service}/Dockerfile", context=".")
        run("bash", "-c", filled, seconds=3000)
        say(f"    {service}: built in {time.monotonic() - begun:.0f} s")
        other = f"{name.rpartition(':')[0]}:{os.environ['TAG_2']}"
        again = os.environ.get("RETAG", "docker tag {name} {other}")
        run("bash", "-c", again.format(name=name, other=other), seconds=600)
    told = until("the sizes of the four images", 360, sizes)  # a node tells of its images every five minutes
    for name, size in told.items():
        say(f"    {name}: {size / 1e6:.0f} MB")


def sizes() -> dict[str, int]:
    """Bytes of each image by its name, once some node has told of all four."""
    found = {
        name: image["sizeBytes"]
        for node in get("nodes", "default")
        for image in node["status"].get("images") or []
        for name in image.get("names") or []  # null where an image has lost its names
        if "/sluice-" in name and name.endswith(f":{os.environ.get('TAG', 'dev')}")
    }
    return found if len(found) >= len(SERVICES) else {}


def install(broker: Broker) -> None:
    """As a new user does it."""
    with release(broker, "install") as one:
        one.install(wait=True)
        helm("test", one.name, "-n", one.namespace, "--timeout", "3m")
        say("    helm test passes")
        Watch.of(one).step(1)
        one.uninstall()
        left = kubectl("-n", one.namespace, "get", LEFT, "-l", f"app.kubernetes.io/instance={one.name}", "-o", "name")
        if [line.partition("/")[0] for line in left.split()] != ["persistentvolumeclaim"]:
            raise NotSo(f"helm uninstall leaves {left.split()}; wanted: the volume claim and nothing else")
        say("    helm uninstall leaves the volume claim and nothing else")


LEFT = "all,cm,secret,sa,pvc,pdb,networkpolicy,ingress,job,role,rolebinding"


def learns(broker: Broker) -> None:
    """To its target, and none of the chart's alerts fires in a real Prometheus over its pods."""
    with job(broker, "learns", run={"learning": {"steps": 300}}) as (one, watch), watched(one) as (prometheus, _):
        watch.step(250, 1800)
        if firing := prometheus.firing():
            raise NotSo(f"{', '.join(firing)} fires on a job that learns")
        workers = prometheus.value("count(count by (service, instance) (sluice_stage_progress_timestamp_seconds))")
        if workers != len(SERVICES):
            raise NotSo(f"{workers} workers tell a Prometheus of their progress; wanted: {len(SERVICES)}")
        say(f"    no alert has fired by step 250, and {workers:.0f} workers tell a Prometheus of their progress")
        steps = watch.finished(1800).steps
    last = [step.metrics["accuracy_mean"] for step in steps[-20:]]
    say(f"    accuracy of the last 20 of {len(steps)} steps: {sum(last) / len(last):.3f}")
    if sum(last) / len(last) < TARGET:
        raise NotSo(f"accuracy is {sum(last) / len(last):.3f}; wanted: {TARGET}")


def deletions(broker: Broker) -> None:
    """Each service's pod, with grace and with none, the learner's among them; the job is at work each time."""
    with job(broker, "deletions", run={"learning": {"steps": LONG}}) as (one, watch):
        at = watch.step(2).step
        for grace in ([], ["--force", "--grace-period=0"]):
            for service in SERVICES:
                begun = time.monotonic()
                pod = one.pods(service)[0]["metadata"]["name"]
                kubectl("-n", one.namespace, "delete", "pod", pod, *grace, seconds=700)
                one.ready(400)
                at = at_work(watch, at)
                how = "without" if grace else "with"
                say(f"    {service} deleted {how} grace: back and at step {at} in {time.monotonic() - begun:.0f} s")
                account(one, finished=False)


def broker_restarts(broker: Broker) -> None:
    """The broker is away; a pod that begins meanwhile says so, is not Ready, and serves once the broker is back."""
    with job(broker, "broker") as (one, watch):
        at = watch.step(3).step
        broker.stop()
        begun = time.monotonic()
        try:
            pod = one.pods("verification")[0]["metadata"]["name"]
            kubectl("-n", one.namespace, "delete", "pod", pod, "--force", "--grace-period=0")
            waits = "does not answer"
            said = until("a pod that waits", 120, lambda: says(one, "verification", waits), one.describe)
            until("no pod Ready without its broker", 180, lambda: not any(map(is_ready, one.pods())), one.describe)
            say(f"    no pod is Ready {time.monotonic() - begun:.0f} s after the broker has gone")
            say(f"    a pod that begins without a broker: {said}")
        finally:
            broker.start()
        begun = time.monotonic()
        one.ready(400)
        Watch.of(one).step(at + 3)
        say(f"    every pod Ready and 3 steps done {time.monotonic() - begun:.0f} s after the broker is back")
        account(one, finished=False)


def upgrade(broker: Broker) -> None:
    """The run goes on over each change, at work each time."""
    with job(broker, "upgrade", run={"learning": {"steps": LONG}}) as (one, watch):
        at = watch.step(3).step
        one.values["run"]["learning"]["lr"] = 2e-4
        changes: list[tuple[str, Callable[[], None]]] = [("changed run file", one.install)]
        other = os.environ["TAG_2"]
        changes.append((f"image tag {other}", lambda: retag(one, other)))
        changes.append(("rollback", lambda: rollback(one)))
        for what, act in changes:
            begun = time.monotonic()
            act()
            at = at_work(watch, at)
            say(f"    {what}: step {at} after {time.monotonic() - begun:.0f} s")
            account(one, finished=False)


def at_work(watch: Watch, at: int) -> int:
    """The step that the job has reached, two later at least. Raises `NotSo` when none is left to be disturbed."""
    at = watch.step(at + 2).step
    if at >= LONG:
        raise NotSo(f"the job ended after {at} steps, before the last disturbance; wanted: a longer one")
    return at


def retag(one: Release, tag: str) -> None:
    one.values["image"] = {"tag": tag}
    one.install()


def rollback(one: Release) -> None:
    helm("rollback", one.name, "1", "-n", one.namespace, "--timeout", "5m")
    one.ready()


def code(broker: Broker) -> None:
    """Off, programs are refused and the job goes on; on, verification has the least that its jails need."""
    with job(broker, "plain") as (one, _):
        has_verdict(one, RIGHT, "INFRA_ERROR", "sandbox")
    profile = Path(os.environ.get("SECCOMP", "/var/lib/kubelet/seccomp"), "sluice-sandbox.json")
    profile.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "helm/sluice/files/sluice-sandbox.json", profile)
    prepare(broker, PROGRAMS, LEVEL)
    with job(broker, "programs", verification={"code": {"enabled": True, "namespace": PROGRAMS}}) as (one, _):
        for program, wanted in ((RIGHT, "CORRECT"), (WRONG, "WRONG"), (SLEEPS, "idle"), (READS, "CORRECT")):
            has_verdict(one, program, wanted)


PROGRAMS, LEVEL = "sluice-programs", "baseline"
RIGHT, WRONG = "print(2 * int(input()))", "print(3 * int(input()))"
SLEEPS = "import time; time.sleep(1000)"
READS = "import os; print(4 if not os.path.exists('/etc/sluice-kafka-sasl') else os.listdir('/proc'))"


def has_verdict(one: Release, program: str, *wanted: str) -> None:
    """The pod's own `sluice verify`, of a program that shall double a number, says so."""
    pod = one.pods("verification")[0]["metadata"]
    spec = json.dumps({"tests": [{"input": "2\n", "output": "4\n"}]})
    command = ["sluice", "verify", "code_python", "--spec", spec, "--answer", program]
    said = kubectl("-n", pod["namespace"], "exec", pod["name"], "--", *command, ok=False)
    if not all(word in said for word in wanted):
        raise NotSo(f"{program!r} was {said!r}; wanted: {' '.join(wanted)}")
    say(f"    {program!r}: {' '.join(said.split())}")


def broken(broker: Broker) -> None:
    """Each says why in its log, is not Ready, and does not restart in silence."""
    wrong = {"kafka": {"sasl": {"existingSecret": "kafka-wrong"}}}
    poor = {"kafka": {"sasl": {"existingSecret": "kafka-poor"}}}
    away = {"kafka": {"bootstrapServers": f"{broker.address}:19999"}, "topics": {"waitSeconds": 20}}
    for what, values, words in (
        ("Kafka unreachable", away, "does not answer"),
        ("wrong password", wrong, "refuses this user"),
        ("missing rights", poor, "refuses this user"),
    ):
        begun = time.monotonic()
        with release(broker, "broken", **values) as one:
            one.install(wait=False)
            say(f"    {what} ({time.monotonic() - begun:.0f} s): {refuses(one, 'start', words)}")
            if begun_pods := [pod["metadata"]["name"] for service in SERVICES for pod in one.pods(service)]:
                raise NotSo(f"{begun_pods} were begun on a run that could not start")
    model = {"run": {"model": {"source": "no/such-model", "warm_start": None}}}
    with release(broker, "broken", **model) as one:
        one.install(wait=False)
        say(f"    missing model: {refuses(one, 'learning', 'no/such-model')}")
    little = {"limits": {"memory": "150Mi"}, "requests": {"memory": "100Mi"}}
    with release(broker, "broken", learning={"resources": little}) as one:
        one.install(wait=False)
        until("OOMKilled", 400, lambda: "OOMKilled" in {end["reason"] for end in ends(one, "learning")}, one.describe)
        if any(map(is_ready, one.pods("learning"))):
            raise NotSo("a learner without memory is Ready")
        say("    not enough memory: OOMKilled is in the pod's state, and it is not Ready")
        one.values["learning"].pop("resources")
        one.install()
        say("    with memory, by an upgrade: every pod is Ready")


def ends(one: Release, service: str) -> list[dict[str, Any]]:
    """How the containers of a service's pods ended, now and the time before: reason, exit code, last words."""
    found = []
    for pod in one.pods(service):
        states = pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
        found += [state[when].get("terminated") for state in states for when in ("state", "lastState")]
    return [end for end in found if end]


def refuses(one: Release, service: str, words: str) -> str:
    """The sentence that a pod which cannot work ended with, as `kubectl describe pod` shows it; never was it Ready."""

    def look() -> str:
        pods = [pod for pod in one.pods(service) if "deletionTimestamp" not in pod["metadata"]]
        if service in SERVICES and any(map(is_ready, pods)):  # a Job's pod has no probe: it is Ready while it runs
            raise NotSo(f"a pod of {service} is Ready; wanted: one that says {words!r}")
        failed = [end for end in ends(one, service) if end["exitCode"]]
        silent = [end for end in failed if end["reason"] == "Error" and not end.get("message", "").strip()]
        if silent:
            raise NotSo(f"a container of {service} ended without a word: {silent[0]}")
        said = [line for end in failed for line in end.get("message", "").splitlines() if words in line]
        return said[-1] if said else ""

    return until(f"{service} that says {words!r}", 400, look, one.describe)


def fenced(broker: Broker) -> None:
    """A release with the same run beside another: who writes last is the learner, the other says that it is fenced."""
    long = {"learning": {"steps": 150}}
    with job(broker, "first", run=long) as (first, watch):
        at = watch.step(3).step
        with release(broker, "second", run=long | {"run": first.name}, generation={"replicas": 0}) as second:
            second.install(wait=False)
            said = until("a fenced learner", 400, lambda: says(first, "learning", "holds this role"), first.describe)
            say(f"    a second learner: {said}")
        watch.step(at + 2)


def says(one: Release, service: str, words: str) -> str:
    """The line of a service's log that holds these words, of its container now or of the one before."""
    told = one.log(service, ok=False) + one.log(service, "--previous", ok=False)
    lines = [line for line in told.splitlines() if words in line and "Error from" not in line]
    return lines[-1] if lines else ""


STAGES: dict[str, Callable[[Broker], None]] = {
    "images": images,
    "install": install,
    "learns": learns,
    "deletions": deletions,
    "broker": broker_restarts,
    "upgrade": upgrade,
    "keda": keda,
    "stale": stale,
    "scale": scale,
    "code": code,
    "broken": broken,
    "ray": ray,
    "fenced": fenced,
}


def command_line(text: str) -> list[str]:
    """The stages that a STAGE= names; all where it names none."""
    return shlex.split(text.replace(",", " ")) or list(STAGES)
