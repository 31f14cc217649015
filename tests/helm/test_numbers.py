"""Numbers as Helm writes them, with exponents: the run file, the doors and the tracer read what was meant."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from pipeline import access, config, overrides, recipe, tracing, yaml12
from pipeline.errors import UserError
from tests.helm.chart import BROKER, NEWEST, environment, of, pods, render

GRPO = {
    "base": "grpo",
    "name": "mine",
    "optimizer": {"name": "adamw", "eps": 1.0e-6},
}


def run_file(tmp_path, run: dict[str, Any]) -> str:
    """Where the release's run file lies, as a pod has it."""
    (found,) = [
        one for one in of(render(BROKER | {"run": run}), "ConfigMap") if one["metadata"]["name"].endswith("-run")
    ]
    path = tmp_path / "run.yaml"
    path.write_text(found["data"]["run.yaml"])
    return str(path)


def test_a_small_number_deep_in_the_run_file_is_the_number_that_was_given(tmp_path):
    path = run_file(tmp_path, {"recipe": GRPO, "learning": {"lr": 1.0e-6}, "generation": {"engine_args": {"x": 1e-9}}})
    run = config.load(path)
    assert recipe.compose(run).optimizer.knobs["eps"] == 1e-6
    assert (run.learning.lr, run.generation.engine_args) == (1e-6, {"x": 1e-9})


def test_text_of_the_run_file_that_looks_like_a_number_stays_text(tmp_path):
    stop = ["=", "1e5", "1e-06", "12:30", "on", "~", "<<", "2024-01-01"]
    assert config.load(run_file(tmp_path, {"run": "1e5", "generation": {"stop": stop}})).generation.stop == stop


def test_a_recipe_file_is_read_as_the_run_file_is(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: grpo\nname: mine\noptimizer: {name: adamw, eps: 1e-06}\n")
    assert recipe.load_recipe(str(tmp_path / "mine.yaml")).optimizer.knobs["eps"] == 1e-6


@pytest.mark.parametrize("text", ["1e-06", "1E-6", "0.000001", "1.0e-6", "1.e-6", ".1e-5", "+1e-06"])
def test_a_set_value_is_a_number_however_it_is_written(text):
    assert overrides.read(f"learning.lr={text}") == ("learning.lr", 1e-6)


@pytest.mark.parametrize("text", ["1e", "e6", "1e6x", "v1e6", "1e-", "1e12345", "'1e6'", '"1e6"'])
def test_what_is_no_number_stays_text(text):
    assert yaml12.read(text) == text.strip("'\"")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getpid []", "!!python/name:os.system"])
def test_nothing_but_plain_data_is_read(text):
    with pytest.raises(UserError, match="is no YAML"):
        overrides.read(f"run={text}")


def told(values: dict[str, Any]) -> dict[str, str]:
    """The environment of the generation pod."""
    return next(environment(spec) for who, _, spec in pods(render(BROKER | values)) if who.endswith("-generation"))


@pytest.mark.parametrize("share", [0, 1, 0.25, 0.0001, 0.00001, 1e-7])
def test_the_share_of_traces_is_the_one_that_was_given(share):
    found = told({"tracing": {"endpoint": "http://collector:4317", "share": share}})
    assert tracing.share_of(found) == share


def test_the_doors_limits_are_those_that_were_given():
    found = access.from_environment(
        told({"doors": {"callsPerSecond": 1000000, "maxCalls": 2000000, "maxMessageBytes": 1073741824}})
    )
    assert (found.calls_per_s, found.max_calls, found.max_message_bytes) == (1e6, 2_000_000, 2**30)
    assert access.from_environment(told({"doors": {"callsPerSecond": 0.00001}})).calls_per_s == 1e-5


@pytest.mark.parametrize(
    "text", ["-1", "1e", "e5", "nan", "inf", "1e999", "1e+", "0x1", "1_000", " 1", "\u0662", "\u00b2"]
)
def test_a_limit_that_is_no_number_is_refused(text):
    with pytest.raises(UserError, match="SLUICE_CALLS_PER_S is .*; accepted: a number, 0 or more"):
        access.from_environment({"SLUICE_CALLS_PER_S": text})


@pytest.mark.parametrize("text", ["2", "1.5", "1e1", "-1e-5", "1e", "0.", "01", "nan", "1e-", " 1e-5"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="accepted: a number from 0 to 1"):
        tracing.share_of({"OTEL_TRACES_SAMPLER_ARG": text})


def test_numbers_over_a_million_are_whole_in_every_object():
    scaling = {"enabled": True, "min": 1000000, "max": 2000000, "lagPerReplica": 3000000, "cooldownSeconds": 1000000}
    grace = {"terminationGracePeriodSeconds": 2000000, "preStopSeconds": 1000000, "startupSeconds": 1000000}
    values = BROKER | {
        "security": {"runAsUser": 1000660000, "fsGroup": 1000660000},  # as OpenShift gives them
        "topics": {"waitSeconds": 1000000},
        "generation": {"autoscaling": scaling | {"kind": "hpa"}, **grace},
        "verification": {"autoscaling": scaling | {"kind": "keda"}, **grace},
        "learning": grace,
    }
    objects = render(values)
    for one in objects:
        if one["kind"] != "ScaledObject":
            kubernetes_validate.validate(one, NEWEST, strict=True)
    assert {spec["securityContext"]["runAsUser"] for _, _, spec in pods(objects)} == {1000660000}
    (scaled,) = of(objects, "ScaledObject")
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["cooldownPeriod"]) == (1000000, 1000000)
    assert scaled["spec"]["triggers"][0]["metadata"]["lagThreshold"] == "3000000"
    sleep = {
        spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1]
        for who, _, spec in pods(objects)
        if "learn" in who
    }
    assert sleep == {"1000000"}
