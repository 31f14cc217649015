"""What Helm says after an install is true of what was installed."""

from __future__ import annotations

import argparse

import pytest

from pipeline.commands import eval as evaluation
from tests.helm.chart import BROKER, STRIMZI, notes, of, render


def asked(said: str) -> argparse.Namespace:
    """The evaluation that they tell of, as `sluice eval` understands it."""
    (command,) = [line.partition("-- sluice eval ")[2] for line in said.splitlines() if "-- sluice eval " in line]
    parser = argparse.ArgumentParser()
    evaluation.arguments(parser)
    return parser.parse_args(command.split())


def test_the_topics_that_stay_are_named_as_what_they_are(tmp_path):
    assert "leaves the learner's volume claim, and the topics." in notes(BROKER, tmp_path / "job")
    said = notes(STRIMZI | {"run": {"run": "math"}}, tmp_path / "strimzi")
    assert "leaves the learner's volume claim, and the KafkaTopics." in said
    assert "kubectl --namespace rl delete kafkatopics -l app.kubernetes.io/instance=r,sluice.dev/run=math" in said
    there = {"topics": {"manage": "strimzi", "strimzi": {"cluster": "main", "namespace": "kafka"}}}
    assert "kubectl --namespace kafka delete kafkatopics" in notes(STRIMZI | there, tmp_path / "elsewhere")


@pytest.mark.parametrize("evaluate", [{"every": 20, "prompts": 512, "samples": 8}, {"every": 5}, {"prompts": 0}])
def test_who_wants_evaluations_is_told_that_no_pod_makes_them_and_what_does(tmp_path, evaluate):
    said = notes(BROKER | {"run": {"evaluate": evaluate}}, tmp_path)
    assert "No pod evaluates: run.evaluate is what `sluice run` does on one machine." in said
    assert "kubectl --namespace rl exec r-sluice-learning-0 -- sluice eval /var/lib/sluice" in said
    found = asked(said)
    assert (found.dir, found.temperature) == ("/var/lib/sluice", 1.0)
    assert (found.prompts, found.samples) == (evaluate.get("prompts") or 256, evaluate.get("samples", 4))


def test_who_wants_none_is_told_nothing_of_them(tmp_path):
    assert "evaluates" not in notes(BROKER, tmp_path)


def test_who_gives_rights_by_annotation_is_told_of_both_accounts(tmp_path):
    values = BROKER | {"run": {"claims": "s3://b/f"}, "serviceAccount": {"annotations": {"role": "r"}}}
    assert "account r-sluice and has r-sluice-start: trust both." in notes(values, tmp_path / "hook")
    assert "trust both" not in notes(values | {"topics": STRIMZI["topics"]}, tmp_path / "release")


def test_the_test_that_they_tell_of_prints_the_doctors_words_before_its_pod_goes(tmp_path):
    # `helm test --logs` asks for the log of a pod that hook-succeeded has deleted, and fails whenever all is well.
    (told,) = [line for line in notes(BROKER, tmp_path).splitlines() if "helm test" in line]
    assert told.split("  ")[-1].strip() == "helm test r --namespace rl --timeout 10m"
    (doctor,) = of(render(BROKER), "Pod")
    annotations = doctor["metadata"]["annotations"]
    assert annotations["helm.sh/hook-output-log-policy"] == "hook-succeeded,hook-failed"
