"""A release of the chart for one job: namespace, secrets, volume, values; and what the job has done so far."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.log import open_log
from pipeline.topics import Names
from pipeline.view import View, Watcher
from sluice.v1 import control_pb2
from tests.cluster.tools import ROOT, NotSo, apply, get, helm, kubectl, say, sluice, until
from tests.kafka.secure import PASSWORDS, Broker

LAPTOP = ROOT / "helm/sluice/examples/laptop.yaml"
SERVICES = ("generation", "verification", "difficulty", "learning")
READY_S = float(os.environ.get("READY_S", "180"))
SHORT = 40
"""Optimiser steps of a job that is disturbed."""


@dataclass
class Release:
    """One job in the cluster."""

    name: str
    broker: Broker
    namespace: str = "sluice-test"
    values: dict[str, Any] = field(default_factory=dict)
    user: str = "sluice"

    @property
    def path(self) -> str:
        """Where the audit finds it."""
        return f"kafka://{self.broker.here}/{self.name}"

    def all_values(self) -> dict[str, Any]:
        """What Helm is given over the laptop example."""
        own = {
            "kafka": {
                "bootstrapServers": self.broker.servers,
                "tls": {"enabled": True, "existingSecret": "kafka-tls"},
                "sasl": {"mechanism": "SCRAM-SHA-512", "existingSecret": f"kafka-{self.user}"},
            },
            "image": {"registry": os.environ.get("REGISTRY", "localhost"), "tag": os.environ.get("TAG", "dev")},
            "run": {"run": self.name, "learning": {"steps": SHORT}},
            "learning": {"storage": {"storageClass": "sluice-test"}},
        }
        return merged(own, self.values)

    def install(self, wait: bool = True) -> None:
        """`helm upgrade --install` with the laptop example and these values."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(self.all_values(), file)
            file.flush()
            command = ["upgrade", "--install", self.name, "helm/sluice", "-n", self.namespace, "-f", str(LAPTOP)]
            helm(*command, "-f", file.name, "--timeout", "5m" if wait else "90s", ok=wait)
        if wait:
            self.ready()

    def ready(self, seconds: float = READY_S) -> float:
        """Wait until every pod is Ready; returns how long it took, seconds."""
        begun = time.monotonic()
        until("every pod Ready", seconds, self._all_ready, self.describe)
        return time.monotonic() - begun

    def pods(self, service: str = "") -> list[dict[str, Any]]:
        """Its pods, or a service's."""
        selector = f"app.kubernetes.io/instance={self.name}"
        if service:
            selector += f",app.kubernetes.io/component={service}"
        return get("pods", self.namespace, "-A", "-l", selector)

    def count(self, service: str) -> int:
        """Pods of a service that are not on their way out."""
        return sum("deletionTimestamp" not in pod["metadata"] for pod in self.pods(service))

    def log(self, service: str, *more: str, ok: bool = True) -> str:
        """The last words of a service's containers."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={service}"
        home = next((pod["metadata"]["namespace"] for pod in self.pods(service)), self.namespace)
        return kubectl("-n", home, "logs", "-l", selector, "--all-containers", "--tail=30", *more, ok=ok)

    def uninstall(self) -> None:
        """`helm uninstall`, and wait until its pods are gone; those of a start that failed stay for their log."""
        helm("uninstall", self.name, "-n", self.namespace, "--wait", ok=False)
        until("the pods' end", 240, self._none_lives, lambda: kubectl("-n", self.namespace, "get", "pods"))

    def describe(self) -> str:
        """What a person would look at."""
        told = kubectl("-n", self.namespace, "get", "pods", ok=False)
        told += kubectl("-n", self.namespace, "get", "events", "--sort-by=.lastTimestamp", ok=False)[-1500:]
        return told + "".join(f"\n{service}: {self.log(service, ok=False)[-1500:]}" for service in SERVICES)

    def _none_lives(self) -> bool:
        return all(pod["status"]["phase"] == "Failed" for pod in self.pods())

    def _all_ready(self) -> bool:
        pods = [pod for pod in self.pods() if pod["metadata"]["labels"].get("app.kubernetes.io/component") in SERVICES]
        if any("deletionTimestamp" in pod["metadata"] for pod in pods):
            return False
        return len({service_of(pod) for pod in pods}) == len(SERVICES) and all(map(is_ready, pods))


@dataclass
class Watch:
    """What the job has done so far, read from its log on this machine."""

    release: Release
    watcher: Watcher

    @classmethod
    def of(cls, release: Release) -> Watch:
        """A view of this job."""
        log = open_log(f"kafka://{release.broker.here}")
        return cls(release, Watcher(log, Names("sluice", release.name)))

    def step(self, number: int, seconds: float = 600) -> View:
        """Wait until this step is done."""
        return self.until(f"step {number}", lambda view: view.step >= number, seconds)

    def finished(self, seconds: float = 900) -> View:
        """Wait until every requested rollout has its outcome."""
        return self.until("the end", lambda view: view.control.phase == control_pb2.PHASE_FINISHED, seconds)

    def until(self, what: str, so: Any, seconds: float) -> View:
        """Wait until this is so."""
        return until(what, seconds, lambda: self._now(so), lambda: f"step {self.watcher.view.step}")

    def _now(self, so: Any) -> View | None:
        view = self.watcher.look()
        return view if so(view) else None


def service_of(pod: dict[str, Any]) -> str:
    return pod["metadata"]["labels"].get("app.kubernetes.io/component", "")


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def account(release: Release, finished: bool = True) -> dict[str, Any]:
    """`sluice audit` against the same Kafka: lost 0, trained twice 0."""
    found = json.loads(sluice("audit", release.path, "--json", ok=False))
    if not found["clean"] or found["lost"] or found["trained_twice"] or (finished and not found["finished"]):
        raise NotSo(f"the audit of {release.name} is not clean: {json.dumps(found)[:1500]}")
    say(
        f"    audit: requested {found['requested']}, trained {found['trained']}, in flight {found['in_flight']}, "
        f"lost {found['lost']}, trained twice {found['trained_twice']}, epochs {found['epochs']}"
    )
    return found


def secret(name: str, namespace: str, **data: str) -> dict[str, Any]:
    coded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": coded}


def prepare(broker: Broker, namespace: str = "sluice-test", level: str = "restricted") -> None:
    """The namespace under this Pod Security Standard, and the secrets."""
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    users = [secret(f"kafka-{user}", namespace, username=user, password=word) for user, word in PASSWORDS.items()]
    apply(
        secret("kafka-tls", namespace, ca_crt=(broker.folder / "ca.crt").read_text()),
        secret("kafka-wrong", namespace, username="sluice", password="wrong"),
        *users,
    )


@contextlib.contextmanager
def release(broker: Broker, name: str, **values: Any) -> Iterator[Release]:
    """A release with a volume of its own made beforehand; taken away at the end, the claim too."""
    one = Release(f"{name}-{int(time.time()) % 100000}", broker, values=values)
    with volume(one):
        try:
            yield one
        finally:
            mine = f"app.kubernetes.io/instance={one.name}"
            kubectl("-n", one.namespace, "delete", "job", "-l", mine, ok=False)  # a start that fails tries again
            one.uninstall()
            kubectl("-n", one.namespace, "delete", "cm", "-l", mine, ok=False)


@contextlib.contextmanager
def volume(one: Release) -> Iterator[None]:
    """A volume on the node, in $VOLUMES there, for the learner's claim and no other's."""
    folder = Path(os.environ.get("VOLUMES", tempfile.gettempdir())) / f"sluice-volume-{one.name}"
    folder.mkdir(parents=True, exist_ok=True)
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
    spec = {
        "capacity": {"storage": "10Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "sluice-test",
        "claimRef": {"namespace": one.namespace, "name": f"data-{one.name}-sluice-learning-0"},
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": str(folder)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
    }
    apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": one.name}, "spec": spec})
    try:
        yield
    finally:
        selector = f"app.kubernetes.io/instance={one.name}"
        kubectl("-n", one.namespace, "delete", "pvc", "-l", selector, "--wait=false", ok=False)
        kubectl("delete", "pv", one.name, "--wait=false", ok=False)


@contextlib.contextmanager
def job(broker: Broker, name: str, **values: Any) -> Iterator[tuple[Release, Watch]]:
    """A release whose job has begun; whatever happens to it meanwhile, it has to finish and its account to be clean."""
    with release(broker, name, **values) as one:
        one.install()
        yield one, Watch.of(one)
        Watch.of(one).finished()
        account(one)
