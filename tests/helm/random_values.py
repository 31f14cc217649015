"""Random values of the chart that its schema accepts."""

from __future__ import annotations

import random
from typing import Any

from tests.helm.chart import SERVICES


def scaling(draw: random.Random) -> dict[str, Any]:
    low = draw.randint(1, 4)
    kind = draw.choice(["keda", "hpa"])
    return {"enabled": draw.random() < 0.6, "kind": kind, "min": low, "max": low + draw.randint(0, 9)}


def random_service(draw: random.Random, service: str) -> dict[str, Any]:
    """One service's values."""
    values: dict[str, Any] = {
        "replicas": draw.choice([0, 1]) if service in ("difficulty", "learning") else draw.randint(0, 5),
        "shm": {"enabled": draw.random() < 0.5},
        "pdb": {"enabled": draw.random() < 0.8, "maxUnavailable": draw.choice([1, "25%"])},
        "topologySpread": draw.random() < 0.5,
        "priorityClassName": draw.choice(["", "high"]),
        "runtimeClassName": draw.choice(["", "gvisor"]),
        "nodeSelector": {"pool": "gpu"} if draw.random() < 0.5 else {},
        "tolerations": [{"key": "spot", "operator": "Exists"}] if draw.random() < 0.5 else [],
        "podLabels": {"team": "rl"} if draw.random() < 0.5 else {},
        "podAnnotations": {"note": "x"} if draw.random() < 0.5 else {},
        "extraEnv": [{"name": "A", "value": "b"}] if draw.random() < 0.5 else [],
        "preStopSeconds": draw.choice([5, 50]),
    }
    if service in ("generation", "verification"):
        values["autoscaling"] = scaling(draw)
    return values


def random_ray(draw: random.Random) -> dict[str, Any]:
    """The learner's values, with ranks on Ray."""
    gpus = draw.choice([0, 1, 4])
    resources = {"limits": {"memory": "8Gi"} | ({"nvidia.com/gpu": 1} if gpus else {})}
    worker = {"resources": {"limits": {"memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})}}
    for group in (head := {}, worker):
        group["nodeSelector"] = {"pool": "gpu"} if draw.random() < 0.5 else {}
        group["priorityClassName"] = draw.choice(["", "high"])
        group["podLabels"] = {"team": "rl"} if draw.random() < 0.5 else {}
        group["podAnnotations"] = {"note": "x"} if draw.random() < 0.5 else {}
    worker["extraEnv"] = [{"name": "A", "value": "b"}] if draw.random() < 0.5 else []
    ray = {"enabled": True, "tokenSecret": draw.choice(["", "ray"]), "head": head, "worker": worker}
    return {"resources": resources, "ray": ray}


def random_sasl(draw: random.Random) -> dict[str, Any]:
    """Who the pods are to Kafka."""
    mechanism = draw.choice(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    return {"mechanism": mechanism, "existingSecret": "sluice-kafka", "username": draw.choice(["", "1e5"])}


def random_values(seed: int) -> dict[str, Any]:
    """A value set that the schema accepts."""
    draw = random.Random(seed)
    coin = lambda share=0.5: draw.random() < share  # noqa: E731
    values: dict[str, Any] = {
        "image": {"registry": draw.choice(["", "registry.example.com/a/b"]), "tag": draw.choice(["", "1.2.3"])},
        "kafka": {"bootstrapServers": draw.choice(["kafka:9092", "a:9092,b:9093", "10.0.0.1:19092"])},
        "run": {
            "run": draw.choice(["demo", "a-long-name-of-a-run-that-is-still-allowed", "2024", "on", "1e5"]),
            "max_lag": draw.randint(0, 8),
        },
        "topics": {
            "manage": draw.choice(["job", "none", "strimzi"]),
            "strimzi": {"cluster": "main"},
            "replicas": draw.choice([0, 3]),
        },
        "networkPolicy": {
            "enabled": coin(0.8),
            "modelHub": coin(),
            "metricsFrom": draw.choice([[], [{"podSelector": {}}]]),
        },
        "serviceAccount": {"create": coin(), "annotations": {"a": "b"} if coin() else {}},
        "model": {"cache": {"existingClaim": draw.choice(["", "models"])}, "tokenSecret": draw.choice(["", "hub"])},
        "monitoring": {
            "podMonitor": {"enabled": coin()},
            "rules": {"enabled": coin()},
            "dashboards": {"enabled": coin(0.3)},
            "prometheus": draw.choice(["", "http://prometheus:9090"]),
        },
        "tracing": {
            "endpoint": draw.choice(["", "http://collector:4317"]),
            "share": draw.choice([0, 0.25, 1, 0.00001]),
        },
        "doors": {"callsPerSecond": draw.choice([0, 1000000])},
        "security": {"runAsUser": draw.choice([10001, 1000660000])},  # the second as OpenShift gives it
    }
    if coin():
        values["kafka"]["tls"] = {"enabled": True, "existingSecret": draw.choice(["", "ca"])}
        if values["kafka"]["tls"]["existingSecret"] and coin():
            values["kafka"]["tls"] |= {"certKey": "tls.crt", "keyKey": "tls.key"}
    if coin():
        values["kafka"]["sasl"] = random_sasl(draw)
    if coin():
        values["doors"]["tls"] = {"existingSecret": "doors", "serverName": "sluice", "allow": {"admin": ["ops", "sre"]}}
    if coin():
        values["doors"]["tokens"] = {"existingSecret": "tokens"}
    for service in SERVICES:
        values[service] = random_service(draw, service)
    values["verification"]["code"] = {"enabled": coin(0.3), "namespace": "programs"}
    values["learning"]["storage"] = draw.choice(
        [{"existingClaim": "mine"}, {"size": "5Gi", "storageClass": "fast"}, {}]
    )
    if coin(0.4):
        values["run"]["learning"] = {"ranks": draw.randint(2, 9), "threads": draw.randint(1, 4)}
        values["learning"] |= random_ray(draw)
    return values
