"""Two values that do not go together: refused with one sentence that names them and what is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import BROKER, attempt


def kafka(**more: Any) -> dict[str, Any]:
    return {"kafka": BROKER["kafka"] | more}


def engine(parts: int, gpus: int) -> dict[str, Any]:
    limits = {"memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    run = {"generation": {"engine": "vllm", "tensor_parallel": parts}}
    return {"run": run, "generation": {"resources": {"limits": limits}}}


REFUSED = {
    "a password without its secret": (
        kafka(sasl={"mechanism": "PLAIN"}),
        "kafka.sasl.existingSecret is empty with kafka.sasl.mechanism PLAIN; accepted: the name of a secret that holds "
        "user name and password",
    ),
    "a certificate without its key": (
        kafka(tls={"enabled": True, "existingSecret": "s", "certKey": "tls.crt"}),
        'kafka.tls.certKey is "tls.crt" and kafka.tls.keyKey is ""; accepted: both, or neither',
    ),
    "a key without its certificate": (
        kafka(tls={"enabled": True, "existingSecret": "s", "keyKey": "tls.key"}),
        'kafka.tls.certKey is "" and kafka.tls.keyKey is "tls.key"; accepted: both, or neither',
    ),
    "a certificate in no secret": (
        kafka(tls={"enabled": True, "certKey": "tls.crt", "keyKey": "tls.key"}),
        'kafka.tls.certKey is "tls.crt" and kafka.tls.existingSecret is empty; accepted: the name of the secret that '
        "holds it",
    ),
    "more at least than at most, hpa": (
        BROKER | {"generation": {"autoscaling": {"enabled": True, "kind": "hpa", "min": 9, "max": 2}}},
        "generation.autoscaling.min is 9 and max is 2; accepted: a min up to max",
    ),
    "more at least than at most, keda": (
        BROKER | {"verification": {"autoscaling": {"enabled": True, "kind": "keda", "min": 9}}},
        "verification.autoscaling.min is 9 and max is 8; accepted: a min up to max",
    ),
    "a stop that begins after the end": (
        BROKER | {"difficulty": {"preStopSeconds": 90}},
        "difficulty.preStopSeconds is 90 with terminationGracePeriodSeconds of 60; accepted: up to 50, which leaves "
        "10 s to end in",
    ),
    "a certificate of the doors without a name to expect": (
        BROKER | {"doors": {"tls": {"existingSecret": "d"}}},
        "doors.tls.serverName is empty with doors.tls.existingSecret d; accepted: a name in its certificate, as pods "
        "call each other by addresses that no certificate can hold",
    ),
    "an engine over more GPUs than its pod has": (
        BROKER | engine(parts=4, gpus=1),
        "generation has 1 GPUs and run.generation.tensor_parallel is 4; accepted: a GPU for each part",
    ),
    "a Ray cluster for a learner of one rank": (
        BROKER | {"learning": {"ray": {"enabled": True}}},
        "learning.ray.enabled is true and run.learning.ranks is 1; accepted: two ranks or more, of which the first "
        "stays with the learner",
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_two_values_that_do_not_go_together_are_refused_in_one_sentence(which):
    values, said = REFUSED[which]
    done = attempt(values)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        kafka(tls={"enabled": True, "existingSecret": "s", "certKey": "c", "keyKey": "k"}),
        kafka(tls={"enabled": True}),
        BROKER | {"generation": {"autoscaling": {"enabled": True, "min": 8, "max": 8}}},
        BROKER | {"difficulty": {"preStopSeconds": 50}},
        BROKER | engine(parts=4, gpus=4),
        BROKER | engine(parts=4, gpus=0),
    ],
    ids=["client certificate", "authority of the system", "min is max", "10 s are left", "a GPU each", "GPUs unsaid"],
)
def test_what_just_goes_together_is_taken(values):
    assert attempt(values).returncode == 0


@pytest.mark.parametrize("key", ["a/b", "a,b", "a b"])
def test_a_key_that_no_secret_has_is_refused_by_name(key):
    done = attempt(kafka(tls={"enabled": True, "existingSecret": "s", "caKey": key}))
    assert done.returncode != 0 and "caKey" in done.stderr
