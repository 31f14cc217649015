"""Writes what of the chart follows from the code: `python helm/write_chart.py`; a test holds the files to it.

values.schema.json   from values.yaml, the bounds below, and the run file's own schema; no unknown key is accepted
files/topics.json    every topic with its partitions and settings, for Strimzi
files/sluice-sandbox.json  the nodes' system-call filter for verification that runs programs
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import yaml

from pipeline import config
from pipeline.commands import topics
from services.verification.sandbox import seccomp

CHART = Path(__file__).parent / "sluice"
NAME = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"}
KEY = {"type": "string", "pattern": "^[-._A-Za-z0-9]+$"}
KEY_OR_EMPTY = {"type": "string", "pattern": "^[-._A-Za-z0-9]*$"}
COUNT = {"type": "integer", "minimum": 0}
POSITIVE = {"type": "integer", "minimum": 1}
QUANTITY = {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
ANY = {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECTS = {"type": "array", "items": {"type": "object"}}
NAMES = {"type": "array", "items": {"type": "string", "minLength": 1}}
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["limits"],
    "properties": {
        kind: {"type": "object", "additionalProperties": {"anyOf": [QUANTITY, POSITIVE, {"type": "number"}]}}
        for kind in ("requests", "limits")
    },
}
BOUNDS: dict[str, Any] = {
    "image.registry": {"type": "string", "pattern": "^([a-z0-9][a-z0-9.:/_-]*)?$"},
    "image.tag": {"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$", "not": {"const": "latest"}},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": NAMES,
    "kafka.bootstrapServers": {"type": "string", "pattern": "^([^\\s:,/]+:[0-9]{1,5}(,[^\\s:,/]+:[0-9]{1,5})*)?$"},
    "kafka.sasl.mechanism": {"enum": ["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]},
    "kafka.sasl.usernameKey": KEY,
    "kafka.sasl.passwordKey": KEY,
    "kafka.tls.caKey": KEY,
    "kafka.tls.certKey": KEY_OR_EMPTY,
    "kafka.tls.keyKey": KEY_OR_EMPTY,
    "topics.manage": {"enum": ["job", "strimzi", "none"]},
    "topics.strimzi.cluster": NAME,
    "topics.strimzi.namespace": NAME,
    "serviceAccount.name": NAME,
    "serviceAccount.annotations": TEXTS,
    "networkPolicy.metricsFrom": OBJECTS,
    "networkPolicy.kafkaTo": OBJECTS,
    "networkPolicy.callersFrom": OBJECTS,
    "networkPolicy.rayPeers": OBJECTS,
    "networkPolicy.verificationEndpoints": OBJECTS,
    "networkPolicy.storeTo": OBJECTS,
    "monitoring.podMonitor.interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
    "tracing.endpoint": {"type": "string", "pattern": "^(https?://[^\\s:/]+:[0-9]{1,5})?$"},
    "tracing.share": {"type": "number", "minimum": 0, "maximum": 1},
    "logLevel": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
    "doors.callsPerSecond": {"type": "number", "minimum": 0},
    "doors.maxMessageBytes": {"type": "integer", "minimum": 1024},
    "doors.maxCalls": POSITIVE,
    "security.runAsUser": POSITIVE,
    "security.fsGroup": POSITIVE,
    "verification.code.namespace": NAME,
    "verification.code.seccompProfile": {"type": "string", "pattern": "^[A-Za-z0-9._/-]+[.]json$"},
}
BY_NAME: dict[str, Any] = {
    "resources": RESOURCES,
    "labels": TEXTS,
    "annotations": TEXTS,
    "podLabels": TEXTS,
    "podAnnotations": TEXTS,
    "nodeSelector": TEXTS,
    "affinity": ANY,
    "tolerations": OBJECTS,
    "extraEnv": OBJECTS,
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "metrics": OBJECTS,
    "read": NAMES,
    "call": NAMES,
    "admin": NAMES,
    "existingSecret": NAME,
    "existingClaim": NAME,
    "tokenSecret": NAME,
    "priorityClassName": NAME,
    "runtimeClassName": NAME,
    "storageClass": NAME,
    "size": QUANTITY,
    "sizeLimit": QUANTITY,
    "kind": {"enum": ["keda", "hpa"]},
    "min": POSITIVE,
    "max": POSITIVE,
    "lagPerReplica": POSITIVE,
    "startupSeconds": {"type": "integer", "minimum": 5},
    "terminationGracePeriodSeconds": {"type": "integer", "minimum": 15},
    "maxUnavailable": {"anyOf": [POSITIVE, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]},
}
IN_A_CLUSTER = {"run": 48, "prefix": 32}
"""Fields of the run file that become labels and names there, which end in a letter or digit; with their length."""
ONE = {"learning": "only one learner may write", "difficulty": "only one may hold the posterior"}


def of(value: Any, path: str) -> dict[str, Any]:
    """The schema of a default value: its kind, or the bound that stands above."""
    bound = BOUNDS.get(path) or BY_NAME.get(path.rpartition(".")[2])
    if bound:
        return bound
    if isinstance(value, dict):
        inner = {name: of(one, f"{path}.{name}".lstrip(".")) for name, one in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": inner}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return COUNT
    return {"type": "string"}


def run_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The run file's schema, without `log`, which the chart sets; and its definitions."""
    schema = json.loads(json.dumps(config.schema()).replace('"change"', '"x-change"'))
    definitions = schema.pop("$defs")
    schema["properties"].pop("log")
    for field, length in IN_A_CLUSTER.items():
        schema["properties"][field]["pattern"] = f"^[a-z0-9]([a-z0-9-]{{0,{length - 2}}}[a-z0-9])?$"
    return schema, definitions


def values_schema() -> dict[str, Any]:
    """values.schema.json."""
    schema = of(yaml.safe_load((CHART / "values.yaml").read_text()), "")
    schema["properties"]["run"], definitions = run_schema()
    for service, why in ONE.items():
        inner = schema["properties"][service]["properties"]
        inner["replicas"] = {"enum": [0, 1], "description": why}
        inner["autoscaling"]["properties"] = {
            "enabled": {"const": False, "description": why},
            "min": {"const": 1},
            "max": {"const": 1},
        }
    schema["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Sluice", "$defs": definitions, **schema}


def sandbox_profile() -> dict[str, Any]:
    """What a pod may not call in which bubblewrap builds jails: what a jail may not, but for the building itself."""
    build = {"unshare", "clone", "clone3", "mount", "umount2", "pivot_root", "sethostname"}
    process = {"socket", "ioctl", "prlimit64", "setpriority", "sched_setaffinity", "get_mempolicy"}
    refused = sorted(set(seccomp.numbers("x86_64")) - build - process)
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": seccomp.EPERM}],
    }


def files() -> dict[Path, str]:
    """Every file that this makes, with its text."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        topics._json()
    return {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
        CHART / "files/topics.json": said.getvalue(),
        CHART / "files/sluice-sandbox.json": json.dumps(sandbox_profile(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text)
