"""The name and the password that go to Kafka: of every pod, and of KEDA."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import BROKER, CHART, SERVICES, of, pods, render

NAME = "SLUICE_KAFKA_SASL_USERNAME"


def user(**sasl: str) -> dict[str, Any]:
    given = {"mechanism": "SCRAM-SHA-512", "existingSecret": "user"} | sasl
    scaled = {"autoscaling": {"enabled": True}}
    return BROKER | {"kafka": BROKER["kafka"] | {"sasl": given}, "generation": scaled, "verification": scaled}


def names(values: Any) -> dict[str, list[dict[str, Any]]]:
    """The user name of every container, by its pod's component."""
    return {
        labels["app.kubernetes.io/component"]: [
            {key: value for key, value in variable.items() if key != "name"}
            for container in spec.get("initContainers", []) + spec["containers"]
            for variable in container["env"]
            if variable["name"] == NAME
        ]
        for _, labels, spec in pods(render(values))
    }


def twice(what: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Of each service's two containers, and of the start's and the doctor's one."""
    return dict.fromkeys(SERVICES, [what] * 2) | dict.fromkeys(("start", "doctor"), [what])


def test_the_user_name_is_the_one_that_was_given_or_else_the_secrets():
    assert names(user(username="me")) == twice({"value": "me"})
    reference = {"secretKeyRef": {"name": "user", "key": "login"}}
    assert names(user(usernameKey="login")) == twice({"valueFrom": reference})


def test_keda_takes_the_user_name_that_the_pods_have_and_the_password_from_the_secret():
    for values in (user(username="me"), user()):
        (one,) = of(render(values), "TriggerAuthentication")
        assert one["spec"] == {
            "env": [{"parameter": "username", "name": NAME}],
            "secretTargetRef": [{"parameter": "password", "name": "user", "key": "password"}],
        }


def test_production_asks_a_secret_of_strimzis_user_for_nothing_that_it_lacks():
    # Of a SCRAM user it holds `password` and `sasl.jaas.config`; it is called as the user is.
    assert names(CHART / "examples/production.yaml") == twice({"value": "sluice"})
